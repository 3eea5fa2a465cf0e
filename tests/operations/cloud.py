"""CloudFormation: cfn-lint is content, roles grant what calls.yaml says and nothing else, names are those of the
program.

Not here: the calls that a run was seen to make; calls.yaml is what they are to be compared with. checkov is in
policy.py.
"""

import copy, re, tempfile

import yaml

import render
from report import HERE, ROOT, first, run, tool
from template import Stack

TEMPLATES = ROOT / "deploy/cloudformation"
ARN = re.compile(
    r"arn:aws:(kinesis|dynamodb):us-east-1:111122223333:(?:stream|table)/flowshift-([a-z-]+)(/consumer/efo:\*)?$"
)


def lint():
    """cfn-lint finds nothing in the templates, and finds a misspelt call."""
    command, files = tool("cfn-lint"), sorted(TEMPLATES.glob("*.yaml"))
    ok, said = run(command, *files)
    findings = [] if ok else first("cfn-lint", said)
    broken = (TEMPLATES / "operator.yaml").read_text().replace("kinesis:GetRecords", "kinesis:FetchRecords")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(broken)
        f.flush()
        ok, said = run(command, f.name)
    if ok or "fetchrecords" not in said.lower():
        findings.append("cfn-lint says nothing about a call that does not exist")
    return findings


def calls():
    return yaml.safe_load((HERE / "calls.yaml").read_text())


def merged(*tables):
    """Calls of several components as one."""
    union = {}
    for table in tables:
        for place, actions in table.items():
            union.setdefault(place, set()).update(actions)
    return union


def granted(stack, role):
    """Place to calls that a role of the stack may make, and findings about statements that are too wide."""
    policies, may, findings = stack.of("AWS::IAM::ManagedPolicy"), {}, []
    for reference in stack.of("AWS::IAM::Role")[role]["ManagedPolicyArns"]:
        for statement in policies[reference["Ref"]]["PolicyDocument"]["Statement"]:
            for action in statement["Action"]:
                service, _, name = action.partition(":")
                for arn in statement["Resource"]:
                    place = ARN.match(arn) if isinstance(arn, str) else None
                    if not place or place.group(1) != service:
                        findings.append(f"{role}: {action} on {arn}")
                    else:
                        may.setdefault("consumer" if place.group(3) else place.group(2), set()).add(name)
    return may, findings


def compare(stack, fan_out):
    """Findings: what is missing and what is spare, role by role."""
    table = calls()
    more = [table["fan-out"]] if fan_out else []
    wanted = {
        "AllRole": merged(table["aggregate"], table["detect"], *more),
        "AggregateRole": merged(table["aggregate"], *more),
        "DetectRole": merged(table["detect"]),
        "CollectRole": merged(table["collect"]),
    }
    people = Stack("operator.yaml", PrincipalArn="arn:aws:iam::111122223333:role/people")
    findings = difference(people, {"OperatorRole": merged(table["operator"])})
    return findings + difference(stack, wanted)


def difference(stack, wanted):
    """What roles of a stack lack, and what they have to spare."""
    findings = []
    for role, needs in wanted.items():
        may, wide = granted(stack, role)
        findings += wide
        for place in sorted(set(needs) | set(may)):
            for word, left in (
                ("lacks", needs.get(place, set()) - may.get(place, set())),
                ("has spare", may.get(place, set()) - needs.get(place, set())),
            ):
                if left:
                    findings.append(f"{role} {word} {sorted(left)} on {place}")
    return findings


def roles():
    """Roles are what calls.yaml says, polled and pushed; a wrong one is seen."""
    findings = []
    for consumer in ("", "efo"):
        stack = Stack("roles.yaml", FanOutConsumer=consumer)
        findings += compare(stack, bool(consumer))
        for change in (
            lambda s: s["Action"].pop(),
            lambda s: s["Action"].append("kinesis:DeleteStream"),
            lambda s: s["Resource"].append("*"),
        ):
            broken = copy.deepcopy(stack)
            change(broken.resources["ReadBetweenPolicy"]["Properties"]["PolicyDocument"]["Statement"][0])
            if not compare(broken, bool(consumer)):
                findings.append("the comparison of roles says nothing about a wrong one")
    return findings


def sources():
    """calls.yaml names the calls that stand in the sources, and no other."""
    text = "".join(p.read_text() for folder in ("src", "consumer/src") for p in (ROOT / folder).rglob("*.rs"))
    operations = (
        r"(?:list|describe|get|put|update|delete|create|register|deregister|subscribe|batch|transact|merge|split)_\w+"
    )
    made = set(re.findall(rf"(?:\.client|kinesis|dynamodb)\s*\.({operations}|scan|query)\(\)", text))
    made = {"".join(word.capitalize() for word in name.split("_")) for name in made}
    table = {key: value for key, value in calls().items() if key != "rare"}
    listed = {a for value in table.values() for a in (value if isinstance(value, list) else sum(value.values(), []))}
    findings = [f"calls.yaml does not know {name}, which is called" for name in sorted(made - listed)]
    return findings + [f"calls.yaml has {name}, which nothing calls" for name in sorted(listed - made)]


def names():
    """Streams, tables, keys and accounts are called as the program and the manifests call them."""
    stack = Stack("streams.yaml")
    there = {p["Name"] for p in stack.of("AWS::Kinesis::Stream").values()}
    tables = {p["TableName"]: p["KeySchema"][0]["AttributeName"] for p in stack.of("AWS::DynamoDB::Table").values()}
    key = re.search(r'KEY: &str = "(\w+)"', (ROOT / "consumer/src/lease/attribute.rs").read_text()).group(1)
    state = re.search(r'STATE_KEY: &str = "(\w+)"', (ROOT / "consumer/src/commit/mod.rs").read_text()).group(1)
    streams = ("flows", "exchange", "evidence")
    wanted = {**{f"flowshift-{s}-leases": key for s in streams}, "flowshift-state": state}
    findings = [] if there == {f"flowshift-{s}" for s in streams} else [f"streams.yaml: streams {sorted(there)}"]
    findings += [] if tables == wanted else [f"streams.yaml: tables {tables}, the program has {wanted}"]
    associations = Stack("roles.yaml", ClusterName="c").of("AWS::EKS::PodIdentityAssociation").values()
    mine = {a["ServiceAccount"] for a in associations}
    objects = [o for path in sorted(render.RELEASE.glob("*.yaml")) for o in render.objects(path.read_text())]
    accounts = {o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"}
    if mine != accounts:
        findings.append(f"roles.yaml: associations of {sorted(mine)}, accounts of k8s/ are {sorted(accounts)}")
    oidc = Stack("roles.yaml", OidcProviderArn="arn:p", OidcIssuer="issuer/id/1").of("AWS::IAM::Role")
    for role, properties in oidc.items():
        trust = properties["AssumeRolePolicyDocument"]["Statement"][0]
        subject = trust.get("Condition", {}).get("StringEquals", {}).get("issuer/id/1:sub", "").rpartition(":")[2]
        if subject not in accounts or trust["Action"] != "sts:AssumeRoleWithWebIdentity":
            findings.append(f"roles.yaml: {role} trusts {trust}")
    return findings


CHECKS = {"cfn-lint": lint, "roles": roles, "calls": sources, "names": names}
