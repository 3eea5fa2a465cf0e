"""A job of several processes on the embedded services, one role each as on Kubernetes, every one behind proxies of its
own.

Streams, tables and the consumer are made from streams.yaml, by calls past the proxies. Not here: what the job is
made to live through, and what is done with the calls (recorded.py).
"""

import itertools, json, os, pathlib, subprocess, time, urllib.error, urllib.request

from proxy import Proxy
from template import Stack

PATIENCE = 180
CONSUMER = "flowshift"
TARGETS = {"kinesis": ("Kinesis_20131202", "1.1"), "dynamodb": ("DynamoDB_20120810", "1.0")}
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


class Stopped(Exception):
    """A process of the job ended by itself."""


class Job:
    """The processes of a job on embedded services, each with what it was seen to call."""

    def __init__(self, flowshift, folder):
        self.flowshift, self.folder, self.running, self.seen, self.left = flowshift, pathlib.Path(folder), {}, {}, []
        # Commands of operators run side by side: one must not find the file of another half written.
        self.number = itertools.count()
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
        summary = self.call("kinesis", "DescribeStreamSummary", StreamName="flowshift-flows")[
            "StreamDescriptionSummary"
        ]
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
        file = self.folder / f"{component}-{next(self.number)}.toml"
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
        try:
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE).stdout
        except subprocess.TimeoutExpired as error:
            raise Stopped(f"not within {PATIENCE} s: flowshift {' '.join(arguments)}") from error

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
        """Asks a process to leave, and notes how long that took and how it ended."""
        process, began = self.running.pop(name), time.monotonic()
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.left.append((name, time.monotonic() - began, process.returncode))
