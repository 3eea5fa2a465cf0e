"""The calls that a job was seen to make, held against calls.yaml (and so against the roles): nothing missing, nothing
spare.

Needs a build with the embedded services, in FLOWSHIFT_BINARY. Not here: what AWS checks of a call beyond its name
and resource; the processes (job.py) and how their calls are written down (proxy.py).
"""

import json, os, re, tempfile, time, urllib.request

from cloud import calls, merged
from job import PATIENCE, Job, Stopped
from objects import longest_leave
from report import Skip


def post(door):
    """Fifty flow records of now, from everywhere to everywhere."""
    now, lines = int(time.time() * 1000), ""
    for n in range(50):
        record = {
            "ts_ms": now,
            "interval_ms": 1000,
            "src": f"10.77.{1 + n % 2}.{n + 1}",
            "dst": f"10.77.{2 - n % 2}.{n + 1}",
        }
        record |= {
            "src_port": 40001,
            "dst_port": 443,
            "protocol": "tcp",
            "bytes": 1000,
            "packets": 10,
            "retransmits": 0,
        }
        lines += json.dumps(record) + "\n"
    kind = {"content-type": "application/x-ndjson"}
    urllib.request.urlopen(urllib.request.Request(door + "/v1/flows", lines.encode(), kind), timeout=PATIENCE)


def play(job):
    """A job's life, so that every component makes its calls, and each role leads once."""
    job.start("collect", ["collect", "--listen", "127.0.0.1:0", "--config", job.settings("collect")])
    door = re.search(r"http://[\d.:]+", job.said("collect")).group(0)

    def until(what, role, *wanted):
        def done():
            post(door)
            return set(wanted) <= job.seen[role]

        job.until(what, done)

    job.role("aggregate")
    until(
        "aggregate leads, cuts and commits",
        "aggregate",
        ("exchange-leases", "PutItem"),
        ("flows-leases", "UpdateItem"),
        ("exchange", "PutRecords"),
        ("state", "PutItem"),
    )
    job.role("detect")
    until(
        "detect commits and tells",
        "detect",
        ("evidence", "PutRecords"),
        ("evidence", "GetRecords"),
        ("state", "PutItem"),
    )
    job.stop("aggregate")
    until("detect leads", "detect", ("flows", "ListShards"), ("exchange", "PutRecords"))
    for stream in ("flows", "exchange"):
        job.call(
            "kinesis",
            "SplitShard",
            StreamName=f"flowshift-{stream}",
            ShardToSplit="shardId-000000000000",
            NewStartingHashKey=str(2**126),
        )
    job.role("aggregate", "efo")
    until("aggregate subscribes", "aggregate", ("consumer", "SubscribeToShard"))
    until("detect makes rows of new shards", "detect", ("flows-leases", "PutItem"), ("exchange-leases", "PutItem"))
    for arguments in OPERATOR:
        job.people(*arguments.split())
    owners = {lease["owner"] for lease in json.loads(job.people("leases", "list", "--json"))["leases"]}
    for owner in sorted(filter(None, owners)):
        job.people("leases", "release", "--worker", owner, "--yes", "--force")


OPERATOR = [
    "leases list",
    "state inspect",
    "state export",
    "leases resolve gaps shardId-000000000001",
    "leases resolve skip shardId-000000000001 --until 2100-01-01T00:00:00Z --yes",
]


def check():
    """Findings: what is called and not listed, and what is listed and neither called nor rare."""
    flowshift = os.environ.get("FLOWSHIFT_BINARY")
    if not flowshift or not os.access(flowshift, os.X_OK):
        raise Skip("no build: FLOWSHIFT_BINARY names none")
    with tempfile.TemporaryDirectory(prefix="flowshift-calls-") as folder:
        job = Job(os.path.abspath(flowshift), folder)
        try:
            job.open()
            play(job)
            findings = []
        except Stopped as why:
            findings = [f"the job did not go on: {why}"]
        finally:
            for name in list(job.running)[::-1]:
                job.stop(name)
        return findings or [*compare(job.seen), *left(job.left)]


def left(processes):
    """SIGTERM under load ends a process well, within what the grace period of its Deployment allows for."""
    for name, seconds, code in processes:
        if code != 0 or seconds > longest_leave(name):
            yield f"{name} left with exit code {code} after {seconds:.1f} s"


def compare(seen):
    table = calls()
    wanted = {
        "aggregate": merged(table["aggregate"], table["fan-out"]),
        **{c: table[c] for c in ("detect", "collect", "operator")},
    }
    findings = []
    for component, needs in wanted.items():
        listed = {(place, action) for place, actions in needs.items() for action in actions}
        rare = {(place, action) for place, actions in table["rare"].get(component, {}).items() for action in actions}
        made = seen.get(component, set())
        findings += [
            f"{component} calls {action} on {place}, which calls.yaml does not have"
            for place, action in sorted(made - listed)
        ]
        findings += [f"{component} never called {action} on {place}" for place, action in sorted(listed - made - rare)]
    return findings
