"""A pod as a kubelet runs it: environment and mounts from its description, probes at their times, leaving within the
grace period.

Everything comes from the Deployment of a render; what Kubernetes or EKS adds to any pod (its name, credentials of Pod
Identity, the authority of this test's TLS) is added here and named. Not here: namespaces and users (pods.py), rollouts
and what the pods are for (deployed.py).
"""

import http.client, os, pathlib, re, threading, time

import pods
from objects import container, label, spec

# How long a node goes on sending requests to a pod that was told to leave.
PROPAGATION = 2
# Of the address of EKS's agent and of the files it is given, as the webhook of Pod Identity puts them into pods.
AGENT = "169.254.170.23"
TOKEN = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"
IDENTITY = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{AGENT}/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": TOKEN,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_STS_REGIONAL_ENDPOINTS": "regional",
}
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


class Cluster:
    """What pods are made from: a root filesystem, a folder, files that hold for every pod, a secret."""

    def __init__(self, image, folder, resolver, roots, token, secret):
        self.image, self.folder = pathlib.Path(image), pathlib.Path(folder)
        self.everywhere = [
            (resolver, "/etc/resolv.conf"),
            (roots, "/etc/ssl/certs/ca-certificates.crt"),
            (token, TOKEN),
        ]
        self.secret, self.count, self.lock = secret, 1, threading.Lock()

    def number(self):
        with self.lock:
            self.count += 1
            return self.count


class Pod:
    """One pod of a Deployment, with its probes running."""

    def __init__(self, cluster, render, deployment):
        number = cluster.number()
        self.spec, self.container = spec(deployment), container(deployment)
        self.name = f"{deployment['metadata']['name']}-{number}"
        self.findings, self.ready, self.serves, self.leaving = [], False, False, threading.Event()
        self.started_after = self.left_after = None
        group = self.spec["securityContext"]["fsGroup"]
        context = {**self.spec["securityContext"], **self.container["securityContext"]}
        if any(context.get(key) != value for key, value in pods.RIGHTS.items()):
            raise RuntimeError(f"{self.name}: rights {context} are not what containers have here")
        root = pods.root(cluster.image, cluster.folder / self.name)
        environment = {e["name"]: e["value"] for e in self.container.get("env", [])}
        self.running = pods.Container(
            self.name,
            number,
            root,
            self.container["args"],
            {**environment, **IDENTITY, "HOSTNAME": self.name},
            [*cluster.everywhere, *self.mounts(cluster, render, group)],
            entrypoint=self.container.get("command", ["/flowshift"]),
            groups=[group],
            proc=True,
            user=f"{context['runAsUser']}:{context['runAsGroup']}",
            readonly=context["readOnlyRootFilesystem"],
        )
        self.ports = {p["name"]: p["containerPort"] for p in self.container["ports"]}
        self.prober = threading.Thread(target=self.probe, daemon=True)
        self.prober.start()

    def mounts(self, cluster, render, group):
        """ConfigMaps and Secrets as folders, with the rights that their volumes name."""
        volumes = {v["name"]: v for v in self.spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            volume = volumes[mount["name"]]
            folder = cluster.folder / f"{self.name}.{mount['name']}"
            folder.mkdir()
            if "configMap" in volume:
                wanted = volume["configMap"]["name"]
                data = next(c["data"] for c in render.all("ConfigMap") if c["metadata"]["name"] == wanted)
                mode = volume["configMap"].get("defaultMode", 0o644)
            else:
                data, mode = cluster.secret, volume["secret"].get("defaultMode", 0o644)
            for name, text in data.items():
                (folder / name).write_text(text)
                os.chown(folder / name, 0, group)
                (folder / name).chmod(mode)
            yield folder, mount["mountPath"]

    def asked(self, probe):
        """Whether a probe is content."""
        get = probe["httpGet"]
        there = http.client.HTTPConnection(
            self.running.address, self.ports[get["port"]], timeout=probe.get("timeoutSeconds", 1)
        )
        try:
            there.request("GET", get["path"])
            return 200 <= there.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            there.close()

    # Without /dev, workers once panicked at their start: their random numbers came from there.
    def probe(self):
        """Start-up first, then readiness and liveness, each at its own times."""
        startup, failed = self.container["startupProbe"], 0
        while not self.asked(startup):
            failed += 1
            if failed >= startup["failureThreshold"]:
                return self.findings.append(f"{self.name} did not start: {self.running.said()[-500:]}")
            if self.running.process.poll() is not None or self.leaving.wait(startup["periodSeconds"]):
                return
        self.started_after = time.monotonic() - self.running.began
        self.inspect()
        probes = {name: self.container[name + "Probe"] for name in ("readiness", "liveness")}
        due, failures = dict.fromkeys(probes, 0.0), dict.fromkeys(probes, 0)
        while not self.leaving.wait(0.1):
            for name, probe in probes.items():
                if time.monotonic() < due[name]:
                    continue
                due[name] = time.monotonic() + probe.get("periodSeconds", 10)
                failures[name] = 0 if self.asked(probe) else failures[name] + 1
                if failures[name] >= probe.get("failureThreshold", 3):
                    self.findings.append(f"{self.name}: {name} failed {failures[name]} times")
            if failures["readiness"] == 0:
                self.ready = self.serves = True
            elif failures["readiness"] >= probes["readiness"].get("failureThreshold", 3):
                self.ready = self.serves = False

    def inspect(self):
        """The program is nobody's, without rights, and writes nowhere: not what was asked for, but what is."""
        about = pathlib.Path(f"/proc/{self.running.first()}")
        status = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", (about / "status").read_text()))
        uid, gid = pods.USER.split(":")
        wanted = {"Uid": [uid] * 4, "Gid": [gid] * 4, "NoNewPrivs": ["1"], "Groups": [gid]}
        wanted |= {"CapEff": ["0" * 16], "CapPrm": ["0" * 16], "CapBnd": ["0" * 16]}
        for name, value in wanted.items():
            if status[name].split() != value:
                self.findings.append(f"{self.name}: {name} is {status[name]}")
        for line in (about / "mountinfo").read_text().splitlines():
            place, options = line.split()[4:6]
            if "ro" not in options.split(","):
                self.findings.append(f"{self.name}: {place} can be written")

    def memory(self):
        """The most it has held, against its limit."""
        text = pathlib.Path(f"/proc/{self.running.first()}/status").read_text()
        held = int(re.search(r"VmHWM:\s+(\d+) kB", text).group(1)) << 10
        number, unit = re.fullmatch(r"(\d+)(\w+)", self.container["resources"]["limits"]["memory"]).groups()
        if held > int(number) * UNITS[unit]:
            self.findings.append(f"{self.name} held {held >> 20} MiB, its limit is {number} {unit}")
        return held

    def leave(self):
        """What a kubelet does to a pod that is deleted: the pause, SIGTERM, and the kill after the grace period."""
        began = time.monotonic()
        self.ready = False
        self.memory()
        threading.Timer(PROPAGATION, lambda: setattr(self, "serves", False)).start()
        time.sleep(self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))
        self.leaving.set()
        asked = time.monotonic()
        self.running.terminate()
        status = self.running.ended(self.spec["terminationGracePeriodSeconds"] - (asked - began))
        self.left_after = time.monotonic() - asked
        self.serves = False
        if status is None:
            self.running.kill()
            self.findings.append(f"{self.name} was killed after its grace period: {self.running.said()[-500:]}")
        elif status != 0:
            self.findings.append(f"{self.name} left with status {status}: {self.running.said()[-500:]}")


class Rollout:
    """The pods of a Deployment, replaced one by one as its strategy says."""

    def __init__(self, cluster, render, deployment, patience):
        self.cluster, self.render, self.deployment, self.patience = cluster, render, deployment, patience
        self.pods, self.gone = [], []

    def scale(self):
        """Starts the replicas."""
        for _ in range(self.deployment["spec"].get("replicas", 2)):
            self.pods.append(Pod(self.cluster, self.render, self.deployment))

    def wait(self):
        """Until all are ready."""
        deadline = time.monotonic() + self.patience
        while not all(one.ready for one in self.pods):
            if time.monotonic() > deadline:
                waiting = [f"{one.name} ({one.running.said()[-600:]})" for one in self.pods if not one.ready]
                raise RuntimeError(f"not ready within {self.patience} s: {', '.join(waiting)}")
            time.sleep(0.1)

    def replace(self, after):
        """A new pod for each; `after(pod)` is called when one has left."""
        for old in list(self.pods):
            self.pods.append(Pod(self.cluster, self.render, self.deployment))
            self.wait()
            self.take(old, after)

    def take(self, one, after=lambda pod: None):
        one.leave()
        self.pods.remove(one)
        self.gone.append(one)
        after(one)

    def findings(self):
        return [said for one in [*self.gone, *self.pods] for said in one.findings]

    def __str__(self):
        return label(self.deployment)
