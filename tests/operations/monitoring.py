"""Rules, alerts and their tests, the Alertmanager example, the scalers' queries, and the dashboards.

promtool and amtool say whether the files are right; here is added what they cannot know: that every metric exists,
that every alert was seen to fire and to be quiet, and that what is generated is up to date.
"""

import re, tempfile

import yaml

import dashboards, metrics
from report import ROOT, first, relative, run, tool

PROMETHEUS = ROOT / "deploy/prometheus"
ALERTMANAGER = ROOT / "deploy/alertmanager"
OPERATOR = ROOT / "k8s/components/prometheusrule/prometheusrule.yaml"
SEVERITIES = {"critical", "warning", "info"}


def prometheus_rules():
    """promtool is content with the rules."""
    ok, said = run(tool("promtool", "FLOWSHIFT_PROMTOOL"), "check", "rules", "--lint-fatal", *rule_files())
    return [] if ok else first("promtool check rules", said)


def prometheus_tests():
    """The rules' own tests pass, and each alert fires in one and is quiet in another."""
    files = sorted((PROMETHEUS / "tests").glob("*.yaml"))
    ok, said = run(tool("promtool", "FLOWSHIFT_PROMTOOL"), "test", "rules", *files)
    findings = [] if ok else first("promtool test rules", said)
    fired, quiet = set(), set()
    for path in files:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for one in test.get("promql_expr_test", []):
                seen, samples = re.findall(r'alertname=~?"([^"]+)"', one["expr"]), one.get("exp_samples")
                told = {n for s in samples or [] for n in re.findall(r'alertname="(\w+)"', s["labels"])} or set(seen)
                (fired if samples else quiet).update(told)
    for name in sorted(alerts()):
        if name not in fired or not any(re.fullmatch(pattern, name) for pattern in quiet):
            findings.append(f"alert {name} is not seen both to fire and to be quiet in deploy/prometheus/tests")
    return findings


def alert_rules():
    """Every alert says how bad it is, what happened and what to do; every metric it asks for exists."""
    findings = []
    for path, rule in metrics.rules():
        name = rule.get("alert") or rule["record"]
        findings += metrics.check(f"{relative(path)}: {name}", rule["expr"])
        if "alert" not in rule:
            continue
        if rule.get("labels", {}).get("severity") not in SEVERITIES:
            findings.append(f"{name}: severity is not one of {sorted(SEVERITIES)}")
        for text in ("summary", "description"):
            if not rule.get("annotations", {}).get(text):
                findings.append(f"{name}: no {text}")
    return findings


def alertmanager():
    """amtool is content with the example, and alerts reach who they should."""
    amtool, file = tool("amtool", "FLOWSHIFT_AMTOOL"), ALERTMANAGER / "alertmanager.yaml"
    ok, said = run(amtool, "check-config", file)
    findings = [] if ok else first("amtool check-config", said)
    routed = set()
    for line in (ALERTMANAGER / "routes.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        receiver, *labels = line.split()
        routed.update(label.partition("=")[2] for label in labels if label.startswith("alertname=Flowshift"))
        ok, said = run(
            amtool, "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}", *labels
        )
        if not ok:
            findings.append(f"{' '.join(labels)} does not reach {receiver}: {said}")
    return findings + [f"deploy/alertmanager/routes.txt: no alert {name}" for name in sorted(routed - set(alerts()))]


def scalers():
    """The queries of the scalers ask for what is there, and give the workers wanted: checked on made-up series."""
    findings = []
    for path in sorted((ROOT / "k8s/components").glob("keda*/*.yaml")):
        o = yaml.safe_load(path.read_text())
        for trigger in o.get("spec", {}).get("triggers", []) if o["kind"] == "ScaledObject" else []:
            if trigger["type"] == "prometheus":
                query = trigger["metadata"]["query"]
                findings += metrics.check(relative(path), query) + wanted(relative(path), query)
    return findings


def wanted(where, query):
    """Three workers on eight leases: (age of the oldest record, workers wanted)."""
    stream = re.findall(r'stream="([^"]+)"', query)[0]
    findings = []
    for age, workers in [(0, 0), (30, 1.5), (60, 3), (120, 6), (600, 8), (86400, 8)]:
        owned = [
            (f'flowshift_leases_owned{{stream="{stream}",instance="{n}"}}', c) for n, c in zip("abcd", (3, 3, 2, 0))
        ]
        ages = [(f'flowshift_iterator_age_seconds{{stream="{stream}",shard="s-{n}"}}', age * n) for n in (0, 1)]
        test = {
            "rule_files": [],
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": s, "values": f"{v} {v}"} for s, v in owned + ages],
                    "promql_expr_test": [
                        {"expr": query, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": workers}]}
                    ],
                }
            ],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            yaml.safe_dump(test, f)
            f.flush()
            ok, said = run(tool("promtool", "FLOWSHIFT_PROMTOOL"), "test", "rules", f.name)
        if not ok:
            findings.append(f"{where}: at an age of {age} s not {workers} workers:\n{said}")
    return findings


def names_fail():
    """The check of names is seen to fail."""
    bad = [
        "flowshift_no_such_total",
        'flowshift_leader{shard="1"}',
        "sum by (subnet) (flowshift_sources)",
        "job:flowshift_x:max",
    ]
    good = 'histogram_quantile(0.9, sum by (le) (rate(flowshift_hand_over_duration_seconds_bucket{stream="a"}[5m])))'
    findings = [f"nothing is said about {text}" for text in bad if not metrics.check("", text)]
    return findings + metrics.check("a good expression", good)


def generated():
    """What is written from other files is up to date."""
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    return [f"{relative(path)} is not up to date: tests/operations/run --write" for path in stale]


def rule_files():
    return sorted((PROMETHEUS / "rules").glob("*.yaml"), reverse=True)


def alerts():
    return [rule["alert"] for _, rule in metrics.rules() if "alert" in rule]


def files():
    """Generated files: the rules as the operator has them, and the dashboards."""
    groups = [group for path in rule_files() for group in yaml.safe_load(path.read_text())["groups"]]
    o = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "flowshift"},
        "spec": {"groups": groups},
    }
    text = "# Written from deploy/prometheus/rules by `tests/operations/run --write`: do not edit.\n"
    text += yaml.safe_dump(o, sort_keys=False, width=118, allow_unicode=True)
    return {OPERATOR: text, **dashboards.files()}


CHECKS = {
    "generated": generated,
    "prometheus-rules": prometheus_rules,
    "prometheus-tests": prometheus_tests,
    "alert-rules": alert_rules,
    "metric-names": names_fail,
    "alertmanager": alertmanager,
    "scalers": scalers,
    "dashboards": dashboards.check,
}
