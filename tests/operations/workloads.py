"""What the schemas cannot know of a Deployment: rollout, leaving, probes, ports, configuration, rights.

Each rule is `rule(render)` and returns findings. Invariant: every rule here has a mutation in broken.py that it
fails on.
"""

from objects import argument, command, container, label, longest_leave, probe_paths, spec, version

ADMIN, ROLES = "admin", {"all", "aggregate", "detect"}
FLAGS = {"run": {"--role", "--config"}, "collect": {"--listen", "--config"}}
# Seconds between the last thing a process waits for and the kill.
MARGIN = 5


def rollout(render):
    """A rollout adds before it takes away, and more than one pod shares the work."""
    for d in render.deployments():
        update = d["spec"].get("strategy", {}).get("rollingUpdate", {})
        if update.get("maxUnavailable") != 0 or update.get("maxSurge", 0) in (0, "0%"):
            yield f"{label(d)}: a rollout must surge and leave nothing unavailable, not {update}"
        if d["spec"].get("replicas", 2) < 2:
            yield f"{label(d)}: one replica has no standby"


def leaving(render):
    """The kill comes after the pause, after what the program waits for, and a margin."""
    for d in render.deployments():
        grace = spec(d).get("terminationGracePeriodSeconds", 30)
        pause = container(d).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = pause + longest_leave(command(d)) + MARGIN
        if grace < needed:
            yield f"{label(d)}: terminationGracePeriodSeconds {grace} is below {needed} (pause, leaving, margin)"
        if command(d) == "collect" and pause == 0:
            yield f"{label(d)}: no pause before SIGTERM, while nodes still send requests here"


def probes(render):
    """All three probes are there, each on its own path of the admin port."""
    wanted = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    if set(wanted.values()) != probe_paths():
        yield f"the admin port serves {sorted(probe_paths())}: the probes must be brought up to date"
    for d in render.deployments():
        for probe, path in wanted.items():
            get = container(d).get(probe, {}).get("httpGet", {})
            if (get.get("path"), get.get("port")) != (path, ADMIN):
                yield f"{label(d)}: {probe} is not {path} on port {ADMIN}"


def ports(render):
    """Named ports are listened on by the configuration, from outside the pod, and used by something."""
    used = {s["targetPort"] for service in render.all("Service") for s in service["spec"]["ports"]}
    for d in render.deployments():
        named = {p["name"]: p["containerPort"] for p in container(d).get("ports", [])}
        settings, _ = render.settings(d)
        listens = {ADMIN: (settings or {}).get("admin", {}).get("listen", "127.0.0.1:9464")}
        if command(d) == "collect":
            listens["collect"] = argument(d, "--listen", "127.0.0.1:4318")
        if set(named) != set(listens):
            yield f"{label(d)}: ports {sorted(named)} are declared, {sorted(listens)} are listened on"
        for name, address in listens.items():
            host, port = address.rsplit(":", 1)
            if named.get(name) not in (None, int(port)):
                yield f"{label(d)}: port {name} is {named[name]}, the program listens on {address}"
            if host not in ("0.0.0.0", "[::]"):
                yield f"{label(d)}: {name} listens on {address}, which nobody outside the pod reaches"
        for name in sorted(set(named) - used):
            yield f"{label(d)}: port {name} is used by no Service"


def configuration(render):
    """Arguments are ones the program has; every file they and the settings name is mounted."""
    roles = set()
    for d in render.deployments():
        arguments, name = container(d).get("args", []), command(d)
        unknown = {a for a in arguments if a.startswith("--")} - FLAGS.get(name, set())
        if name not in FLAGS or unknown:
            yield f"{label(d)}: flowshift {' '.join(arguments)} is no command of the program"
        if name == "run":
            roles.add(argument(d, "--role", "all"))
        settings, files = render.settings(d)
        if settings is None:
            yield f"{label(d)}: no ConfigMap of this render is mounted at /etc/flowshift"
            continue
        needed = {argument(d, "--config")}
        if name == "run":
            needed.add(settings.get("topology", {}).get("file"))
        for path in sorted(str(p) for p in needed - files):
            yield f"{label(d)}: file {path} is not mounted"
    if roles and (not roles <= ROLES or ("all" not in roles and roles != {"aggregate", "detect"})):
        yield f"roles {sorted(roles)} do not make a whole job"


def hashed(render):
    """ConfigMaps carry a hash in their name, so that a change rolls the Deployments."""
    for config in render.all("ConfigMap"):
        head, _, tail = config["metadata"]["name"].rpartition("-")
        if not head or len(tail) != 10 or tail.isalpha():
            yield f"{label(config)}: no hash in the name, a change would roll nothing"


def image(render):
    """One image for all, with a version that is not `latest`; without a registry of the user's it is this version."""
    images = {container(d)["image"] for d in render.deployments()}
    if len(images) > 1:
        yield f"different images in one job: {sorted(images)}"
    for one in images:
        tag = one.rpartition(":")[2] if ":" in one.rpartition("/")[2] else ""
        if tag != version():
            yield f"image {one} is not of version {version()}"


def rights(render):
    """Restricted pod security, and nothing of the Kubernetes API."""
    for d in render.deployments():
        s, c = spec(d), container(d)
        context = {**s.get("securityContext", {}), **c.get("securityContext", {})}
        wanted = {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for key, value in wanted.items():
            if context.get(key) != value:
                yield f"{label(d)}: securityContext.{key} is {context.get(key)}"
        for key in ("automountServiceAccountToken", "enableServiceLinks"):
            if s.get(key) is not False:
                yield f"{label(d)}: {key} is not false"
        if len(s["containers"]) != 1 or s.get("hostNetwork") or s.get("hostPID"):
            yield f"{label(d)}: more than the program's own container and network"
        if "memory" not in c.get("resources", {}).get("limits", {}) or "cpu" not in c["resources"].get("requests", {}):
            yield f"{label(d)}: no memory limit or no processor request"
    for namespace in render.all("Namespace"):
        if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{label(namespace)}: does not enforce restricted pod security"


RULES = [rollout, leaving, probes, ports, configuration, hashed, image, rights]
