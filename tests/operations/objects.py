"""A render as the rules see it: objects by kind, pods of a selector, facts of the program that manifests must agree
with.

Facts are read from the sources, so that a changed constant breaks a check instead of a cluster. Read next:
workloads.py and wiring.py (the rules), broken.py (each rule is seen to fail).
"""

import re, tomllib

import yaml

from report import ROOT


class Render:
    """One render, by kind."""

    def __init__(self, objects):
        self.objects = objects

    def all(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def deployments(self):
        return self.all("Deployment")

    def selected(self, selector):
        """Deployments whose pods carry the labels; an empty or missing selector is one of nobody."""
        labels = (selector or {}).get("matchLabels", {})
        if not labels:
            return []
        return [d for d in self.deployments() if labels.items() <= pod(d)["metadata"].get("labels", {}).items()]

    def settings(self, deployment):
        """The settings file that a Deployment runs with, parsed, and the names of the files beside it."""
        volumes = {v["name"]: v for v in spec(deployment).get("volumes", [])}
        for mount in container(deployment).get("volumeMounts", []):
            source = volumes.get(mount["name"], {}).get("configMap", {}).get("name")
            for config in self.all("ConfigMap"):
                if config["metadata"]["name"] == source and mount["mountPath"] == "/etc/flowshift":
                    data = config["data"]
                    return tomllib.loads(data.get("flowshift.toml", "")), {f"/etc/flowshift/{name}" for name in data}
        return None, set()


def label(o):
    return f"{o['kind']}/{o['metadata']['name']}"


def pod(deployment):
    return deployment["spec"]["template"]


def spec(deployment):
    return pod(deployment)["spec"]


def container(deployment):
    return spec(deployment)["containers"][0]


def argument(deployment, flag, default=None):
    """The value behind a flag."""
    arguments = container(deployment).get("args", [])
    return arguments[arguments.index(flag) + 1] if flag in arguments[:-1] else default


def command(deployment):
    """The subcommand."""
    return (container(deployment).get("args") or [""])[0]


def fact(path, pattern):
    """The one thing a pattern finds in a file of the repository."""
    found = set(re.findall(pattern, (ROOT / path).read_text()))
    if len(found) != 1:
        raise RuntimeError(f"{path}: {pattern} finds {sorted(found)}; the check must be brought up to date")
    return found.pop()


def longest_leave(name):
    """Seconds a process may need between SIGTERM and its exit, by subcommand, before others go on without it."""
    if name == "collect":
        body = fact("src/collect/options.rs", r"body_timeout: Duration::from_secs\((\d+)\)")
        records = fact("src/collect/batcher.rs", r"deadline: Duration::from_secs\((\d+)\)")
        return int(body) + int(records)
    # The leader finishes a hand-over that takes longer. Only then is the admin port closed, behind what it is answering.
    away = int(fact("consumer/src/run/config.rs", r"hand_over: seconds\((\d+)\)"))
    command = ("BODY", "PUT")
    limits = [
        fact("src/admin/operator/routes.rs", rf"const {n}: Duration = Duration::from_secs\((\d+)\)") for n in command
    ]
    return away + sum(map(int, limits))


def probe_paths():
    return set(re.findall(r'\.route\("(/\w+z)"', (ROOT / "src/admin/router.rs").read_text()))


def version():
    return fact("Cargo.toml", r'(?m)^version = "([^"]+)"')


def shards(parameter):
    """Default of a parameter of the streams' template."""
    text = (ROOT / "deploy/cloudformation/streams.yaml").read_text()
    return int(yaml.load(text, Loader=Template)["Parameters"][parameter]["Default"])


class Template(yaml.SafeLoader):
    """YAML of CloudFormation: the short forms of functions are kept as {name: value}."""


def _function(loader, suffix, node):
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {name: value}


Template.add_multi_constructor("!", _function)
