"""Writes the dashboards of panels.py as Grafana's JSON, by Grafana's own library (grafana-foundation-sdk).

Run by `tests/operations/run --write`; the JSON beside this file is what people import.
"""

import itertools, json

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, DataTransformerConfig
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from panels import DASHBOARDS

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def lines():
    """Lines over time."""
    legend = common.VizLegendOptions().placement(LegendPlacement.BOTTOM).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
    return timeseries.Panel().legend(legend).tooltip(tooltip).min(0).span(8).height(7)


def matrix():
    """A table with a row for each source's zone and a column for each destination's."""
    places = {"rowField": "src_az", "columnField": "dst_az", "valueField": "Value", "emptyValue": "null"}
    turned = DataTransformerConfig(id_val="groupingToMatrix", options=places)
    return table.Panel().with_transformation(turned).span(12).height(8)


def stats():
    """One number."""
    return stat.Panel().graph_mode(BigValueGraphMode.NONE).span(4).height(4)


KINDS = {"lines": lines, "matrix": matrix, "stat": stats}


def panel(number, kind, title, unit, description, queries):
    made = KINDS[kind]().id(number).title(title).unit(unit).datasource(SOURCE)
    if description:
        made = made.description(description)
    for letter, (expression, legend) in zip("ABCDEF", queries, strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).datasource(SOURCE)
        query = query.format(PromQueryFormat.TABLE) if kind == "matrix" else query
        made = made.with_target(query if kind == "lines" else query.instant())
    return made


def variable(name, title, values):
    """A choice of label values; all of them, also none, by default."""
    made = dashboard.QueryVariable(name).label(title).datasource(SOURCE).query(values)
    return made.refresh(2).include_all(True).multi(True).all_value(".*")


def make(uid, title, rows, streams):
    """One dashboard."""
    made = dashboard.Dashboard(title).uid(uid).tags(["flowshift"]).refresh("30s").time("now-6h", "now")
    made = made.timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made = made.with_variable(variable("namespace", "Namespace", "label_values(flowshift_build_info, namespace)"))
    if streams:
        values = 'label_values(flowshift_leases_owned{namespace=~"$namespace"}, stream)'
        made = made.with_variable(variable("stream", "Stream", values))
    numbers = itertools.count(1)
    for row, panels in rows:
        made = made.with_row(dashboard.Row(row).id(next(numbers)))
        for one in panels:
            made = made.with_panel(panel(next(numbers), *one))
    return made.build()


def texts():
    """File name to JSON."""
    return {name: text(make(uid, title, rows, streams)) for name, uid, title, rows, streams in DASHBOARDS}


def text(made):
    """JSON with one panel a line, so that a change shows as what it is."""
    plain = json.loads(JSONEncoder(sort_keys=True).encode(made))
    panels = ",\n  ".join(json.dumps(one) for one in plain.pop("panels"))
    head = json.dumps(plain, indent=1)[1:-1].strip()
    return f'{{\n "panels": [\n  {panels}\n ],\n {head}\n}}\n'
