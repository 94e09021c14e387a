"""A child process that has locked itself in, and the pipes to it: what runs strangers' Python.

docs/decisions/0010-python-sandbox.md tells what each wall keeps out and what remains possible.
"""

from __future__ import annotations

import base64
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from chalicelib.plugins.runtime import process, seccomp
from chalicelib.plugins.runtime.channel import Channel
from chalicelib.plugins.runtime.faults import Deadline, Kind, PluginFault, cpu_exhausted

CRASH_S = 0.5
"""For a child that has closed its pipe to end."""

LIFETIME_CPU_S = 3_600
"""RLIMIT_CPU of a child: it ends one that nobody watches any more. An execution's own budget is watched from
here."""

MAX_THREADS = 64
FIRST_UID = 60_000
UIDS = 5_000
RUN_FOLDER_PREFIX = "hotplug-run-"

# What the standard library reads outside its own folder: shared libraries, time zones, OpenSSL's defaults.
_SYSTEM_FILES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
)
# Those of `child/`, each after what it imports; `main` is called.
_CHILD_MODULES = ("walls", "frames", "plugin", "code", "main")
_AS_MODULES = """
import sys, types
package = sys.modules[{package!r}] = types.ModuleType({package!r})
for name, source in {sources!r}.items():
    module = types.ModuleType({package!r} + "." + name)
    sys.modules[module.__name__] = module
    setattr(package, name, module)
    exec(compile(source, "<hotplug." + name + ">", "exec"), module.__dict__)
package.main.main(int(sys.argv[1]), int(sys.argv[2]))
"""
_uids = itertools.count(os.getpid() * 8)
_started: set[int] = set()


@dataclass(frozen=True)
class Sandbox:
    """Which walls stand; tests take some away to see that the others hold.

    Parameters
    ----------
    filtered
        The seccomp filter. Without it python is refused, unless the deployment said that it does not care.
    landlock
        The file system wall, where the kernel has it.
    """

    filtered: bool = True
    landlock: bool = True

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Sandbox:
        return cls(filtered=env.get("HOTPLUG_UNSANDBOXED_PYTHON") != "1")


class LockedChild:
    """One process, started but not yet locked in: it does that when it is sent `setup`.

    Parameters
    ----------
    fill
        Puts into a new folder what the child may read, closed to others than the given group; None for a child that
        needs no folder.

    Raises
    ------
    PluginFault
        `plugin.child_failed`, or what `fill` raises; nothing is left behind.
    """

    def __init__(self, fill: Callable[[Path, int | None], None] | None = None) -> None:
        process.harden()
        self._uid = _next_uid() if os.geteuid() == 0 else None
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if fill is not None:
                self._folder = Path(tempfile.mkdtemp(prefix=f"{RUN_FOLDER_PREFIX}{os.getpid()}-"))
                fill(self._folder, self._uid)
            self._process, self.channel = _start()
            self._begun = process.start_time(self._process.pid)
            _started.add(self._process.pid)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether it can run. A child near the end of its processor time is exchanged between executions."""
        if self._process is None or self._process.poll() is not None:
            return False
        return process.cpu_seconds(self._process.pid) < LIFETIME_CPU_S * 0.9

    def setup(self, sandbox: Sandbox, memory_bytes: int, **further: Any) -> dict[str, Any]:
        """Return the first frame that the child is to be sent.

        Parameters
        ----------
        memory_bytes
            Of address space, above what the interpreter itself needs.

        Raises
        ------
        PluginFault
            `plugin.sandbox_unavailable`.
        """
        program: str | None = None
        if sandbox.filtered:
            try:
                program = base64.b64encode(seccomp.assemble(self.pid or 0)).decode("ascii")
            except ValueError as error:
                raise PluginFault("refused", "plugin.sandbox_unavailable", str(error)) from error
        own = process.user_tasks(os.getuid()) if self._uid is None else 0
        libraries = [
            path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")
        ]
        return {
            "folder": None if self._folder is None else str(self._folder),
            "filter": program,
            "landlock": sandbox.landlock,
            "readable": [*_SYSTEM_FILES, *libraries],
            "uid": self._uid,
            "parent": os.getpid(),
            "memoryBytes": memory_bytes,
            "processes": own + MAX_THREADS,
            "cpuSeconds": LIFETIME_CPU_S,
            **further,
        }

    def watch(self, budget_ms: int) -> None:
        """Give what comes now so many milliseconds of processor time.

        Not RLIMIT_CPU: it counts a process's whole life, and a runtime that is root without CAP_SYS_RESOURCE
        may not move it for another user's process.
        """
        pid = self.pid or 0
        limit = process.cpu_seconds(pid) + budget_ms / 1000

        def check() -> None:
            if process.cpu_seconds(pid) > limit:
                raise cpu_exhausted()

        self.channel.watch = check

    def rest(self) -> None:
        """Stop the child until it is needed. A thread of it that ran on would use the processor of whoever comes next,
        and could look on while another plugin's process is being made and is not closed to it yet."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def wait(self, deadline: Deadline) -> None:
        """Wait for it to end."""
        try:
            if self._process is not None:
                self._process.wait(deadline.left())
        except subprocess.TimeoutExpired:
            return

    def kill(self) -> None:
        """End the process and everything that it started."""
        child, self._process = self._process, None
        if child is None:
            return
        child.kill()
        child.wait()
        self.channel.close()
        _started.discard(child.pid)
        process.kill_orphans(self._begun, _started)

    def end(self) -> None:
        """Kill it, and delete its folder."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def crash(self, kind: Kind) -> PluginFault:
        """Return the fault for a child that closed its pipe."""
        code = self._exit_code()
        if code == -signal.SIGXCPU:
            return cpu_exhausted()
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return PluginFault(kind, "plugin.crashed", f"The plugin's process ended: {ended}.")

    def _exit_code(self) -> int:
        if self._process is None:
            return 0
        try:
            return self._process.wait(CRASH_S)
        except subprocess.TimeoutExpired:
            # It closed its pipe and lives on: waiting for it to end would wait beyond every deadline.
            self._process.kill()
            return self._process.wait()


def remove_stale_folders() -> None:
    """Delete the folders of runtime processes that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(RUN_FOLDER_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _program() -> str:
    """Return the modules of `child/` as one text: the child may not be able to read our folder."""
    folder = Path(__file__).with_name("child")
    sources = {name: (folder / f"{name}.py").read_text("utf-8") for name in _CHILD_MODULES}
    return _AS_MODULES.format(package=f"{__package__}.child", sources=sources)


def _start() -> tuple[subprocess.Popen[bytes], Channel]:
    to_child, from_parent = os.pipe(), os.pipe()
    log = os.pipe()
    # Isolated (-I), without site packages (-S).
    command = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-u", "-c", _program()]
    environment = (
        {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if os.environ.get("LD_LIBRARY_PATH") else {}
    )
    try:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and our own source
            [*command, str(to_child[0]), str(from_parent[1])],
            stdin=subprocess.DEVNULL,
            stdout=log[1],
            stderr=log[1],
            pass_fds=(to_child[0], from_parent[1]),
            env=environment,
            cwd="/",
        )
    except OSError as error:
        for descriptor in (to_child[1], from_parent[0], log[0]):
            os.close(descriptor)
        raise PluginFault("internal", "plugin.child_failed", f"No process can be started: {error}") from error
    finally:
        for descriptor in (to_child[0], from_parent[1], log[1]):
            os.close(descriptor)
    return child, Channel(to_child[1], from_parent[0], log[0])


def _next_uid() -> int:
    """Return a user of its own for each child of a root runtime, so that two plugins cannot reach each
    other."""
    return FIRST_UID + next(_uids) % UIDS
