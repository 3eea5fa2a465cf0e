"""The Dockerfile: hadolint is content, and what it cannot know of this image holds.

Not here: the image itself (packed.py).
"""

import re

import objects
from report import ROOT, first, run, tool

DOCKERFILE = ROOT / "deploy/Dockerfile"


def hadolint():
    """hadolint finds nothing, and does find a mistake."""
    command = tool("hadolint")
    ok, said = run(command, "--failure-threshold", "style", DOCKERFILE)
    findings = [] if ok else first("hadolint", said)
    if run(command, "-", stdin="FROM debian\nRUN cd /tmp && apt-get install curl\n")[0]:
        findings.append("hadolint says nothing about a bad Dockerfile")
    return findings


def image():
    """Static, of nobody, from scratch, without the embedded services, labelled, for either processor."""
    text = DOCKERFILE.read_text()
    findings = [f"deploy/Dockerfile: {what}" for what, pattern in MUST.items() if not re.search(pattern, text, re.M)]
    toolchain = re.search(r'channel = "([^"]+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    version = objects.version()
    if f"ARG VERSION={version}\n" not in text:
        findings.append(f"deploy/Dockerfile: is not labelled with version {version}")
    if f"rust:{toolchain}-" not in text:
        findings.append(f"deploy/Dockerfile: is not built with Rust {toolchain}")
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split()
    for name in ("**/target", "tests/.tools", ".git"):
        if name not in ignored:
            findings.append(f"deploy/Dockerfile.dockerignore: {name} is sent to the builder")
    for what, pattern in MUST.items():
        if re.search(pattern, re.sub(pattern, "", text, flags=re.M), re.M):
            findings.append(f"the check of the image cannot fail: {what}")
    return findings


MUST = {
    "not static": r"target-feature=\+crt-static",
    "random numbers need /dev": r'getrandom_backend="linux_getrandom"',
    "the embedded services are in": r"--no-default-features",
    "versions are not those of Cargo.lock": r"--locked",
    "the last stage is not from scratch": r"^FROM scratch$",
    "no TLS roots": r"ca-certificates\.crt /etc/ssl/certs/",
    "runs as root": r"^USER 65532:65532$",
    "the target is of one processor": r"uname -m|TARGETARCH",
    "no source label": r"org\.opencontainers\.image\.source",
    "no revision label": r"org\.opencontainers\.image\.revision",
    "no version label": r"org\.opencontainers\.image\.version",
    "no licence label": r"org\.opencontainers\.image\.licenses",
}
CHECKS = {"hadolint": hadolint, "image": image}
