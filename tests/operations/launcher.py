"""What a container runtime does between a pod's description and the program: namespaces' content, root, user, rights.

Started by pods.py in namespaces of its own (mount, process, network), as their first process. Standard library alone.
Not here: which description (pods.py), seccomp and limits on memory, which need a real runtime.

Argument: a JSON object with `root` (a folder that nobody else uses), `mounts` ([source, target], read-only), `proc`
(whether it is there), `readonly` (of the root; mounts are so always), `network` ([address with prefix, gateway] or
none), `uid`, `gid`, `groups`, `args`, `env`. There is no /dev, which a runtime would make. Ends with status 97 when it
cannot.
"""

import ctypes, json, os, pathlib, subprocess, sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, LAST_CAPABILITY = 24, 38, 63


def say(*command):
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)


def network(address, gateway):
    """Waits for the other side to put `eth0` here (a line on standard input), and sets it up."""
    print("namespace", flush=True)
    if not sys.stdin.readline():
        sys.exit(97)
    say("ip", "link", "set", "lo", "up")
    say("ip", "address", "add", address, "dev", "eth0")
    say("ip", "link", "set", "eth0", "up")
    say("ip", "route", "add", "default", "via", gateway)


def mount(root, mounts, processes, readonly):
    """The mounts first, since their places are made in the root."""
    say("mount", "--make-rprivate", "/")
    say("mount", "--bind", root, root)
    if processes:
        (root / "proc").mkdir()
        say("mount", "-t", "proc", "-o", "ro,nosuid,nodev,noexec", "proc", root / "proc")
    for source, target in mounts:
        source, place = pathlib.Path(source), root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if source.is_dir() else place.touch()
        say("mount", "--bind", source, place)
        say("mount", "-o", "remount,bind,ro,nosuid,nodev", place)
    say("mount", "-o", f"remount,bind,{'ro' if readonly else 'rw'},nosuid,nodev", root)


def rights(uid, gid, groups):
    """No capability, none to come, and the user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(LAST_CAPABILITY + 1):
        # Numbers this kernel does not have are refused.
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit(97)
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def main():
    pod = json.loads(sys.argv[1])
    root = pathlib.Path(pod["root"])
    if pod["network"]:
        network(*pod["network"])
    mount(root, pod["mounts"], pod["proc"], pod["readonly"])
    os.chroot(root)
    os.chdir("/")
    rights(pod["uid"], pod["gid"], pod["groups"])
    os.execve(pod["args"][0], pod["args"], pod["env"])


main()
