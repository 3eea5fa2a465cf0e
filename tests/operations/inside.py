"""A check in namespaces of its own (mount, network), where containers are started: `inside.run("alone", …)` from the
checks, and this file itself on the inner side.

The network ends with the process that made it; no address of the machine is used. Needs root, because containers run
as another user. Not here: what the checks do.
"""

import importlib, json, os, pathlib, shutil, subprocess, sys, tempfile

from report import Skip

NEEDED = ("unshare", "ip", "mount", "openssl")


def run(name, *arguments):
    """Findings of `NAME.check(*arguments, folder)` on the inner side."""
    missing = [command for command in NEEDED if not shutil.which(command)]
    if missing:
        raise Skip(f"no {', '.join(missing)}")
    if os.geteuid() != 0:
        raise Skip("containers of another user can be started by root alone")
    alone = ["unshare", "--net", "--mount", "--kill-child", "--fork", "--pid", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        raise Skip("no right to make namespaces")
    with tempfile.TemporaryDirectory(prefix="flowshift-inside-") as folder:
        # Files of the image are linked into the containers' roots: not across file systems.
        answer = pathlib.Path(folder, "findings.json")
        command = [*alone, sys.executable, __file__, name, str(answer), *map(str, arguments), folder]
        status = subprocess.run(command).returncode
        said = json.loads(answer.read_text()) if answer.exists() else [f"{name} ended with status {status}"]
        if isinstance(said, str):
            raise Skip(said)
        return said


def main():
    name, answer, *arguments = sys.argv[1:]
    try:
        said = list(importlib.import_module(name).check(*arguments))
    except Skip as missing:
        said = str(missing)
    pathlib.Path(answer).write_text(json.dumps(said))


if __name__ == "__main__":
    main()
