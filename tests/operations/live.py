"""The program, Prometheus and Alertmanager together: faults are told, and every panel shows something.

`flowshift local` gets the reports of two real agents with loss, delay and dropped connections in them. Prometheus
scrapes it with the rules of deploy/, Alertmanager sends on what fires, and a receiver here waits for it. A query of
a dashboard or scaler must return series when every metric in it has any. Not here: the unit tests of the rules
(monitoring.py).
"""

import base64, http.server, json, os, pathlib, re, socket, subprocess, tempfile, threading, time
import urllib.error, urllib.parse, urllib.request

import yaml

import dashboards, metrics
from monitoring import rule_files
from job import TOPOLOGY
from report import ROOT, TOOLS, Skip, run, tool

PATIENCE = 120
POSTS = ROOT / "tests/data/two-subnets/posts.jsonl"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SETTINGS = """[admin]
top_pairs = 20
[[webhooks]]
name = "ops"
url = "http://{receiver}/webhook"
secret_file = "{secret}"
[[webhooks]]
name = "alertmanager"
format = "alertmanager"
url = "http://{manager}/api/v2/alerts"
retry = ["1s"]
link = "http://{receiver}/?{{incident}}"
"""


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted to it, by path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Take)
        self.got = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"127.0.0.1:{self.server_port}"

    def alerts(self):
        """Names of the alerts that fired."""
        return {a["labels"]["alertname"] for path, body in self.got if path == "/alerts" for a in body["alerts"]}


class Take(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def alertmanager():
    """Its command. Debian's reads templates from /usr/share: unpacked and not installed, it sees its own there."""
    path = tool("prometheus-alertmanager")
    if not path.startswith(str(TOOLS)):
        return [path]
    alone = ["unshare", "--map-root-user", "--mount"]
    if not run(*alone, "true")[0]:
        raise Skip("Alertmanager is not installed, and there is no right to give the unpacked one its files")
    lower = f"lowerdir={TOOLS}/debian/usr/share:/usr/share"
    return [*alone, "sh", "-c", f'mount -t overlay overlay -o {lower} /usr/share && exec "$0" "$@"', path]


def free():
    """A free address: neither Prometheus nor Alertmanager can say which port it took."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        return "127.0.0.1:%d" % s.getsockname()[1]


class Watched:
    """All processes of the run; ended with it."""

    def __init__(self, flowshift, folder):
        self.folder, self.processes, self.receiver = pathlib.Path(folder), [], Receiver()
        self.write("topology.yaml", TOPOLOGY)
        self.write("secret", SECRET)
        self.manager = free()
        places = {"receiver": self.receiver.address, "manager": self.manager, "secret": self.folder / "secret"}
        self.write("flowshift.toml", SETTINGS.format(**places))
        self.flowshift = flowshift

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return self.folder / name

    def start(self, name, *command):
        log = open(self.folder / f"{name}.log", "w")
        process = subprocess.Popen(
            [str(c) for c in command], stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.folder
        )
        self.processes.append(process)
        return process

    def begin(self):
        """Starts all three; addresses of the collector and of Prometheus."""
        path = self.folder
        local = [
            self.flowshift,
            "local",
            "--config",
            path / "flowshift.toml",
            "--data-dir",
            path / "data",
            "--step",
            "10s",
        ]
        local += ["--topology", path / "topology.yaml", "--collect", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--json"]
        ready = json.loads(self.start("flowshift", *local).stdout.readline())
        manager, prometheus = self.manager, free()
        receivers = [{"name": "here", "webhook_configs": [{"url": f"http://{self.receiver.address}/alerts"}]}]
        route = {"receiver": "here", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"}
        self.write("alertmanager.yml", yaml.safe_dump({"route": route, "receivers": receivers}))
        command = [*alertmanager(), f"--config.file={path}/alertmanager.yml", "--cluster.listen-address="]
        self.start("alertmanager", *command, f"--web.listen-address={manager}", f"--storage.path={path}/alertmanager")
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(p) for p in rule_files()],
            "scrape_configs": [{"job_name": "flowshift", "static_configs": [{"targets": [ready["admin"]]}]}],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]},
        }
        self.write("prometheus.yml", yaml.safe_dump(settings))
        command = [tool("prometheus", "FLOWSHIFT_PROMETHEUS"), f"--config.file={path}/prometheus.yml"]
        self.start("prometheus", *command, f"--storage.tsdb.path={path}/tsdb", f"--web.listen-address={prometheus}")
        return ready["collect"], prometheus

    def tried(self):
        """Findings: a test event, and its end, that Alertmanager does not take as they are."""
        told = subprocess.run(
            [self.flowshift, "webhook", "test", "--json", "--config", self.folder / "flowshift.toml"],
            capture_output=True,
            text=True,
        )
        outcomes = {o["webhook"]: o["outcome"] for o in map(json.loads, told.stdout.splitlines())}
        wanted = {"ops": "answered 200", "alertmanager": "answered 200 and 200"}
        return [] if outcomes == wanted else [f"webhook test: {outcomes} {told.stderr}"]

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        self.receiver.shutdown()


def ask(prometheus, path, **parameters):
    """An answer of Prometheus, or none while it does not answer."""
    url = f"http://{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        return json.load(urllib.request.urlopen(url, timeout=10))["data"]
    except (OSError, urllib.error.HTTPError):
        return None


def series(prometheus, query):
    return (ask(prometheus, "query", query=query) or {}).get("result", [])


def until(what, answer):
    """Asks until there is an answer; (answer, findings)."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := answer():
            return found, []
        time.sleep(0.5)
    return None, [f"not within {PATIENCE} s: {what}"]


def capture(collect):
    """Posts what the agents posted."""
    for line in POSTS.read_text().splitlines():
        one = json.loads(line)
        asked = urllib.request.Request(f"http://{collect}{one['path']}", base64.b64decode(one["body"]), one["headers"])
        urllib.request.urlopen(asked, timeout=PATIENCE).close()


def every_query():
    """(where, query) of all dashboards and scalers."""
    for path in sorted(dashboards.FOLDER.glob("*.json")):
        for title, query in dashboards.queries(json.loads(path.read_text())):
            yield f"{path.name}: {title}", query
    for path in sorted((ROOT / "k8s/components").glob("keda*/*.yaml")):
        for trigger in yaml.safe_load(path.read_text()).get("spec", {}).get("triggers", []):
            if trigger["type"] == "prometheus":
                yield path.name, trigger["metadata"]["query"]


# Pairs of two zones come in: these panels cannot be empty for want of anything.
ALWAYS = ("Segments retransmitted", "Mean round-trip time", "Connections that fail", "Flow records")


def shown(prometheus):
    """Findings: queries without series although all of their metrics have some, or must have."""
    there = set(ask(prometheus, "label/__name__/values") or [])
    empty, quiet = [], 0
    for where, query in every_query():
        names = {n for n in re.findall(metrics.WORDS, re.sub(r'"[^"]*"', "", query)) if "flowshift_" in n}
        if not names <= there and not where.endswith(ALWAYS):
            quiet += 1
        elif not series(prometheus, query):
            empty.append(f"{where}: no series for {query}")
    return empty, quiet


def check():
    """Findings of the whole run."""
    flowshift = os.environ.get("FLOWSHIFT_BINARY")
    if not flowshift or not os.access(flowshift, os.X_OK):
        raise Skip("no build: FLOWSHIFT_BINARY names none")
    with tempfile.TemporaryDirectory(prefix="flowshift-live-") as folder:
        watched = Watched(os.path.abspath(flowshift), folder)
        try:
            collect, prometheus = watched.begin()
            _, findings = until("Prometheus scrapes", lambda: series(prometheus, "up == 1"))
            capture(collect)
            received = watched.receiver
            findings += until("an alert of the incidents", lambda: "FlowshiftIncidentsOpen" in received.alerts())[1]
            findings += until("an incident as an alert", lambda: "FlowshiftIncident" in received.alerts())[1]
            findings += watched.tried()
            findings += until("a webhook", lambda: [p for p, _ in received.got if p == "/webhook"])[1]
            findings += until("series for all", lambda: not shown(prometheus)[0])[1] and shown(prometheus)[0]
            wrong = received.alerts() & {
                "FlowshiftAbsent",
                "FlowshiftNobodyLeads",
                "FlowshiftForbidden",
                "FlowshiftShardWithoutProgress",
            }
            findings += [f"alert {name} fired in a job that is well" for name in sorted(wrong)]
            total = len(list(every_query()))
            print(
                f"  {total - shown(prometheus)[1]} of {total} queries have series, the rest is of what did not happen"
            )
        finally:
            watched.stop()
    return findings
