"""checkov over manifests, templates and the Dockerfile: what it asks is done, or skipped here with a reason.

A skip that nothing needs any more is a finding, and so is a broken manifest that passes. One run for everything:
each costs seconds to start.
"""

import copy, json, pathlib, shutil, tempfile

import yaml

import broken, render
from report import ROOT, run, tool

SKIPS = {
    "CKV_K8S_11": "no processor limit: a throttled worker renews its leases too late and loses them; requests are set",
    "CKV_K8S_15": "a version is pulled once; with a tag that does not move nothing newer could come",
    "CKV_K8S_43": "the digest is the user's, who builds or mirrors the image",
    "CKV_AWS_119": "a key of one's own is the parameter KmsKeyArn; by default it is the key of AWS, without its cost",
    "CKV_DOCKER_2": "Kubernetes asks the probes; the image has no shell to ask with",
}
# What must be told of broken copies.
BROKEN = {"CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_8", "CKV_AWS_28", "CKV_DOCKER_3"}


def break_manifest(objects):
    """A Deployment that may escalate, write, and is never asked whether it lives."""
    objects = copy.deepcopy(objects)
    container = broken.container(objects, "flowshift-detect")
    container["securityContext"] = {}
    del container["livenessProbe"]
    return objects


def check():
    """Findings of checkov."""
    with tempfile.TemporaryDirectory(prefix="flowshift-policy-") as folder:
        good, bad = pathlib.Path(folder, "good"), pathlib.Path(folder, "bad")
        good.mkdir(), bad.mkdir()
        objects = render.objects(render.combine("overlays/split", ["irsa", "podmonitor", "keda-split"]))
        (good / "split.yaml").write_text(yaml.safe_dump_all(objects))
        (good / "all.yaml").write_text(render.combine("base", ["collect", "pod-identity", "keda"]))
        (bad / "split.yaml").write_text(yaml.safe_dump_all(break_manifest(objects)))
        for template in (ROOT / "deploy/cloudformation").glob("*.yaml"):
            shutil.copy(template, good)
        streams = (ROOT / "deploy/cloudformation/streams.yaml").read_text()
        (bad / "streams.yaml").write_text(
            streams.replace("PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false")
        )
        dockerfile = (ROOT / "deploy/Dockerfile").read_text()
        (good / "Dockerfile").write_text(dockerfile)
        (bad / "Dockerfile").write_text("\n".join(l for l in dockerfile.splitlines() if not l.startswith("USER")))
        return findings(tool("checkov", "FLOWSHIFT_CHECKOV"), folder)


def findings(checkov, folder):
    """Runs it and compares."""
    kinds = ["kubernetes", "cloudformation", "dockerfile"]
    quiet = {"LOG_LEVEL": "ERROR", "BC_SKIP_MAPPING": "TRUE"}
    ok, said = run(
        checkov, "-d", folder, "--framework", *kinds, "-o", "json", "--compact", "--skip-download", env=quiet
    )
    try:
        reports = json.loads(said[said.index("[\n") :] if "[\n" in said else said)
    except ValueError:
        return [f"checkov: {said[:2000]}"]
    failed = {"good": {}, "bad": {}}
    passed, seen = 0, set()
    for report in reports if isinstance(reports, list) else [reports]:
        seen.add(report["check_type"])
        passed += report["summary"]["passed"]
        for one in report["results"]["failed_checks"]:
            side = one["file_path"].strip("/").split("/")[0]
            failed[side].setdefault(one["check_id"], []).append(
                f"{one['file_path']} {one['resource']}: {one['check_name']}"
            )
    told = [f"{check}: {where}" for check, all in sorted(failed["good"].items()) if check not in SKIPS for where in all]
    told += [f"skip {check} is not needed any more" for check in sorted(set(SKIPS) - set(failed["good"]))]
    told += [f"checkov says nothing of a broken copy: {check}" for check in sorted(BROKEN - set(failed["bad"]))]
    told += [f"checkov looked at no {kind}" for kind in kinds if kind not in seen]
    if passed < 200:
        told.append(f"only {passed} checks passed: it did not look at everything")
    return told
