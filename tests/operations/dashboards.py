"""The dashboards: up to date, readable by Grafana's library without loss, every query right, every metric shown.

After the list of grafana/dashboard-linter: a unit and a title on each panel, the datasource a variable, counters in
`rate` or `increase` over the interval of the screen. Not here: series from a live Prometheus, which a run of the
program gives.
"""

import json, re, sys, tempfile

import yaml

import metrics
from report import ROOT, Skip, first, relative, run, tool

FOLDER = ROOT / "deploy/grafana"
INTERVAL = re.compile(r"\[\$__(?:rate_interval|range)\]")


def files():
    """Generated files: path to text."""
    sys.path.insert(0, str(FOLDER))
    try:
        import make
    except ImportError as error:
        raise Skip(f"no package {error.name}")
    return {FOLDER / name: text for name, text in make.texts().items()}


def panels(dashboard):
    return [p for p in dashboard["panels"] if p["type"] != "row"]


def queries(dashboard):
    """(title, expression as Prometheus takes it) of a dashboard."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield (
                panel["title"],
                INTERVAL.sub("[5m]", target["expr"]).replace("$stream", ".*").replace("$namespace", ".*"),
            )


def check():
    """Findings of all dashboards."""
    findings, shown = [], set()
    for path in sorted(FOLDER.glob("*.json")):
        dashboard = json.loads(path.read_text())
        findings += [f"{relative(path)}: {said}" for said in form(dashboard)]
        for title, expression in queries(dashboard):
            findings += metrics.check(f"{relative(path)}: {title}", expression)
            shown.update(re.findall(metrics.WORDS, expression))
        findings += right(path, dashboard)
    for _, rule in metrics.rules():
        if rule.get("record") in shown:
            shown.update(re.findall(metrics.WORDS, rule["expr"]))
    table = metrics.known()
    shown = {metrics.base(name, table) for name in shown}
    findings += [f"no dashboard shows {name}" for name in sorted(set(table) - shown)]
    return findings + seen_to_fail()


def form(dashboard):
    """What a panel must have."""
    numbers = [p.get("id") for p in dashboard["panels"]]
    if len(set(numbers)) != len(numbers) or None in numbers:
        yield f"ids of panels are not all different: {numbers}"
    for panel in panels(dashboard):
        title = panel.get("title") or f"panel {panel.get('id')}"
        if not panel.get("title") or not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
            yield f"{title}: no title or no unit"
        letters = [t.get("refId") for t in panel["targets"]]
        if not letters or len(set(letters)) != len(letters) or not all(letters):
            yield f"{title}: queries are called {letters}"
        for target in panel["targets"]:
            if target["datasource"]["uid"] != "${datasource}" or panel["datasource"]["uid"] != "${datasource}":
                yield f"{title}: the datasource is not a variable"
            for name in re.findall(r"flowshift_\w+_(?:total|bucket)\b", target["expr"]):
                if not re.search(
                    rf"(?:rate|increase)\({name}(?:{{[^}}]*}})?\[\$__(?:rate_interval|range)\]\)", target["expr"]
                ):
                    yield f"{title}: {name} is a counter and in no rate over the interval of the screen"
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", target["expr"]))))
            for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                if grouped and label not in grouped:
                    yield f"{title}: the legend shows {label}, which the query does not have"
    at = [p["gridPos"] for p in dashboard["panels"]]
    for i, a in enumerate(at):
        for b in at[i + 1 :]:
            if (
                a["x"] < b["x"] + b["w"]
                and b["x"] < a["x"] + a["w"]
                and a["y"] < b["y"] + b["h"]
                and b["y"] < a["y"] + a["h"]
            ):
                yield f"panels lie over each other at {a}"


def right(path, dashboard):
    """Prometheus can read every query: they go through it as rules."""
    rules = [{"record": f"a:b:c{n}", "expr": expression} for n, (_, expression) in enumerate(queries(dashboard))]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}, f)
        f.flush()
        ok, said = run(tool("promtool", "FLOWSHIFT_PROMTOOL"), "check", "rules", f.name)
    return [] if ok else first(relative(path), said)


def seen_to_fail():
    """Each rule of `form`, and promtool, say something of a broken dashboard."""
    good = json.loads((FOLDER / "fleet.json").read_text())
    a = next(p for p in panels(good) if "rate(" in p["targets"][0]["expr"])
    target = a["targets"][0]
    changes = {
        "two ids": lambda: a.update(id=1),
        "no unit": lambda: a["fieldConfig"]["defaults"].pop("unit"),
        "no letter": lambda: target.update(refId=""),
        "a fixed datasource": lambda: a["datasource"].update(uid="prometheus"),
        "no rate": lambda: target.update(expr="flowshift_records_in_total"),
        "a fixed interval": lambda: target.update(expr=target["expr"].replace("$__rate_interval", "5m")),
        "a wrong legend": lambda: target.update(legendFormat="{{pod}}"),
        "one over the other": lambda: a["gridPos"].update(y=0, x=0),
        "a query that is none": lambda: target.update(expr="sum(rate(flowshift_records_in_total[$__rate_interval])"),
    }
    findings, before = [], json.dumps(a)
    for what, change in changes.items():
        change()
        if not list(form(good)) and not right(FOLDER / "fleet.json", good):
            findings.append(f"the check of dashboards says nothing when broken: {what}")
        a.clear()
        a.update(json.loads(before))
        target = a["targets"][0]
    return findings
