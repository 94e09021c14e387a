"""Linux process primitives: hiding this process from its children, and leaving none of them behind."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_REAP_ROUNDS = 50

# Not secret, and read later: by awslambdaric on each invocation, and by whoever makes another Runtime.
_KEPT_PREFIXES = ("AWS_LAMBDA_",)
_KEPT = frozenset(
    {
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "HOTPLUG_ENDPOINT",
        "HOTPLUG_LOCAL_CACHE_DIR",
        "HOTPLUG_LOG_LEVEL",
        "HOTPLUG_PRIVATE_ENDPOINTS",
        "HOTPLUG_RUNTIME_NETWORK",
        "HOTPLUG_UNSANDBOXED_PYTHON",
        "HOTPLUG_VPC_RANGES",
    }
)
_SECRET_PREFIXES = ("AWS_", "HOTPLUG_", "MYSQL_")


def harden() -> None:
    """Make this process one that a child can learn nothing from. Repeatable.

    An empty environment for the child is no protection: `/proc/<parent>/environ` and `mem` are open to any
    process of the same user. So the credentials leave this process, also the block that the kernel shows as
    `environ`, and the process stops being dumpable, which closes those files.
    """
    forget_credentials()
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_DUMPABLE, 0), (PR_SET_CHILD_SUBREAPER, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def forget_credentials() -> list[str]:
    """Remove credentials from the environment, overwriting them in memory; return their names."""
    names = [
        name
        for name in os.environ
        if name.startswith(_SECRET_PREFIXES) and name not in _KEPT and not name.startswith(_KEPT_PREFIXES)
    ]
    getenv = ctypes.CDLL(None).getenv
    getenv.restype, getenv.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    for name in names:
        address = getenv(os.fsencode(name))
        if address:
            ctypes.memset(address, 0, len(ctypes.string_at(address)))
        del os.environ[name]
    return names


def resident_bytes(pids: Collection[int]) -> int:
    """Return the resident memory of processes; one that has ended counts as nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/statm").read_text("ascii").split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[1]) * _PAGE
    return total


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def children(pid: int) -> dict[int, int]:
    """Return the direct children of a process, each with its start time (clock ticks since boot)."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found[int(name)] = int(fields[19])
    return found


def user_tasks(uid: int) -> int:
    """Return how many threads a user has now, in all of the processes that can be seen."""
    total = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            # Not the owner of /proc/{pid}: that is root where a process is not dumpable, as ours are.
            fields = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{name}/status").read_text("utf-8", "replace").splitlines()
            )
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if int(fields["Uid"].split()[0]) == uid:
            total += int(fields["Threads"])
    return total


def kill_orphans(started: int, spared: Collection[int]) -> list[int]:
    """Kill what a dead child left behind, and what that leaves, until nothing comes after; return the pids.

    Parameters
    ----------
    started
        Start time of the dead child: an orphan is a child of ours (we are its subreaper) that is not older.
    spared
        Children that we started ourselves.
    """
    killed: list[int] = []
    for _ in range(_REAP_ROUNDS):
        orphans = [
            pid for pid, begun in children(os.getpid()).items() if begun >= started and pid not in spared
        ]
        if not orphans:
            break
        for pid in orphans:
            _kill(pid)
        killed.extend(orphans)
    return killed


def start_time(pid: int) -> int:
    """Return when a process started (clock ticks since boot)."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return int(fields[19])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        for _ in range(100):
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(0.001)
    except (ProcessLookupError, ChildProcessError):
        # It ended by itself, or was reaped by whoever started it.
        return
