"""What the manifests give the program, given to the program: arguments, settings and topology of every Deployment.

Needs a build in FLOWSHIFT_BINARY. Not here: that it runs so (an image's root filesystem, its user, its probes).
"""

import copy, os, pathlib, tempfile

import broken, render
from objects import Render, container, label
from report import Skip, run

RENDERS = [("base", ["collect"]), ("overlays/split", [])]


def refused(flowshift, objects):
    """What the program says against a render."""
    whole = Render(objects)
    for deployment in whole.deployments():
        ok, said = run(flowshift, *container(deployment)["args"], "--help")
        if not ok:
            yield f"{label(deployment)}: {said.splitlines()[0]}"
    data = broken.configuration(objects)["data"]
    with tempfile.TemporaryDirectory(prefix="flowshift-settings-") as folder:
        for name, text in data.items():
            pathlib.Path(folder, name).write_text(text)
        topology = {"FLOWSHIFT__TOPOLOGY__FILE": f"{folder}/topology.yaml"}
        ok, said = run(flowshift, "config", "check", "--config", f"{folder}/flowshift.toml", env=topology)
        if not ok:
            yield f"settings: {said.splitlines()[0]}"


def binary():
    """The build with the embedded services."""
    flowshift = os.environ.get("FLOWSHIFT_BINARY")
    if not flowshift or not os.access(flowshift, os.X_OK):
        raise Skip("no build: FLOWSHIFT_BINARY names none")
    return os.path.abspath(flowshift)


def check():
    """Findings, and that a wrong argument, key or topology is one."""
    flowshift, findings = binary(), []
    for layout, components in RENDERS:
        objects = render.objects(render.combine(layout, components))
        findings += [f"{layout}: {said}" for said in refused(flowshift, objects)]
    for what, change in BROKEN.items():
        objects_broken = copy.deepcopy(objects)
        change(objects_broken)
        if not list(refused(flowshift, objects_broken)):
            findings.append(f"the program says nothing to {what}")
    return findings


def rewrite(name, old, new):
    """Changes a file of the ConfigMap."""

    def change(objects):
        data = broken.configuration(objects)["data"]
        assert old in data[name]
        data[name] = data[name].replace(old, new)

    return change


BROKEN = {
    "a role that does not exist": broken.put(broken.DETECT, f"{broken.FIRST}/args/2", "judge"),
    "a flag that does not exist": broken.put(broken.COLLECT, f"{broken.FIRST}/args/1", "--door"),
    "a key that does not exist": rewrite("flowshift.toml", "[admin]", "[admins]"),
    "a subnet without a range": rewrite("topology.yaml", "cidrs", "ranges"),
}
