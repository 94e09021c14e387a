"""The walls that a child process raises around itself, before it reads a byte of what it runs.

docs/decisions/0010-python-sandbox.md tells what each keeps out.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

MAX_OPEN_FILES = 64
THREAD_STACK_BYTES = 2 * 1024 * 1024
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_M_ARENA_MAX = -8
# linux/landlock.h; the numbers of these calls are the same on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_PATH_BENEATH = 444, 445, 446, 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS_OF_ABI = (0, 13, 14, 15, 15, 16)  # how many file rights each ABI version knows


def hide() -> None:
    """Close `/proc/<pid>/mem` and its neighbours to other plugins of this user, before the configuration comes:
    where there is no Landlock, native code of theirs could read our secrets there."""
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def lock_in(setup: dict[str, Any]) -> str:
    """Give up everything that is not needed; return the plugin's folder as this process can reach it, '' where there
    is none."""
    os.environ.clear()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mallopt(_M_ARENA_MAX, 1)  # an arena per thread would reserve 64 MB of the address space each
    threading.stack_size(THREAD_STACK_BYTES)
    folders = [path for path in sys.path if os.path.isdir(path)]
    if setup["folder"] is not None:
        folders.insert(0, setup["folder"])
    # The wall below closes /proc, its own entry included.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    opened = {path: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in folders}
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    walled = setup["landlock"] and _landlock(libc, [*folders, *setup["readable"]])
    if setup["uid"] is not None:
        os.setgroups([])
        os.setresgid(setup["uid"], setup["uid"], setup["uid"])
        resource.setrlimit(resource.RLIMIT_NPROC, (setup["processes"], setup["processes"]))
        os.setresuid(setup["uid"], setup["uid"], setup["uid"])
    else:
        _limit(resource.RLIMIT_NPROC, setup["processes"])
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != setup["parent"]:
        os._exit(0)
    reached = {path: _reachable(path, descriptor) for path, descriptor in opened.items()}
    sys.path[:] = [reached.get(path, path) for path in sys.path]
    _relocate_packages(reached)
    if not walled:
        sys.addaudithook(_open_only([*folders, *setup["readable"]]))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CPU, setup["cpuSeconds"])
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_AS, _address_space(statm) + setup["memoryBytes"])
    if setup["filter"] is not None:
        _seccomp(libc, base64.b64decode(setup["filter"]))
    return reached.get(setup["folder"], "")


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space(statm: int) -> int:
    pages = int(os.read(statm, 200).split()[0])
    os.close(statm)
    return pages * resource.getpagesize()


def _reachable(path: str, descriptor: int) -> str:
    """Return a path by which this user reaches a folder: where a parent folder is closed to it (an
    interpreter under /root), the descriptor that was opened before."""
    try:
        os.scandir(path).close()
    except PermissionError:
        return f"/proc/self/fd/{descriptor}"
    os.close(descriptor)
    return path


def _relocate_packages(reached: Mapping[str, str]) -> None:
    """Let packages that are loaded already find their submodules by the new paths."""
    moved = {path: target for path, target in reached.items() if path != target}
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):
            for old, new in moved.items():
                places[:] = [new + place[len(old) :] if place.startswith(old) else place for place in places]


def _landlock(libc: ctypes.CDLL, readable: list[str]) -> bool:
    """Allow reading these paths and no other file; False where the kernel has no Landlock."""
    abi = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    handled = (1 << _RIGHTS_OF_ABI[min(abi, 5)]) - 1
    # TCP from ABI 4; abstract sockets and signals to outside from ABI 6. The filter refuses them all anyway.
    attributes = struct.pack("=QQQ", handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0))
    for path in readable:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this system; then there is nothing to read
        rights = _READ_FILE | _EXECUTE | (_READ_DIR if os.path.isdir(path) else 0)
        rule = struct.pack("=Qi", rights, descriptor)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0))
        os.close(descriptor)
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)
    return True


def _open_only(readable: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that refuses to open other paths: what python code can do where there is no
    Landlock. Native code gets around it."""
    roots = tuple(os.path.realpath(path) for path in readable)
    prefixes = tuple(f"{root}/" for root in roots)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir"):
            return
        path = arguments[0]
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path) if path is not None else os.getcwd())
        if real not in roots and not real.startswith(prefixes):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    return hook


def _seccomp(libc: ctypes.CDLL, program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    filled = Program(len(program) // 8, program)
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0))
