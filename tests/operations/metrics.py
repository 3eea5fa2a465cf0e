"""The metrics that the program has, and those that an expression asks for.

The README's table is the list: a test of the program holds it against what the program registers
(src/metrics/set.rs), so what stands there is scraped. Not here: who asks (monitoring.py, dashboards.py).
"""

import re

import yaml

from report import ROOT

# Labels that Prometheus and the component podmonitor add.
TARGET = {"job", "instance", "pod", "namespace", "app_kubernetes_io_component", "le"}
# Series of a histogram.
PARTS = ("_bucket", "_sum", "_count")
WORDS = r"[a-zA-Z_:][a-zA-Z0-9_:]*"


def known():
    """Name to labels, of the program's metrics."""
    table = {}
    for row in re.findall(r"(?m)^\| `(flowshift_\w+)` \|([^|]*)\|", (ROOT / "README.md").read_text()):
        table[row[0]] = set(re.findall(r"`(\w+)`", row[1]))
    return table


def rules():
    """Every rule of deploy/prometheus/rules, with its file."""
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield path, rule


def recorded():
    """Name to labels, of the recorded series."""
    table = {}
    for _, rule in rules():
        if "record" in rule:
            by = re.findall(r"by \(([^)]*)\)", rule["expr"])
            table[rule["record"]] = {label.strip() for part in by for label in part.split(",")} - {""}
    return table


def base(name, table):
    """The metric that a series belongs to."""
    for part in PARTS:
        if name.endswith(part) and name.removesuffix(part) in table:
            return name.removesuffix(part)
    return name


def check(where, expression):
    """Findings about one expression: metrics and labels that nobody has."""
    table = {**known(), **recorded()}
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    asked = [n for n in re.findall(WORDS, plain) if "flowshift_" in n]
    findings = [f"{where}: no metric {n}" for n in sorted({n for n in asked if base(n, table) not in table})]
    for name, inside in re.findall(rf"({WORDS})\{{([^}}]*)\}}", plain):
        labels = table.get(base(name, table), set()) | TARGET
        for label in re.findall(rf"({WORDS})\s*(?:=~|!~|!=|=)", inside):
            if name not in ("ALERTS",) and label not in labels:
                findings.append(f"{where}: {name} has no label {label}")
    labels = set.union(TARGET, *(table.get(base(n, table), set()) for n in asked))
    for part in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", plain):
        for label in filter(None, (p.strip() for p in part.split(","))):
            if label not in labels:
                findings.append(f"{where}: no metric there has label {label}")
    return findings
