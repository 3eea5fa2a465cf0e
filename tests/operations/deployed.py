"""The Deployments of a layout, run: arguments, environment, mounts, user, probes and leaving from the rendered
manifests, in containers of the image, while records come in and everything is rolled; every record is counted once.

Runs in inside.py's network namespace. AWS is the embedded services behind TLS, under AWS's own names; credentials come
from a stand-in for EKS's agent. Nothing of the manifests is changed but what an overlay of a user's changes. Not here:
another node, the plug-in that enforces NetworkPolicies, seccomp.
"""

import json, os, pathlib, subprocess, sys, tempfile, threading, time

import yaml

import kubelet, pods, render
from cloud_names import Authority, Door, Names
from job import Job
from objects import Render, argument, command
from report import ROOT
from traffic import RECORDS, SENDERS, TOPOLOGY, Agent, Load

PATIENCE = 120
# Seconds of records before, and at least during, the rollout.
BEFORE, DURING = 10, 30
SECRET = {"on-call": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "admin-token": "a-token-of-operators"}
# Counters of the oracle that an export has by state of the connection.
BY_STATE = ("retransmits", "timeouts")
PLAIN = ("flows", "bytes", "segments", "connects", "connect_failures", "rtt_n")


def overlay(layout, components, folder, settings):
    """The render of a user's overlay: topology and settings of their own, credentials by Pod Identity."""
    at = lambda path: os.path.relpath(render.K8S / path, os.path.realpath(folder))
    files = {"topology.yaml": TOPOLOGY, **({"flowshift.toml": settings} if settings else {})}
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "flowshift",
        "resources": [at(layout)],
        "components": [at(f"components/{name}") for name in components],
        "configMapGenerator": [{"name": "flowshift", "behavior": "merge", "files": sorted(files)}],
    }
    for name, text in {**files, "kustomization.yaml": yaml.safe_dump(own)}.items():
        pathlib.Path(folder, name).write_text(text)
    return Render(render.objects(render.kustomize(folder)))


def uncommented():
    """The settings file with its examples (webhook, token) put to use."""
    text = (render.K8S / "parts/shared/flowshift.toml").read_text()
    for line in ("token_file = ", "[[webhooks]]", "name = ", "url = ", "secret_file = "):
        assert f"# {line}" in text, f"flowshift.toml shows no {line}"
        text = text.replace(f"# {line}", line)
    return text


class Deployed:
    """The layout, what it reaches, and what comes in."""

    def __init__(self, image, flowshift, objects, folder):
        self.folder, self.flowshift, self.objects = pathlib.Path(folder), flowshift, objects
        for name in ("authority", "host", "pods"):
            (self.folder / name).mkdir()
        pods.network()
        pods.say("ip", "address", "add", f"{kubelet.AGENT}/32", "dev", pods.BRIDGE)
        authority = Authority(self.folder / "authority")
        self.names, self.agent = Names(pods.GATEWAY, pods.GATEWAY), Agent(SECRET["admin-token"])
        self.job = Job(flowshift, self.folder / "host")
        self.job.open()
        # From here on the program is that of the image; the other build only hosts the services.
        self.job.flowshift = pathlib.Path(image, "flowshift")
        self.door = Door(pods.GATEWAY, authority, self.behind)
        resolver, token = self.folder / "resolv.conf", self.folder / "token"
        resolver.write_text(
            f"nameserver {pods.GATEWAY}\nsearch flowshift.svc.cluster.local cluster.local\noptions ndots:5\n"
        )
        token.write_text(self.agent.token)
        os.chown(token, 0, 65532)
        token.chmod(0o640)
        self.cluster = kubelet.Cluster(image, self.folder / "pods", resolver, authority.roots, token, SECRET)
        self.rollouts = [kubelet.Rollout(self.cluster, objects, d, PATIENCE) for d in objects.deployments()]
        self.findings = []

    def behind(self, name):
        """The embedded service of one of AWS's names."""
        service = "dynamodb" if name.startswith("dynamodb.") or ".ddb." in name else "kinesis"
        host, _, port = self.job.services[service].removeprefix("http://").rstrip("/").partition(":")
        return host, int(port)

    def doors(self):
        """Addresses behind the collector's Service."""
        service = next(s for s in self.objects.all("Service") if s["metadata"]["name"] == "flowshift-collect")
        chosen = self.objects.selected({"matchLabels": service["spec"]["selector"]})
        port = service["spec"]["ports"][0]["targetPort"]
        behind = [one for r in self.rollouts if r.deployment in chosen for one in list(r.pods) if one.serves]
        return [(one.running.address, one.ports[port]) for one in behind]

    def owners(self):
        said = self.job.people("leases", "list", "--no-wait", "--json")
        return [lease["owner"] or "" for lease in json.loads(said)["leases"]]

    def left(self, one):
        """A worker that has left owns nothing."""
        held = [owner for owner in self.owners() if owner.startswith(one.name + "-")]
        if held:
            self.findings.append(f"{one.name} left with {len(held)} leases")

    def roll(self):
        """All Deployments at once, as a changed ConfigMap does."""
        threads = [threading.Thread(target=self.guarded, args=(r,)) for r in self.rollouts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def guarded(self, rollout):
        try:
            rollout.replace(self.left if command(rollout.deployment) == "run" else lambda _: None)
        except Exception as error:  # a thread's failure is a finding, not a message on the screen
            self.findings.append(f"{rollout}: {error}")

    def play(self):
        """Starts everything, rolls everything under load, ends everything; what was taken."""
        for rollout in self.rollouts:
            rollout.scale()
        for rollout in self.rollouts:
            rollout.wait()
        load = [Load(n, self.doors) for n in range(SENDERS)]
        for sender in load:
            sender.start()
        time.sleep(BEFORE)
        workers = [one.name for r in self.rollouts if command(r.deployment) == "run" for one in r.pods]
        for owner in self.owners():
            if not any(owner.startswith(name + "-") for name in workers):
                self.findings.append(f"a lease is owned by {owner or 'nobody'}, workers are {workers}")
        began = time.monotonic()
        self.roll()
        rolled = time.monotonic() - began
        time.sleep(max(0.0, DURING - rolled))
        for sender in load:
            sender.stopping.set()
        for sender in load:
            sender.join()
            self.findings += sorted(set(sender.findings))
        self.say(rolled, load)
        for rollout in self.rollouts:
            for one in list(rollout.pods):
                rollout.take(one)
            self.findings += rollout.findings()
        if any(self.owners()):
            self.findings.append(f"all have left, and leases are owned: {sorted(set(self.owners()))}")
        return [body for sender in load for body in sender.taken]

    def say(self, rolled, load):
        gone = [one for r in self.rollouts for one in r.gone]
        every = [one for r in self.rollouts for one in [*r.gone, *r.pods]]
        print(
            f"  {len(every)} pods, ready to be probed after at most {max(p.started_after or 0 for p in every):.1f} s; rolled in"
            f" {rolled:.0f} s; left within {max((p.left_after for p in gone), default=0):.1f} s of SIGTERM;"
            f" at most {max(p.memory() for r in self.rollouts for p in r.pods) >> 20} MiB;"
            f" {sum(len(s.taken) for s in load) * RECORDS} records, {sum(s.again for s in load)} bodies asked for again;"
            f" credentials {self.agent.given} times"
        )

    def drain(self):
        """The end of the input, by one more container of the image, with every stage."""
        worker = next(d for d in self.objects.deployments() if command(d) == "run")
        last = json.loads(json.dumps(worker))
        last["metadata"]["name"] = "flowshift-last"
        first = last["spec"]["template"]["spec"]["containers"][0]
        first["args"] = ["run", "--role", "all", "--drain", "--config", argument(worker, "--config")]
        last["spec"]["replicas"] = 1
        rollout = kubelet.Rollout(self.cluster, self.objects, last, PATIENCE)
        rollout.scale()
        rollout.wait()
        rollout.take(rollout.pods[0])
        self.findings += rollout.findings()

    def judge(self, taken):
        """Findings: what is committed against the sums of an oracle that shares no code with the program."""
        findings = []
        flows, topology = self.folder / "flows.jsonl", self.folder / "topology.yaml"
        flows.write_text("".join(taken))
        topology.write_text(TOPOLOGY)
        told = subprocess.run(
            [sys.executable, ROOT / "tests/python/flows_oracle.py", topology, flows],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        oracle, export = json.loads(told), json.loads(self.job.people("state", "export"))
        records = export["records"]
        refused = {reason: n for reason, n in records["reasons"].items() if n and reason != "duplicate"}
        if refused or records["accounted"] != oracle["records"]:
            findings.append(f"{oracle['records']} records were taken, and of these is known: {records}")
        for pair in export["pairs"]:
            name = f"{pair['src']}>{pair['dst']}"
            sums = {key: pair[key] for key in PLAIN} | {key: sum(pair[key].values()) for key in BY_STATE}
            if sums != {key: oracle["pairs"].get(name, {}).get(key) for key in sums}:
                findings.append(f"{name}: {sums} is not {oracle['pairs'].get(name)}")
        if len(export["pairs"]) != len(oracle["pairs"]):
            findings.append(f"{len(export['pairs'])} pairs, of {len(oracle['pairs'])}")
        return findings


def check(image, flowshift, layout, components, own_settings, folder):
    """Findings of a layout's life."""
    with tempfile.TemporaryDirectory(prefix="flowshift-overlay-") as files:
        objects = overlay(layout, components.split(), files, uncommented() if own_settings else None)
    deployed = Deployed(image, flowshift, objects, folder)
    try:
        taken = deployed.play()
        deployed.drain()
        findings = deployed.judge(taken)
        if not deployed.judge(taken[1:]) or not deployed.judge([*taken, taken[0]]):
            findings.append("the sums say nothing of a body that was lost, or counted twice")
    finally:
        for name in list(deployed.job.running):
            deployed.job.stop(name)
    return [*deployed.findings, *findings]
