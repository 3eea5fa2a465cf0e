"""What comes into a deployed job from outside: records of agents through the collector's Service, and credentials.

Runs in inside.py's network namespace, for deployed.py. Invariant: `taken` holds exactly the bodies that were answered
200, each once. Not here: what becomes of the records.
"""

import http.client, http.server, json, random, threading, time

import kubelet

# A body of records, the pause between two, how many post at once, and the longest wait for an answer (seconds).
RECORDS, PAUSE, SENDERS, PATIENCE = 50, 0.5, 2, 120
# Nets of the addresses that records are from and to: three subnets of the topology, and somebody outside.
NETS = ["10.77.1", "10.77.2", "10.77.3", "8.8.8"]
TOPOLOGY = "subnets:\n" + "".join(
    f"  - id: subnet-{name}\n    cidrs: [10.77.{n}.0/24]\n    az: use1-az{n}\n    vpc: vpc-1\n"
    for n, name in ((1, "a"), (2, "b"), (3, "c"))
)
CREDENTIALS = {
    "AccessKeyId": "nobody",
    "SecretAccessKey": "nothing",
    "Token": "t",
    "Expiration": "2100-01-01T00:00:00Z",
}


class Agent(http.server.ThreadingHTTPServer):
    """EKS's agent of Pod Identity: credentials for the token of a pod."""

    daemon_threads = True

    def __init__(self, token):
        super().__init__((kubelet.AGENT, 80), Give)
        self.token, self.given = token, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Give(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.path == "/v1/credentials" and self.headers.get("authorization") == self.server.token
        body = json.dumps(CREDENTIALS if good else {}).encode()
        self.server.given += good
        self.send_response(200 if good else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Load(threading.Thread):
    """Posts records of now to the collector's Service, and keeps those that were taken."""

    def __init__(self, number, doors):
        super().__init__(daemon=True)
        self.random, self.doors, self.taken, self.again, self.findings = random.Random(number), doors, [], 0, []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.wait(PAUSE):
            body = "".join(json.dumps(self.record()) + "\n" for _ in range(RECORDS))
            while not self.post(body):
                self.again += 1
                time.sleep(PAUSE)
            self.taken.append(body)

    def record(self):
        pick = self.random.randrange
        a, b = self.random.sample(NETS, 2)
        rtt = 500 + pick(500)
        return {
            "ts_ms": int(time.time() * 1000), "interval_ms": 1000, "src": f"{a}.{1 + pick(200)}",
            "dst": f"{b}.{1 + pick(200)}", "src_port": 1024 + pick(60000), "dst_port": 443, "protocol": "tcp",
            "bytes": pick(100000), "packets": 1 + pick(100), "retransmits": pick(3), "timeouts": pick(2), "connects": 1,
            "connect_failures": pick(2), "rtt": {"count": 1, "min_us": rtt, "max_us": rtt, "sum_us": rtt},
        }  # fmt: skip

    def post(self, body):
        """Whether one pod of the Service took it; a pod that hangs up is a finding, one that asks to repeat is not."""
        doors = self.doors()
        if not doors:
            self.findings.append("no pod behind the collector's Service")
            return False
        there = http.client.HTTPConnection(*self.random.choice(doors), timeout=PATIENCE)
        try:
            there.request("POST", "/v1/flows", body, {"content-type": "application/x-ndjson"})
            status = there.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self.findings.append(f"the collector's Service: {error!r}")
            return False
        finally:
            there.close()
        if status not in (200, 429, 503):
            self.findings.append(f"the collector's Service answers {status}")
        return status == 200
