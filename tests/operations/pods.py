"""Pods without a cluster: a container's root, user, rights, addresses and signals as a kubelet and a runtime give
them.

Works inside inside.py's network namespace, as root. A pod's program sees the image's root read-only, its own process
and network namespaces, the mounts and the environment it is given, and nothing of the machine's. Not here: which
Deployment (deployed.py), probes (kubelet.py).
"""

import json, os, pathlib, shutil, signal, subprocess, sys, time

from packed import USER

# What launcher.py does to every container's rights; a description that asks for less must not be taken for it.
RIGHTS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
BRIDGE, GATEWAY = "flowshift0", "10.99.0.1"
LAUNCHER = pathlib.Path(__file__).with_name("launcher.py")


def say(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def network():
    """A bridge that pods are put on; what they reach listens on its address.

    Its hardware address is set: else it is the lowest of its ports', changes when that pod leaves, and all others talk
    to the old one for up to a minute.
    """
    say("ip", "link", "set", "lo", "up")
    say("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
    say("ip", "address", "add", f"{GATEWAY}/16", "dev", BRIDGE)
    say("ip", "link", "set", BRIDGE, "up")


def root(image, folder):
    """A copy of the image's root for one container; files are shared, since all of it is read-only."""
    return pathlib.Path(shutil.copytree(image, folder, copy_function=os.link))


class Container:
    """One container; `number` is its place in the network, 2 and up, or 0 for the network it is started in."""

    def __init__(
        self, name, number, root, arguments, environment, mounts=(), entrypoint=("/flowshift",), groups=(), proc=False,
        user=USER, readonly=True,
    ):  # fmt: skip
        self.name, self.address = name, f"10.99.{number // 250}.{number % 250}" if number else None
        uid, gid = map(int, user.split(":"))
        description = {
            "root": str(root),
            "mounts": [[str(source), target] for source, target in mounts],
            "proc": proc,
            "readonly": readonly,
            "network": [f"{self.address}/16", GATEWAY] if number else None,
            "uid": uid,
            "gid": gid,
            "groups": list(groups),
            "args": [*entrypoint, *arguments],
            "env": environment,
        }
        self.log = pathlib.Path(f"{root}.log")
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if number else [])]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*namespaces, sys.executable, str(LAUNCHER), json.dumps(description)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.log, "w"),
            text=True,
        )
        if number:
            self.connect(number)

    def connect(self, number):
        if self.process.stdout.readline() != "namespace\n":
            raise RuntimeError(f"{self.name} has no namespaces: {self.said()}")
        near = f"flowshift{number}"
        say("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", self.first())
        say("ip", "link", "set", near, "master", BRIDGE, "up")
        self.process.stdin.write("go\n")
        self.process.stdin.close()
        self.process.stdin = None

    def first(self):
        """The first process of its namespace, as this side sees it."""
        path = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = path.read_text().split()
        return int(children[0]) if children else None

    def terminate(self):
        """SIGTERM to the program, which is process 1 of its namespace: without a handler it would not be heard."""
        if first := self.first():
            os.kill(first, signal.SIGTERM)

    def kill(self):
        if first := self.first():
            os.kill(first, signal.SIGKILL)

    def ended(self, seconds):
        """Its exit status, or none while it runs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def output(self, seconds):
        """(exit status, all it printed) of one that ends by itself."""
        try:
            printed = self.process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            self.kill()
            printed = self.process.communicate()[0]
        return self.process.returncode, printed + self.said()

    def said(self):
        return self.log.read_text(errors="replace")
