"""A proxy in front of an AWS service that writes down which call goes to which stream or table.

Each process of a recorded job has its own (job.py). Bodies pass through as they come, subscriptions too.
"""

import http.client, http.server, json, threading

# Where an answer has the iterator that the next request carries.
ITERATORS = {"GetShardIterator": "ShardIterator", "GetRecords": "NextShardIterator"}


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
        name = (
            request.get("TableName")
            or request.get("StreamName")
            or self.iterators.get(request.get("ShardIterator"), "")
        )
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
