"""What holds the objects of a render together: selectors, accounts, network, scaling.

Each rule is `rule(render)` and returns findings, as in workloads.py; each has a mutation in broken.py that it fails
on.
"""

import ipaddress, re

from objects import argument, command, container, label, pod, shards, spec

METADATA = ipaddress.ip_address("169.254.169.254")
# Parameter of the streams' template that says how many shards a stream has.
SHARDS = {"flowshift-flows": "FlowsShards", "flowshift-exchange": "ExchangeShards"}
READS = {"flowshift-flows": {"all", "aggregate"}, "flowshift-exchange": {"detect"}}


def names(render):
    """No object twice, all in one namespace that is part of the render."""
    seen = set()
    namespaces = {n["metadata"]["name"] for n in render.all("Namespace")}
    for o in render.objects:
        key = (label(o), o["metadata"].get("namespace"))
        if key in seen:
            yield f"{label(o)} is there twice"
        seen.add(key)
        if o["kind"] != "Namespace" and o["metadata"].get("namespace") not in namespaces:
            yield f"{label(o)}: namespace {o['metadata'].get('namespace')} is not made here"


def selectors(render):
    """Whatever selects pods selects some; a Deployment and its budget select its own and no other's."""
    for d in render.deployments():
        if [label(x) for x in render.selected(d["spec"].get("selector"))] != [label(d)]:
            yield f"{label(d)}: its selector is not of its pods alone"
        for spread in spec(d).get("topologySpreadConstraints", []):
            if render.selected(spread.get("labelSelector")) != [d]:
                yield f"{label(d)}: {spread['topologyKey']} is spread over other pods than its own"
        keys = {s["topologyKey"] for s in spec(d).get("topologySpreadConstraints", [])}
        if "topology.kubernetes.io/zone" not in keys:
            yield f"{label(d)}: not spread over zones"
    for service in render.all("Service"):
        if not render.selected({"matchLabels": service["spec"].get("selector", {})}):
            yield f"{label(service)}: selects no pods"
    for kind, field in (("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")):
        for o in render.all(kind):
            if not render.selected(o["spec"].get(field)):
                yield f"{label(o)}: selects no pods"


def budgets(render):
    """Each Deployment has one budget, which lets a node be drained and a broken pod go."""
    budgets = render.all("PodDisruptionBudget")
    for d in render.deployments():
        mine = [b for b in budgets if render.selected(b["spec"].get("selector")) == [d]]
        if len(mine) != 1:
            yield f"{label(d)}: {len(mine)} disruption budgets"
    for b in budgets:
        if b["spec"].get("maxUnavailable") != 1 or b["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{label(b)}: must let one pod go, and any that is not ready"


def doors(render):
    """Ports of Services, monitors and policies exist by name in every pod they select."""
    asked = []
    for s in render.all("Service"):
        wanted = [p.get("targetPort") for p in s["spec"]["ports"]]
        asked.append((s, {"matchLabels": s["spec"].get("selector", {})}, wanted))
    for m in render.all("PodMonitor"):
        asked.append((m, m["spec"]["selector"], [e.get("port") for e in m["spec"]["podMetricsEndpoints"]]))
    for n in render.all("NetworkPolicy"):
        rules = n["spec"].get("ingress", [])
        asked.append((n, n["spec"]["podSelector"], [p.get("port") for r in rules for p in r.get("ports", [])]))
    for o, selector, wanted in asked:
        for d in render.selected(selector):
            there = {p["name"] for p in container(d).get("ports", [])}
            for port in sorted({str(w) for w in wanted} - there):
                yield f"{label(o)}: port {port} is not one of {label(d)}"


def network(render):
    """Every pod is closed but for what it needs: names, AWS, its Services' ports; never the node's metadata."""
    policies = render.all("NetworkPolicy")
    for d in render.deployments():
        mine = [p for p in policies if d in render.selected(p["spec"].get("podSelector"))]
        types = {t for p in mine for t in p["spec"].get("policyTypes", [])}
        if types != {"Ingress", "Egress"}:
            yield f"{label(d)}: only {sorted(types)} is restricted"
        opened = {port["port"] for p in mine for r in p["spec"].get("ingress", []) for port in r.get("ports", [])}
        wanted = {"collect"} if command(d) == "collect" else set()
        if render.all("PodMonitor"):
            wanted.add("admin")
        if opened != wanted:
            yield f"{label(d)}: ports {sorted(opened)} are open, {sorted(wanted)} are needed"
        leaving = [r for p in mine for r in p["spec"].get("egress", [])]
        if {53, 443} - {port["port"] for r in leaving for port in r.get("ports", [])}:
            yield f"{label(d)}: cannot reach names or AWS"
        for to in [to for r in leaving for to in r.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}])]:
            block = to.get("ipBlock")
            if (
                block
                and covers(block["cidr"], METADATA)
                and not any(covers(e, METADATA) for e in block.get("except", []))
            ):
                yield f"{label(d)}: the node's metadata service is open to it"


def covers(cidr, address):
    return address in ipaddress.ip_network(cidr)


def accounts(render):
    """Each Deployment has an account of its own; when one has a role of AWS, all have, and a different one."""
    there = {a["metadata"]["name"]: a for a in render.all("ServiceAccount")}
    used = [spec(d).get("serviceAccountName") for d in render.deployments()]
    if len(set(used)) != len(used) or set(used) != set(there):
        yield f"accounts {sorted(there)} are made, {sorted(map(str, used))} are used"
    role = "eks.amazonaws.com/role-arn"
    roles = [a["metadata"].get("annotations", {}).get(role) for a in there.values()]
    if any(roles) and (None in roles or len(set(roles)) != len(roles)):
        yield f"roles of the accounts are not one for each: {roles}"
    for a in there.values():
        if a.get("automountServiceAccountToken") is not False:
            yield f"{label(a)}: hands out tokens of the Kubernetes API"


def scaling(render):
    """A scaler has a Deployment without a number of its own, and more workers than shards are never asked for."""
    by_name = {d["metadata"]["name"]: d for d in render.deployments()}
    for o in render.all("ScaledObject"):
        target = by_name.get(o["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"{label(o)}: scales {o['spec']['scaleTargetRef']['name']}, which is not there"
            continue
        low, high = o["spec"].get("minReplicaCount", 0), o["spec"].get("maxReplicaCount", 100)
        if not 2 <= low <= high:
            yield f"{label(o)}: {low} to {high} replicas"
        if "replicas" in target["spec"]:
            yield f"{label(target)}: replicas is set, each apply would undo the scaler's work"
        triggers = {t["type"]: t for t in o["spec"]["triggers"]}
        if "cpu" in triggers and "cpu" not in container(target).get("resources", {}).get("requests", {}):
            yield f"{label(o)}: scales by processor time, of which {label(target)} requests none"
        if command(target) == "collect":
            continue
        query = triggers.get("prometheus", {}).get("metadata", {}).get("query", "")
        streams = set(re.findall(r'stream="([^"]+)"', query))
        cap = 'sum(flowshift_leases_owned{stream="%s"})' % "".join(streams)
        if len(streams) != 1 or not re.search(r"<\s+" + re.escape(cap) + r"\s+or\s+" + re.escape(cap) + "$", query):
            yield f"{label(o)}: the query is not capped at the leases of one stream"
            continue
        stream = streams.pop()
        if argument(target, "--role", "all") not in READS.get(stream, set()):
            yield f"{label(o)}: {label(target)} does not read {stream}"
        if high > shards(SHARDS.get(stream, "")):
            yield f"{label(o)}: up to {high} replicas for {shards(SHARDS[stream])} shards of {stream}"


def labels(render):
    """Pods say what they are; the role of a worker is its component."""
    for d in render.deployments():
        carried = pod(d)["metadata"].get("labels", {})
        role = "collect" if command(d) == "collect" else argument(d, "--role", "all")
        wanted = {"app.kubernetes.io/name": "flowshift", "app.kubernetes.io/component": role}
        if not wanted.items() <= carried.items():
            yield f"{label(d)}: its pods carry {carried}, not {wanted}"


RULES = [names, selectors, budgets, doors, network, accounts, scaling, labels]
