"""The calls that a job was seen to make, held against calls.yaml (and so against the roles): nothing missing, nothing spare.

The services of `flowshift local` carry a second job whose processes run as on Kubernetes, one role each, every one behind a proxy
of its own that writes down which call goes to which stream or table. Needs a build with the embedded services: --flowshift, or
FLOWSHIFT_BINARY. Not here: what AWS checks of a call beyond its name and resource.
"""

import http.client, http.server, json, os, pathlib, re, subprocess, tempfile, threading, time
import urllib.error, urllib.request

from cloud import calls, merged
from report import Skip
from template import Stack

PATIENCE = 90
CONSUMER = "flowshift"
TARGETS = {"kinesis": ("Kinesis_20131202", "1.1"), "dynamodb": ("DynamoDB_20120810", "1.0")}
# Where an answer has the iterator that the next request carries.
ITERATORS = {"GetShardIterator": "ShardIterator", "GetRecords": "NextShardIterator"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_REGION": "us-east-1"}
TOPOLOGY = """subnets:
  - { id: subnet-a, cidrs: [10.77.1.0/24, "fd77:1::/64"], az: use1-az1, vpc: vpc-1 }
  - { id: subnet-b, cidrs: [10.77.2.0/24, "fd77:2::/64"], az: use1-az2, vpc: vpc-1 }
"""
# Shorter than the defaults: leases and steps pass while somebody waits. What calls are made does not depend on them.
SETTINGS = """[job]
name = "flowshift"
[aws]
endpoint_url_kinesis = "http://{kinesis}"
endpoint_url_dynamodb = "http://{dynamodb}"
[engine]
failover = "3s"
renewal = "1s"
leader_lock = "1500ms"
leader_beat = "500ms"
assign_interval = "500ms"
batch_interval = "1s"
commit_interval = "1s"
foreign_watch = "3s"
[topology]
file = "{topology}"
[admin]
listen = "127.0.0.1:0"
[input]
fetch = "{fetch}"
"""


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on and writes down (place, call)."""

    daemon_threads = True

    def __init__(self, target, seen):
        super().__init__(("127.0.0.1", 0), Pass)
        self.target, self.seen, self.iterators = target.removeprefix("http://").rstrip("/"), seen, {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def note(self, target, request):
        """Writes a call down: (place, call). An iterator carries no name; what it was made for counts."""
        action = target.rpartition(".")[2]
        name = request.get("TableName") or request.get("StreamName") or self.iterators.get(request.get("ShardIterator"), "")
        arn = request.get("ConsumerARN") or request.get("StreamARN") or ""
        name = "consumer" if "/consumer/" in arn else name or arn.rpartition("/")[2]
        self.seen.add((name.removeprefix("flowshift-"), action))
        return name, action

    def learn(self, call, answer):
        """Remembers which stream an iterator is of."""
        name, action = call
        if action in ITERATORS and answer.startswith(b"{"):
            self.iterators[json.loads(answer).get(ITERATORS[action])] = name

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"


class Pass(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        call = self.server.note(self.headers.get("x-amz-target", ""), json.loads(body or b"{}"))
        there = http.client.HTTPConnection(self.server.target, timeout=400)
        there.request("POST", self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "host"})
        answer = there.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # Subscriptions answer for minutes: what comes is passed on at once.
        whole = b""
        try:
            while part := answer.read1(65536):
                whole += part if call[1] in ITERATORS else b""
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
            self.server.learn(call, whole)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # A process that leaves hangs up on its subscriptions.
            self.close_connection = True
        there.close()

    def log_message(self, *_):
        pass



class Stopped(Exception):
    """A process of the job ended by itself."""


class Job:
    """The processes of a job on embedded services, each with what it was seen to call."""

    def __init__(self, flowshift, folder):
        self.flowshift, self.folder, self.running, self.seen = flowshift, pathlib.Path(folder), {}, {}
        (self.folder / "topology.yaml").write_text(TOPOLOGY)

    def open(self):
        """Starts the services, and makes streams and tables there."""
        host = ["local", "--data-dir", self.folder / "host", "--topology", self.folder / "topology.yaml", "--json"]
        self.start("host", [*host, "--collect", "127.0.0.1:0", "--admin", "127.0.0.1:0"], FLOWSHIFT__JOB__NAME="host")
        self.services = json.loads(self.said("host"))
        self.make(Stack("streams.yaml", FlowsShards=2, FanOutConsumer=CONSUMER))

    def make(self, stack):
        """Makes what the template makes."""
        for stream in stack.of("AWS::Kinesis::Stream").values():
            self.call("kinesis", "CreateStream", StreamName=stream["Name"], ShardCount=stream["ShardCount"])
        for table in stack.of("AWS::DynamoDB::Table").values():
            wanted = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema")
            self.call("dynamodb", "CreateTable", **{key: table[key] for key in wanted})
        summary = self.call("kinesis", "DescribeStreamSummary", StreamName="flowshift-flows")["StreamDescriptionSummary"]
        self.call("kinesis", "RegisterStreamConsumer", StreamARN=summary["StreamARN"], ConsumerName=CONSUMER)

    def call(self, service, action, **request):
        """A call of our own, past the proxies."""
        target, version = TARGETS[service]
        kind = {"content-type": f"application/x-amz-json-{version}", "x-amz-target": f"{target}.{action}"}
        # The embedded services look at its form alone.
        scope = f"nobody/20260101/us-east-1/{service}/aws4_request"
        kind["x-amz-date"] = "20260101T000000Z"
        kind["authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        asked = urllib.request.Request(self.services[service], json.dumps(request).encode(), kind)
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise Stopped(f"{action}: {error.read().decode()}") from error

    def settings(self, component, fetch="polling"):
        """Settings file of a component, with proxies of its own."""
        seen = self.seen.setdefault(component, set())
        proxies = {name: Proxy(self.services[name], seen).address for name in ("kinesis", "dynamodb")}
        file = self.folder / f"{component}-{len(self.running)}.toml"
        file.write_text(SETTINGS.format(**proxies, topology=self.folder / "topology.yaml", fetch=fetch))
        return file

    def start(self, name, arguments, **more):
        log = open(self.folder / f"{name}.log", "a")
        environment = {**os.environ, **ENVIRONMENT, **more}
        command = [str(c) for c in [self.flowshift, *arguments]]
        self.running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)

    def role(self, role, fetch="polling"):
        self.start(role, ["run", "--role", role, "--config", self.settings(role, fetch)])

    def said(self, name):
        """The first line a process prints."""
        line = self.running[name].stdout.readline()
        if not line:
            raise Stopped((self.folder / f"{name}.log").read_text()[-2000:])
        return line

    def people(self, *arguments):
        """A command of an operator; what it answers is another test's concern."""
        config = ["--config", self.settings("operator")]
        environment = {**os.environ, **ENVIRONMENT}
        command = [self.flowshift, *arguments, *config]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE).stdout

    def until(self, what, done):
        deadline = time.monotonic() + PATIENCE
        while not done():
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise Stopped(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            if time.monotonic() > deadline:
                raise Stopped(f"not within {PATIENCE} s: {what}")
            time.sleep(0.2)

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def post(door):
    """Fifty flow records of now, from everywhere to everywhere."""
    now, lines = int(time.time() * 1000), ""
    for n in range(50):
        record = {"ts_ms": now, "interval_ms": 1000, "src": f"10.77.{1 + n % 2}.{n + 1}", "dst": f"10.77.{2 - n % 2}.{n + 1}"}
        record |= {"src_port": 40001, "dst_port": 443, "protocol": "tcp", "bytes": 1000, "packets": 10, "retransmits": 0}
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
    until("aggregate leads, cuts and commits", "aggregate", ("exchange-leases", "PutItem"), ("flows-leases", "UpdateItem"),
          ("exchange", "PutRecords"), ("state", "PutItem"))
    job.role("detect")
    until("detect commits and tells", "detect", ("evidence", "PutRecords"), ("evidence", "GetRecords"), ("state", "PutItem"))
    job.stop("aggregate")
    until("detect leads", "detect", ("flows", "ListShards"), ("exchange", "PutRecords"))
    for stream in ("flows", "exchange"):
        job.call("kinesis", "SplitShard", StreamName=f"flowshift-{stream}", ShardToSplit="shardId-000000000000",
                 NewStartingHashKey=str(2**126))
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
        except Stopped as why:
            return [f"the job did not go on: {why}"]
        finally:
            for name in list(job.running)[::-1]:
                job.stop(name)
        return compare(job.seen)


def compare(seen):
    table = calls()
    wanted = {"aggregate": merged(table["aggregate"], table["fan-out"]), **{c: table[c] for c in ("detect", "collect", "operator")}}
    findings = []
    for component, needs in wanted.items():
        listed = {(place, action) for place, actions in needs.items() for action in actions}
        rare = {(place, action) for place, actions in table["rare"].get(component, {}).items() for action in actions}
        made = seen.get(component, set())
        findings += [f"{component} calls {action} on {place}, which calls.yaml does not have" for place, action in sorted(made - listed)]
        findings += [f"{component} never called {action} on {place}" for place, action in sorted(listed - made - rare)]
    return findings
