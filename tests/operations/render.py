"""Renders k8s/ by kustomize: base, every overlay, and every combination of components that fits a layout.

The release files (k8s/release) are renders too, for users without kustomize; `files` says what belongs in them.
Without kustomize they are what is checked. Not here: what the objects must satisfy (objects.py).
"""

import itertools, os, pathlib, re, tempfile

import yaml

from report import ROOT, Skip, relative, run, skip, tool

K8S = ROOT / "k8s"
RELEASE = K8S / "release"
# Of each group one or none; None stands for none.
CREDENTIALS = [None, "irsa", "pod-identity"]
WATCHED = [[None, "podmonitor"], [None, "prometheusrule"]]
LAYOUTS = {
    "base": [[None, "collect"], CREDENTIALS, *WATCHED, [None, "keda"]],
    "overlays/split": [CREDENTIALS, *WATCHED, [None, "keda-split"]],
}
HEADER = """# Written from {source} by `tests/operations/run --write`: do not edit.
# Set the image, the topology in the ConfigMap and the roles of the ServiceAccounts, then kubectl apply -f this file.
# Its ConfigMap's name is fixed: after a change restart with kubectl -n flowshift rollout restart deployment.
"""


def kustomize(folder):
    """The objects of a kustomization, as text."""
    try:
        command = [tool("kubectl", "FLOWSHIFT_KUBECTL"), "kustomize"]
    except Skip:
        try:
            command = [tool("kustomize"), "build"]
        except Skip:
            raise Skip("neither kubectl nor kustomize") from None
    ok, said = run(*command, folder)
    if not ok:
        raise RuntimeError(f"kustomize {folder}: {said}")
    return said + "\n"


def objects(text):
    """The objects of a render."""
    return [o for o in yaml.safe_load_all(text) if o]


def combinations():
    """(name, layout, components) of everything a user may put together."""
    for layout, groups in LAYOUTS.items():
        for chosen in itertools.product(*groups):
            components = [c for c in chosen if c]
            yield " + ".join([layout, *components]), layout, components


def combine(layout, components):
    """The render of a layout with components, as an overlay of a user's would be."""
    with tempfile.TemporaryDirectory(prefix="flowshift-overlay-") as folder:
        at = lambda path: os.path.relpath(K8S / path, os.path.realpath(folder))
        own = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "flowshift",
            "resources": [at(layout)],
            "components": [at(f"components/{c}") for c in components],
        }
        with open(f"{folder}/kustomization.yaml", "w") as f:
            yaml.safe_dump(own, f)
        return kustomize(folder)


def every():
    """(name, objects) of all renders; without kustomize those of the release files."""
    try:
        overlays = sorted(p.parent for p in K8S.glob("overlays/*/kustomization.yaml"))
        renders = [(relative(folder), kustomize(folder)) for folder in [K8S / "base", *overlays]]
    except Skip as why:
        skip("render", f"only k8s/release is checked: {why}")
        return [(relative(path), objects(path.read_text())) for path in sorted(RELEASE.glob("*.yaml"))]
    renders += [(name, combine(layout, components)) for name, layout, components in combinations()]
    return [(name, objects(text)) for name, text in renders]


def files():
    """Release files: path to text."""
    sources = {"flowshift.yaml": "overlays/single", "flowshift-split.yaml": "overlays/split"}
    return {RELEASE / name: HEADER.format(source=f"k8s/{source}") + fixed(source) for name, source in sources.items()}


def fixed(source):
    """A render without the hash in the ConfigMap's name, which nobody without kustomize could keep up."""
    text = kustomize(K8S / source)
    maps = [o["metadata"]["name"] for o in objects(text) if o["kind"] == "ConfigMap"]
    for name in maps:
        text = text.replace(name, name.rsplit("-", 1)[0])
    return text


def check_readme():
    """The overlay that the README shows is one."""
    shown = re.search(
        r"```yaml\n# my-overlay/kustomization.yaml\n(.*?)```", (K8S / "README.md").read_text(), re.S
    ).group(1)
    with tempfile.TemporaryDirectory(prefix="flowshift-readme-") as folder:
        os.symlink(K8S, f"{folder}/k8s")
        own = pathlib.Path(folder, "my-overlay")
        own.mkdir()
        (own / "kustomization.yaml").write_text(shown)
        for name in ("flowshift.toml", "topology.yaml"):
            (own / name).write_text("# of mine\n")
        try:
            text = kustomize(own)
        except RuntimeError as error:
            return [f"k8s/README.md: {error}"]
    wanted = ("# of mine", "registry.example.com/flowshift:")
    return [f"k8s/README.md: its overlay does not bring {what}" for what in wanted if what not in text]


def check_components():
    """Every component is in some combination, and every layout there is was rendered."""
    used = {c for groups in LAYOUTS.values() for group in groups for c in group if c}
    there = {p.parent.name for p in K8S.glob("components/*/kustomization.yaml")}
    return [f"component {name} is rendered in no combination" for name in sorted(there ^ used)]


def check_release():
    """The release files are what kustomize renders now."""
    findings = []
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            findings.append(f"{relative(path)} is not up to date: tests/operations/run --write")
    return findings
