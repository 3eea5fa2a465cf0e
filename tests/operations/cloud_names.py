"""Names and TLS of a network of our own: a DNS server, and a server that ends TLS for every name of AWS and receivers.

Runs in the network namespace of inside.py alone, on addresses that exist nowhere else. Certificates are of an
authority made for the run. Not here: what lies behind the TLS (the embedded services, a receiver).
"""

import asyncio, pathlib, socket, socketserver, ssl, struct, subprocess, threading

NAMES = ["*.us-east-1.amazonaws.com", "*.ddb.us-east-1.amazonaws.com", "*.control-kinesis.us-east-1.amazonaws.com"]
NAMES += ["*.data-kinesis.us-east-1.amazonaws.com", "hooks.example.com"]


def served(name):
    """Whether a name is one of ours."""
    return name in NAMES or "*." + name.partition(".")[2] in NAMES


class Authority:
    """A certificate authority and one certificate for all names, in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.roots, self.chain, self.key = (self.folder / n for n in ("roots.pem", "chain.pem", "key.pem"))
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        ca = ["-keyout", "ca.key", "-out", "roots.pem", "-days", "2", "-subj", "/CN=flowshift tests"]
        self.openssl("req", "-x509", *curve, *ca, "-addext", "keyUsage=critical,keyCertSign")
        self.openssl("req", *curve, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=flowshift")
        names = ",".join(f"DNS:{name}" for name in NAMES)
        (self.folder / "names").write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        signed = ["-req", "-in", "request.pem", "-CA", "roots.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        self.openssl("x509", *signed, "-days", "2", "-extfile", "names", "-out", "chain.pem")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def context(self):
        """A server's side; the name that a client asks for becomes `asked` of its connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        context.sni_callback = lambda connection, name, _: setattr(connection, "asked", name)
        return context


class Names(socketserver.ThreadingUDPServer):
    """Answers A for the names that are served with one address; other names do not exist."""

    daemon_threads = True

    def __init__(self, at, address):
        super().__init__((at, 53), Answer)
        self.address, self.asked = socket.inet_aton(address), set()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        asked, back = self.request
        parts, at = [], 12
        while length := asked[at]:
            parts.append(asked[at + 1 : at + 1 + length].decode().lower())
            at += 1 + length
        (kind,) = struct.unpack_from(">H", asked, at + 1)
        name, question = ".".join(parts), asked[12 : at + 5]
        self.server.asked.add(name)
        known = served(name)
        found = known and kind == 1
        head = asked[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, int(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + self.server.address if found else b""
        back.sendto(head + question + record, self.client_address)


class Door:
    """Ends TLS on port 443 and passes the bytes on to `where(name)`, a host and port without TLS.

    One thread with an event loop: a TLS connection must not be read and written by two at once.
    """

    def __init__(self, address, authority, where):
        self.where, loop = where, asyncio.new_event_loop()
        server = asyncio.start_server(self.take, address, 443, ssl=authority.context(), backlog=128)
        loop.run_until_complete(server)
        threading.Thread(target=loop.run_forever, daemon=True).start()

    async def take(self, reader, writer):
        name = getattr(writer.get_extra_info("ssl_object"), "asked", "")
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.where(name))
        except OSError:
            return writer.close()
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))


async def copy(reader, writer):
    """Until either side ends, which ends both."""
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    except OSError:
        pass
    writer.close()
