"""What the program is made of: cargo-deny's rules, advisories where a copy of their data base is given, and a bill of
materials that is true of the packed program.

FLOWSHIFT_ADVISORIES names a clone of the RustSec data base; nothing is fetched. Each rule is seen to fail on a
loosened copy. Not here: the rules themselves (deny.toml), how the bill is made (deploy/sbom).
"""

import hashlib, json, os, pathlib, re, subprocess, sys, tempfile

from packed import image, static
from report import ROOT, Skip, first, run, tool

CONFIG = ROOT / "deny.toml"
# What deny.toml says of crates or licences that are gone must go too.
STRICT = ["unmatched-skip", "unnecessary-skip", "license-not-encountered", "unmatched-source"]
MADE_UP = """```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "zstd"
date = "2026-01-01"
[versions]
patched = [">= 99.0.0"]
```

# Made up
"""


def deny(*checks, config=CONFIG):
    """Runs cargo-deny: (whether it was content, what it said)."""
    strict = [word for lint in STRICT for word in ("-D", lint)]
    command = [tool("cargo-deny"), "--offline", "--color", "never", "--config", config, "check", *strict, *checks]
    return run(*command)


def changed(text):
    """deny.toml with another text, in a file of its own."""
    file = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)
    with file:
        file.write(text)
    return pathlib.Path(file.name)


def rules():
    """Licences, duplicates and sources are as deny.toml says, and it sees what it must."""
    ok, said = deny("licenses", "bans", "sources")
    findings = [] if ok else first("cargo-deny", said)
    text = CONFIG.read_text()
    faults = {
        "a licence that is not allowed": re.sub(r'\n    "ISC",', "", text),
        "a licence that nothing has": text.replace('    "ISC",', '    "ISC",\n    "EUPL-1.2",'),
        "a second version without a reason": re.sub(r"\n    \{ crate = \"syn@2\".*", "", text),
        "a reason for a version that has gone": text.replace("rand_core@0.6", "rand_core@0.5"),
        "a crate that is banned": text.replace('"native-tls"', '"zstd"'),
        "another registry": text.replace("[sources]", "[sources]\nallow-registry = []"),
    }
    for what, broken in faults.items():
        config = changed(broken)
        if broken == text or deny("licenses", "bans", "sources", config=config)[0]:
            findings.append(f"cargo-deny says nothing to {what}")
        config.unlink()
    return findings


def advised(clone):
    """What cargo-deny says with a clone of an advisory data base: (whether it was content, what)."""
    with tempfile.TemporaryDirectory(prefix="flowshift-advisories-") as folder:
        text = CONFIG.read_text().replace("[advisories]", f'[advisories]\ndb-path = "{folder}"')
        config = changed(text)
        try:
            # It names the folder where it looks; that is where the clone belongs.
            place = re.search(rf"{re.escape(folder)}/[\w-]+", deny("advisories", config=config)[1]).group(0)
            for command in (["clone", "--quiet", clone, place], ["-C", place, "fetch", "--quiet"]):
                ok, said = run("git", *command)
                if not ok:
                    return False, said
            return deny("advisories", config=config)
        finally:
            config.unlink()


def advisories():
    """No advisory against what is locked, and a made-up one is found."""
    findings = []
    with tempfile.TemporaryDirectory(prefix="flowshift-advisory-") as folder:
        path = pathlib.Path(folder, "crates/zstd")
        path.mkdir(parents=True)
        (path / "RUSTSEC-2026-9999.md").write_text(MADE_UP)
        for command in (
            ["init", "--quiet"],
            ["add", "."],
            ["-c", "user.name=t", "-c", "user.email=t", "commit", "-qm", "t"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
        ok, said = advised(folder)
        if ok or "RUSTSEC-2026-9999" not in said:
            findings.append(f"an advisory is not found: {said[-500:]}")
    copy = os.environ.get("FLOWSHIFT_ADVISORIES")
    if not copy:
        if findings:
            return findings
        raise Skip("advisories against dependencies: FLOWSHIFT_ADVISORIES names no clone of the data base")
    ok, said = advised(copy)
    return findings + ([] if ok else first("cargo-deny", said))


def bill():
    """The bill of the packed program is valid, of this very file, the same twice, and leaves nothing out."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    program = image().root / "flowshift"
    texts = []
    for _ in range(2):
        ok, said = run(sys.executable, ROOT / "deploy/sbom", program)
        if not ok:
            return first("deploy/sbom", said)
        texts.append(said)
    findings = [] if texts[0] == texts[1] else ["the bill of materials differs from one time to the next"]
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[0]):
        findings.append(f"the bill of materials is not CycloneDX 1.6: {str(wrong)[:300]}")
    bom = json.loads(texts[0])
    findings += untrue(bom, program)
    for name in ("ring", "glibc"):
        poorer = {**bom, "components": [c for c in bom["components"] if c["name"] != name]}
        if not list(untrue(poorer, program)):
            findings.append(f"nobody misses {name} in the bill of materials")
    static().with_name("flowshift.cdx.json").write_text(texts[0] + "\n")
    print(f"  {len(bom['components'])} components, {static().with_name('flowshift.cdx.json')}")
    return findings


def untrue(bom, program):
    """What a bill says wrongly of a program."""
    data = program.read_bytes()
    listed = {f"{c['name']}-{c['version']}" for c in bom["components"]}
    # Where a panic may happen, the program carries the path of its source.
    paths = set(re.findall(rb"/registry/src/[^/]+/([A-Za-z0-9_-]+-\d[\w.+-]*)/", data))
    if len(paths) < 50:
        yield f"only {len(paths)} crates are seen in the program: the check must be brought up to date"
    for name in sorted({path.decode() for path in paths} - listed):
        yield f"{name} is in the program and not in its bill of materials"
    names = {c["name"] for c in bom["components"]}
    for name in ("glibc", "rust-std", "flowshift-consumer", "flowshift-detector", "flowshift-proto"):
        if name not in names:
            yield f"{name} is not in the bill of materials"
    for name in sorted({"dynoxide-rs", "flowshift-kinesis-emulator", "proptest", "serde_derive"} & names):
        yield f"{name} is in the bill of materials and not in the program"
    if bom["metadata"]["component"]["hashes"][0]["content"] != hashlib.sha256(data).hexdigest():
        yield "the bill of materials is of another program"
    for component in bom["components"]:
        if not component.get("licenses"):
            yield f"{component['name']} has no licence in the bill of materials"


CHECKS = {"dependencies": rules, "advisories": advisories}
