"""The image as it ships: deploy/Dockerfile's last stage packed by buildah around a static build, and unpacked again.

Needs that build in FLOWSHIFT_STATIC. The builder stage needs Rust's image from a registry; its two outputs are handed
in instead (--build-context), so the file is used as it is. Invariant: what other checks run is what the layers hold,
unpacked from the image and not copied from the build. Read next: alone.py (it runs from this root alone), deployed.py.
"""

import hashlib, json, os, pathlib, re, shutil, struct, subprocess, tarfile, tempfile, time

import objects
from report import ROOT, TOOLS, Skip, run, tool

NAME = "localhost/flowshift:packed"
ROOTS = "etc/ssl/certs/ca-certificates.crt"
USER = "65532:65532"
# Bytes. Nothing but the program and the roots is inside; twice as much means that something else got in.
LARGEST = 64 << 20


def static():
    """The build that goes inside."""
    path = os.environ.get("FLOWSHIFT_STATIC")
    if not path or not os.access(path, os.X_OK):
        raise Skip("no static build: FLOWSHIFT_STATIC names none")
    return pathlib.Path(path).resolve()


def own_libraries(path):
    """Environment of a tool; one that was unpacked and not installed finds its libraries beside itself."""
    folder = TOOLS / "debian/usr/lib/x86_64-linux-gnu"
    return {"LD_LIBRARY_PATH": str(folder)} if str(path).startswith(str(TOOLS)) else {}


def buildah(store, *arguments):
    """Runs buildah with everything of its own in `store`; what it said."""
    path = tool("buildah")
    (store / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    (store / "registries.conf").write_text("unqualified-search-registries = []\n")
    folders = {"runroot": str(store / "run"), "graphroot": str(store / "graph")}
    lines = ["[storage]", 'driver = "vfs"', *(f'{key} = "{value}"' for key, value in folders.items())]
    (store / "storage.conf").write_text("\n".join(lines) + "\n")
    environment = {
        **own_libraries(path),
        "CONTAINERS_STORAGE_CONF": str(store / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(store / "registries.conf"),
        "CONTAINERS_CONF": "/dev/null",
        "HOME": str(store),
    }
    ok, said = run(path, *arguments, env=environment)
    if not ok:
        raise RuntimeError(f"buildah {arguments[0]}: {said}")
    return said


class Image:
    """The packed image: its OCI layout in `folder/image`, its root filesystem in `folder/root`."""

    def __init__(self, folder):
        self.folder, self.layout, self.root = folder, folder / "image", folder / "root"
        outputs, store = folder / "builder", folder / "store"
        for path in (outputs / "out", (outputs / ROOTS).parent, store, folder / "empty", self.root):
            path.mkdir(parents=True)
        shutil.copy(static(), outputs / "out/flowshift")
        shutil.copy(roots(), outputs / ROOTS)
        revision = run("git", "rev-parse", "HEAD")[1]
        began = time.monotonic()
        command = ["bud", "--isolation", "chroot", "--format", "oci", "--signature-policy", store / "policy.json"]
        command += ["--build-context", f"builder={outputs}", "--build-arg", f"REVISION={revision}"]
        command += ["--timestamp", "0", "--tag", NAME, "--file", ROOT / "deploy/Dockerfile", folder / "empty"]
        buildah(store, *command)
        buildah(store, "push", "--signature-policy", store / "policy.json", NAME, f"oci:{self.layout}")
        self.seconds, self.revision = time.monotonic() - began, revision
        shutil.rmtree(store, ignore_errors=True)
        manifest = self.blob(json.loads((self.layout / "index.json").read_text())["manifests"][0])
        self.size = sum(layer["size"] for layer in manifest["layers"])
        self.config = self.blob(manifest["config"])
        for layer in manifest["layers"]:
            with tarfile.open(self.path(layer)) as tar:
                (
                    tar.extractall(self.root, filter="tar")
                    if hasattr(tarfile, "tar_filter")
                    else tar.extractall(self.root)
                )

    def path(self, descriptor):
        """File of a blob, whose content is what its name says."""
        kind, digest = descriptor["digest"].split(":")
        path = self.layout / "blobs" / kind / digest
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise RuntimeError(f"blob {digest} has other content")
        return path

    def blob(self, descriptor):
        return json.loads(self.path(descriptor).read_text())


def roots():
    """The certificates of this machine, in the place of those of the builder's Debian."""
    path = pathlib.Path("/", ROOTS)
    if not path.exists():
        raise Skip(f"no {path}")
    return path


_packed = []


def image():
    """The image, packed once for all checks of a run."""
    if not _packed:
        keep = tempfile.TemporaryDirectory(prefix="flowshift-image-")
        _packed.append((Image(pathlib.Path(keep.name)), keep))
    return _packed[0][0]


def interpreter(path):
    """Whether an ELF program names a loader: a static one does not."""
    data = path.read_bytes()[:4096]
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    return any(struct.unpack_from("<I", data, at + n * size)[0] == 3 for n in range(count))


def start_time(path):
    """Milliseconds that `--version` takes, the best of ten: what the program costs before it does anything."""

    def once():
        began = time.monotonic()
        subprocess.run([path, "--version"], stdout=subprocess.DEVNULL, check=True)
        return (time.monotonic() - began) * 1000

    return min(once() for _ in range(10))


def check():
    """The image holds the program and the roots and nothing else, is of nobody, and says what it is."""
    whole = image()
    findings = list(contents(whole.root))
    config = whole.config["config"]
    wanted = {"User": USER, "Entrypoint": ["/flowshift"], "Cmd": ["--help"]}
    findings += [f"image: {key} is {config.get(key)}" for key, value in wanted.items() if config.get(key) != value]
    labels = config.get("Labels", {})
    stated = {"version": objects.version(), "revision": whole.revision, "licenses": "Apache-2.0", "title": "flowshift"}
    for key, value in stated.items():
        if labels.get(f"org.opencontainers.image.{key}") != value:
            findings.append(f"image: label {key} is {labels.get('org.opencontainers.image.' + key)}, not {value}")
    if whole.config["architecture"] != {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]:
        findings.append(f"image: architecture {whole.config['architecture']}")
    program = whole.root / "flowshift"
    ok, said = run(program, "demo")
    if ok or "no embedded services" not in said:
        findings.append(f"image: the embedded services are in: {said[:200]}")
    if whole.size > LARGEST:
        findings.append(f"image: {whole.size} bytes are more than {LARGEST}")
    unpacked = program.stat().st_size / 1e6
    print(
        f"  {whole.size / 1e6:.1f} MB packed, program {unpacked:.1f} MB, packed in {whole.seconds:.1f} s,"
        f" --version in {start_time(program):.1f} ms"
    )
    return findings + [f"the check of the contents cannot fail: {what}" for what in unseen(whole.root)]


def contents(root):
    """What is wrong with a root filesystem."""
    there = {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if not p.is_dir()}
    for name in sorted(set(there) ^ {"flowshift", ROOTS}):
        yield f"image: {name} is {'' if name in there else 'not '}in it"
    for name, path in there.items():
        mode = path.stat().st_mode
        if mode & 0o6022:
            yield f"image: {name} has mode {mode:o}"
    program = there.get("flowshift")
    if program and interpreter(program):
        yield "image: the program is not static"
    if ROOTS in there and len(re.findall("BEGIN CERTIFICATE", there[ROOTS].read_text())) < 50:
        yield "image: few TLS roots"


def unseen(root):
    """Faults put into a copy that `contents` says nothing about."""
    faults = {
        "a dynamic program": lambda at: shutil.copy(os.path.realpath(shutil.which("git")), at / "flowshift"),
        "another file": lambda at: (at / "etc/passwd").write_text("root\n"),
        "a program others may write": lambda at: (at / "flowshift").chmod(0o777),
        "no roots": lambda at: (at / ROOTS).unlink(),
    }
    for what, fault in faults.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(root, pathlib.Path(folder, "root"))
            fault(copy)
            if not list(contents(copy)):
                yield what
