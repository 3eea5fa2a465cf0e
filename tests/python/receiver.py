"""A webhook receiver that knows nothing of flowshift: it verifies with the `standardwebhooks` package and writes down what it got.

Usage: receiver.py OUT SECRET_FILE

Prints {"port": N} as its first line, then serves 127.0.0.1:N until its standard input ends. One JSON line in OUT per request:
{"id", "verified", "problem", "body"}. Answers 204 to what it verified and 400 to the rest.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook


def main() -> None:
    out_path, secret_path = sys.argv[1:]
    with open(secret_path, encoding="utf-8") as file:
        webhook = Webhook(file.read().strip())
    out = open(out_path, "a", encoding="utf-8")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            problem = None
            try:
                webhook.verify(body, dict(self.headers))
            except Exception as error:  # whatever the package says is written down
                problem = repr(error)
            row = {
                "id": self.headers.get("webhook-id"),
                "verified": problem is None,
                "problem": problem,
                "body": body.decode("utf-8", "replace"),
            }
            # Written before the answer: what was answered 204 is in the file.
            with lock:
                out.write(json.dumps(row) + "\n")
                out.flush()
            self.send_response(204 if problem is None else 400)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # A sender that is killed in the middle of a request is what the crash tests do.
    server.handle_error = lambda *_: None
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


main()
