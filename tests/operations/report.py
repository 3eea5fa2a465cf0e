"""What every check needs: where things are, how to run a tool, and how to say that something is wrong or was left out.

A check is a function that returns its findings, sentences that name the file or object; none means it passed. What
a machine lacks is skipped with a reason, never passed over in silence. Not here: what is checked.
"""

import os, pathlib, shutil, subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOOLS = HERE.parent / ".tools"


class Skip(Exception):
    """A check cannot run here; the text says what is missing."""


def skip(check, why):
    """Says so now, and once more at the end of tests/run."""
    print(f"  SKIPPED: {why}")
    note = os.environ.get("FLOWSHIFT_SKIPPED")
    if note:
        with open(note, "a") as f:
            f.write(f"operations: {check}: {why}\n")


def tool(name, variable=None):
    """Path of a tool: named by the environment, in PATH, or in the tests' own folder."""
    named = os.environ.get(variable) if variable else None
    own = [TOOLS / "debian/usr/bin" / name, TOOLS / "prometheus/usr/bin" / name]
    own += [TOOLS / "operations/bin" / name, TOOLS / "checkov/bin" / name]
    for path in [named, shutil.which(name), *map(str, own)]:
        if path and os.access(path, os.X_OK):
            return path
    raise Skip(f"no {name}")


def run(*command, stdin=None, cwd=ROOT, env=None):
    """Runs a tool to its end: (whether it was content, what it said)."""
    env = {**os.environ, **(env or {})}
    done = subprocess.run(
        [*interpreter(command[0]), *(str(c) for c in command)],
        input=stdin,
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def interpreter(path):
    """The Python beside a script of ours: its first line names the folder it was installed in, which may have been moved."""
    path = pathlib.Path(path)
    if TOOLS not in path.parents or not path.read_bytes()[:2] == b"#!":
        return []
    return [str(path.with_name("python"))]


def first(command, text):
    """A finding from a tool that was not content."""
    return [f"{command}:\n{text}"]


def relative(path):
    """A path as people name it."""
    return str(pathlib.Path(path).relative_to(ROOT))
