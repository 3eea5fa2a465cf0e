"""From the image's root alone: nobody's user, read-only, with /etc/resolv.conf and not even /proc, names resolve and
TLS endpoints are reached, by webhooks and by the AWS clients, and only where the roots say so.

Runs in inside.py's network namespace. Not here: a whole job of containers (deployed.py).
"""

import http.server, json, pathlib, threading

import packed, pods
from cloud_names import Authority, Door, Names

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SETTINGS = """[aws]
region = "us-east-1"
[[webhooks]]
name = "on-call"
url = "https://{host}/in"
secret_file = "/etc/flowshift/secret"
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true"}
TRUSTING = {"SSL_CERT_FILE": "/etc/flowshift/roots.pem"}
PATIENCE = 60


class Receiver(http.server.ThreadingHTTPServer):
    """Takes everything and keeps who was asked for what."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Take)
        self.got = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Take(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.headers["host"], self.headers.get("x-amz-target", self.path)))
        body = json.dumps({"Items": [], "Count": 0, "ScannedCount": 0}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Alone:
    """The place: names, an authority that nobody knows, a receiver behind it."""

    def __init__(self, image, folder):
        self.image, self.folder, self.runs = pathlib.Path(image), pathlib.Path(folder), 0
        pods.network()
        self.authority, self.receiver = Authority(self.folder), Receiver()
        self.names = Names(pods.GATEWAY, pods.GATEWAY)
        self.door = Door(pods.GATEWAY, self.authority, lambda _: ("127.0.0.1", self.receiver.server_port))

    def start(self, *arguments, host="hooks.example.com", env=(), resolver=pods.GATEWAY):
        """A command in a container of its own."""
        self.runs += 1
        own = self.folder / f"run-{self.runs}"
        own.mkdir()
        (own / "flowshift.toml").write_text(SETTINGS.format(host=host))
        (own / "secret").write_text(SECRET)
        (own / "roots.pem").write_bytes(self.authority.roots.read_bytes())
        (own / "resolv.conf").write_text(f"nameserver {resolver}\noptions attempts:1 timeout:2\n")
        mounts = [(own / "resolv.conf", "/etc/resolv.conf")]
        mounts += [(own / n, f"/etc/flowshift/{n}") for n in ("flowshift.toml", "secret", "roots.pem")]
        root = pods.root(self.image, self.folder / f"root-{self.runs}")
        command = [*arguments, "--config", "/etc/flowshift/flowshift.toml"]
        return pods.Container("alone", self.runs + 1, root, command, dict(env), mounts)

    def run(self, *arguments, **more):
        """One that ends by itself: (exit status, what it printed)."""
        return self.start(*arguments, **more).output(PATIENCE)


def check(image, folder):
    """Findings; each good line has a bad one beside it, so that it is known what makes it good."""
    alone = Alone(image, folder)
    got = alone.receiver.got
    webhook = ("webhook", "test")
    leases = ("leases", "list", "--no-wait", "--json")

    status, said = alone.run(*webhook, env=TRUSTING)
    if status != 0 or ("hooks.example.com", "/in") not in got:
        yield f"a webhook does not arrive (status {status}): {said[-500:]}"
    if "hooks.example.com" not in alone.names.asked:
        yield "the receiver's name was not asked for"
    status, said = alone.run(*leases, env={**CREDENTIALS, **TRUSTING})
    tables = {target for host, target in got if host.startswith("dynamodb.us-east-1.")}
    if status != 0 or not any(target.startswith("DynamoDB") for target in tables):
        yield f"DynamoDB is not reached (status {status}, calls {sorted(tables)}): {said[-500:]}"
    print(f"  webhook and {sorted(tables)} over TLS, names from {len(alone.names.asked)} questions")

    door = alone.start("collect", env={**CREDENTIALS, **TRUSTING})
    line = door.process.stdout.readline()
    door.terminate()
    status = door.ended(PATIENCE)
    if not line.startswith("taking reports") or status != 0:
        yield f"the collector does not start and end (status {status}): {line}{door.said()[-500:]}"

    for what, more, words in (
        ("a receiver of an unknown authority", {"env": {}}, ("certificate", "UnknownIssuer")),
        ("a name that does not exist", {"env": TRUSTING, "host": "nowhere.example.com"}, ("lookup", "resolve", "dns")),
        ("no name server", {"env": TRUSTING, "resolver": "10.99.255.254"}, ("lookup", "resolve", "dns", "in time")),
    ):
        before = len(got)
        status, said = alone.run(*webhook, **more)
        if status == 0 or len(got) != before:
            yield f"{what} is taken for a good one: {said[-500:]}"
        elif not any(word.lower() in said.lower() for word in words):
            yield f"{what} is not named as such: {said[-500:]}"
