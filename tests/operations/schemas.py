"""Schemas: every object is one that Kubernetes, the Prometheus operator and KEDA know, with no field they do not.

Kubernetes by `kubernetes-validate --strict`, at the oldest version the README promises and the newest it knows.
Kinds of others by the models generated from their CRDs, which drop unknown fields: what does not come back out was
not known.
"""

import json

from report import Skip

OLDEST, NEWEST = "1.31", "1.37"
KINDS = {
    "ScaledObject": "keda.v1alpha1",
    "PodMonitor": "prometheus_operator.v1",
    "PrometheusRule": "prometheus_operator.v1",
}


def label(o):
    return f"{o['kind']}/{o['metadata']['name']}"


def distinct(renders):
    """Each object once, with the first render it is in."""
    seen = {}
    for name, objects in renders:
        for o in objects:
            seen.setdefault(json.dumps(o, sort_keys=True), (name, o))
    return list(seen.values())


def check(renders):
    """Findings of all renders."""
    try:
        import kubernetes_validate
    except ImportError as error:
        raise Skip(f"no package {error.name}")
    findings = []
    for name, o in distinct(renders):
        if o["kind"] in KINDS:
            findings += [f"{name}: {label(o)}: {said}" for said in foreign(o)]
            continue
        for version in (OLDEST, NEWEST):
            try:
                kubernetes_validate.validate(o, version, strict=True)
            except Exception as error:
                findings.append(f"{name}: {label(o)}: {str(error).splitlines()[0]} (Kubernetes {version})")
    return findings


def foreign(o):
    """What the model of a kind of others says."""
    import importlib

    try:
        module = importlib.import_module(f"cloudcoil.models.{KINDS[o['kind']]}")
    except ImportError as error:
        raise Skip(f"no package {error.name}")
    try:
        model = getattr(module, o["kind"]).model_validate(o)
    except ValueError as error:
        return [str(error)]
    known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"unknown field {path}" for path in lost(o, known)]


def lost(given, known, path=""):
    """Paths in `given` that are not in `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known:
                yield f"{path}.{key}"
            else:
                yield from lost(value, known[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(known, list):
        for index, (a, b) in enumerate(zip(given, known)):
            yield from lost(a, b, f"{path}[{index}]")
