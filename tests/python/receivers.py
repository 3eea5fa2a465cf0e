"""Receivers of every webhook format that know nothing of flowshift: libraries and published schemas judge what comes.

Usage: receivers.py OUT SECRET_FILE ROUTING_KEY SCHEMAS [CERTIFICATE KEY]

With a certificate it serves TLS. Prints {"port": N} as its first line, then serves 127.0.0.1:N until its standard input ends. The first part of the path is the
format, the second, if any, what becomes of the first requests: `bad` answers 500, 429, 302, nothing, a reset and 503 before it
takes what comes; `gone` answers 410 to the first. One JSON line in OUT per request:
{"path", "id", "problem", "answer", "headers", "body"}; `answer` is 0 where there was none. What does not fit is answered 400.
"""

import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings import http as cloudevents
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook

BAD = [500, 429, 302, "hang", "reset", 503]


def main() -> None:
    out_path, secret_path, routing_key, schemas, *tls = sys.argv[1:]
    with open(secret_path, encoding="utf-8") as file:
        webhooks = [Webhook(line.strip()) for line in file if line.strip()]

    def validator(name: str) -> Draft202012Validator:
        with open(f"{schemas}/{name}.json", encoding="utf-8") as file:
            schema = json.load(file)
        Draft202012Validator.check_schema(schema)
        return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)

    validators = {name: validator(name) for name in ["alertmanager", "pagerduty", "slack"]}
    out = open(out_path, "a", encoding="utf-8")
    lock = threading.Lock()
    seen: Counter = Counter()

    def check(form: str, headers: dict, body: bytes) -> None:
        if form in ("standard", "cloudevents"):
            for webhook in webhooks:  # Each secret of a rotation must fit alone.
                webhook.verify(body, headers)
        if form == "cloudevents":
            event = cloudevents.from_structured_event(cloudevents.HTTPMessage(headers, body))
            assert headers["content-type"].startswith("application/cloudevents+json"), headers["content-type"]
            assert event.get_specversion() == "1.0" and event.get_id() == headers["webhook-id"], event
            assert event.get_time().utcoffset() == timedelta(0), event.get_time()
            assert event.get_data()["incident"] == event.get_subject(), event
        if form in validators:
            value = json.loads(body)
            validators[form].validate(value)
            assert headers["content-type"] == "application/json", headers["content-type"]
            assert "webhook-signature" not in headers
            if form == "pagerduty":
                assert value["routing_key"] == routing_key

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            form, _, mood = self.path.strip("/").partition("/")
            problem = None
            try:
                check(form, headers, body)
            except Exception as error:  # whatever the package says is written down
                problem = repr(error)
            # Written before the answer: what was answered 204 is in the file.
            with lock:
                number = seen[self.path]
                seen[self.path] += 1
                answer = 204 if problem is None else 400
                if mood == "bad" and number < len(BAD):
                    answer = BAD[number]
                elif mood == "gone" and number == 0:
                    answer = 410
                row = {
                    "path": self.path,
                    "id": headers.get("webhook-id"),
                    "problem": problem,
                    "answer": answer if isinstance(answer, int) else 0,
                    "headers": headers,
                    "body": body.decode("utf-8", "replace"),
                }
                out.write(json.dumps(row) + "\n")
                out.flush()
            if answer == "hang":
                time.sleep(5)  # Longer than the sender's timeout; nothing waits for it.
                self.close_connection = True
                return
            if answer == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            self.send_response(answer)
            if answer == 429:
                self.send_header("retry-after", "1")
            if answer == 302:
                self.send_header("location", "/strayed")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


main()
