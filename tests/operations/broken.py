"""Every check is seen to fail: a good render is broken in one way, and the rule for it must say so and no other.

A mutation is (rule, what was done, function on the objects). Invariant: each rule of workloads.py and wiring.py has
one; a rule that nobody can make fail checks nothing.
"""

import copy

import schemas, wiring, workloads
from objects import Render, label


def find(objects, name):
    """The object of a label such as Deployment/flowshift-aggregate."""
    return next(o for o in objects if label(o) == name)


def pod(objects, name):
    return find(objects, f"Deployment/{name}")["spec"]["template"]["spec"]


def container(objects, name):
    return pod(objects, name)["containers"][0]


def configuration(objects):
    """The ConfigMap, whose name has a hash."""
    return next(o for o in objects if o["kind"] == "ConfigMap")


def settings(old, new):
    """Changes the text of the settings file."""

    def change(objects):
        data = configuration(objects)["data"]
        assert old in data["flowshift.toml"]
        data["flowshift.toml"] = data["flowshift.toml"].replace(old, new)

    return change


def drop(name):
    """Takes an object away."""
    return lambda objects: objects.remove(find(objects, name))


def put(name, path, value):
    """Sets a field, by keys and indexes."""

    def change(objects):
        *way, last = [int(k) if k.isdigit() else k for k in path.split("/")]
        at = find(objects, name)
        for key in way:
            at = at[key]
        at[last] = value

    return change


AGGREGATE, DETECT, COLLECT = ("Deployment/flowshift-" + role for role in ("aggregate", "detect", "collect"))
POD, FIRST = "spec/template/spec", "spec/template/spec/containers/0"
QUERY = "spec/triggers/0/metadata/query"


def uncapped(objects):
    trigger = find(objects, "ScaledObject/flowshift-aggregate")["spec"]["triggers"][0]["metadata"]
    trigger["query"] = 'max(flowshift_iterator_age_seconds{stream="flowshift-flows"})'


MUTATIONS = [
    (
        workloads.rollout,
        "a pod goes before its successor is there",
        put(DETECT, "spec/strategy/rollingUpdate", {"maxSurge": 0, "maxUnavailable": 1}),
    ),
    (workloads.rollout, "one replica", put(DETECT, "spec/replicas", 1)),
    (
        workloads.leaving,
        "the kill comes while a command is answered",
        put(DETECT, f"{POD}/terminationGracePeriodSeconds", 30),
    ),
    (
        workloads.leaving,
        "the kill comes while a body arrives",
        put(COLLECT, f"{POD}/terminationGracePeriodSeconds", 35),
    ),
    (workloads.leaving, "no pause before the door closes", put(COLLECT, f"{FIRST}/lifecycle", {})),
    (workloads.probes, "liveness asks for readiness", put(DETECT, f"{FIRST}/livenessProbe/httpGet/path", "/readyz")),
    (workloads.probes, "a probe at a number", put(DETECT, f"{FIRST}/startupProbe/httpGet/port", 8080)),
    (workloads.ports, "the admin port stays on loopback", settings("0.0.0.0:9464", "127.0.0.1:9464")),
    (workloads.ports, "the port's number is another", put(DETECT, f"{FIRST}/ports/0/containerPort", 9465)),
    (
        workloads.ports,
        "a port nobody listens on",
        lambda o: container(o, "flowshift-detect")["ports"].append({"name": "debug", "containerPort": 1}),
    ),
    (workloads.configuration, "a role that does not exist", put(DETECT, f"{FIRST}/args/2", "judge")),
    (workloads.configuration, "half a job", drop(DETECT)),
    (workloads.configuration, "the topology is elsewhere", settings("/etc/flowshift/topology.yaml", "/topology.yaml")),
    (
        workloads.configuration,
        "a ConfigMap of another render",
        put(DETECT, f"{POD}/volumes/0/configMap/name", "flowshift"),
    ),
    (workloads.configuration, "a flag of another command", put(COLLECT, f"{FIRST}/args/1", "--role")),
    (workloads.hashed, "a fixed name", lambda o: configuration(o)["metadata"].update(name="flowshift")),
    (workloads.image, "two versions in one job", put(DETECT, f"{FIRST}/image", "flowshift:0.0.9")),
    (
        workloads.image,
        "latest",
        lambda o: [
            container(o, n).update(image="flowshift")
            for n in ("flowshift-aggregate", "flowshift-detect", "flowshift-collect")
        ],
    ),
    (workloads.rights, "root may write", put(DETECT, f"{FIRST}/securityContext/readOnlyRootFilesystem", False)),
    (workloads.rights, "no memory limit", put(DETECT, f"{FIRST}/resources/limits", {})),
    (workloads.rights, "a namespace without rules", put("Namespace/flowshift", "metadata/labels", {})),
    (wiring.names, "an object of another namespace", put("Service/flowshift", "metadata/namespace", "default")),
    # The Service of the metrics was left without one in the same way.
    (wiring.selectors, "a Service without a selector", lambda o: find(o, "Service/flowshift")["spec"].pop("selector")),
    (wiring.selectors, "a Service of nobody", put("Service/flowshift", "spec/selector", {"app": "flow"})),
    (
        wiring.selectors,
        "a selector of everybody's pods",
        put(DETECT, "spec/selector/matchLabels", {"app.kubernetes.io/name": "flowshift"}),
    ),
    (wiring.selectors, "zones forgotten", put(DETECT, f"{POD}/topologySpreadConstraints", [])),
    # A budget whose selector was left to kustomize: it had none, and protected nothing.
    (wiring.budgets, "a budget without a selector", put("PodDisruptionBudget/flowshift-detect", "spec/selector", {})),
    (
        wiring.budgets,
        "a budget that holds up every drain",
        put("PodDisruptionBudget/flowshift-detect", "spec/maxUnavailable", 0),
    ),
    (
        wiring.doors,
        "a Service to a port that is not there",
        put("Service/flowshift-collect", "spec/ports/0/targetPort", "http"),
    ),
    (
        wiring.doors,
        "a monitor of a port that is not there",
        put("PodMonitor/flowshift", "spec/podMetricsEndpoints/0/port", "metrics"),
    ),
    (wiring.network, "nothing is closed", drop("NetworkPolicy/flowshift")),
    (wiring.network, "the door is shut", drop("NetworkPolicy/flowshift-collect")),
    (
        wiring.network,
        "the node's role is in reach",
        put("NetworkPolicy/flowshift", "spec/egress/1/to/0/ipBlock", {"cidr": "0.0.0.0/0"}),
    ),
    (wiring.accounts, "an account for two", put(DETECT, f"{POD}/serviceAccountName", "flowshift-aggregate")),
    (
        wiring.accounts,
        "an account without its role",
        put("ServiceAccount/flowshift-detect", "metadata/annotations", {}),
    ),
    (wiring.scaling, "more workers than shards", put("ScaledObject/flowshift-aggregate", "spec/maxReplicaCount", 40)),
    (wiring.scaling, "a query without a cap", uncapped),
    (
        wiring.scaling,
        "the scaler of another stream",
        lambda o: put(
            "ScaledObject/flowshift-detect",
            QUERY,
            find(o, "ScaledObject/flowshift-aggregate")["spec"]["triggers"][0]["metadata"]["query"],
        )(o),
    ),
    (
        wiring.scaling,
        "a scaler of nobody",
        put("ScaledObject/flowshift-detect", "spec/scaleTargetRef/name", "flowshift"),
    ),
    (wiring.scaling, "a number that each apply sets back", put(DETECT, "spec/replicas", 2)),
    (wiring.labels, "the component is not the role", put(DETECT, f"{FIRST}/args/2", "all")),
]
TYPOS = [
    ("a field of Kubernetes", put(DETECT, f"{FIRST}/livenessProbe/failureTreshold", 3)),
    ("a number where a name belongs", put(DETECT, f"{FIRST}/ports/0/containerPort", "admin")),
    ("a field of KEDA", put("ScaledObject/flowshift-detect", "spec/maxReplicasCount", 3)),
    ("a field of the Prometheus operator", put("PodMonitor/flowshift", "spec/podMetricsEndpoint", [])),
    ("a rule without an expression", put("PrometheusRule/flowshift", "spec/groups/0/rules/0/expression", "1")),
]


def mutated(objects, change):
    objects = copy.deepcopy(objects)
    change(objects)
    return objects


def check(objects):
    """Findings about the checks, from a render with every component."""
    findings = [
        f"{rule.__name__} fails on the good render: {said}"
        for rule in [*workloads.RULES, *wiring.RULES]
        for said in rule(Render(objects))
    ]
    for rule, what, change in MUTATIONS:
        if not list(rule(Render(mutated(objects, change)))):
            findings.append(f"rule {rule.__name__} says nothing when broken: {what}")
    for rule in [*workloads.RULES, *wiring.RULES]:
        if rule not in [m[0] for m in MUTATIONS]:
            findings.append(f"rule {rule.__name__} was never seen to fail")
    for what, change in TYPOS:
        if not schemas.check([("broken", mutated(objects, change))]):
            findings.append(f"the schemas say nothing when broken: {what}")
    return findings
