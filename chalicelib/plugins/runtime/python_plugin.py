"""Running a python plugin: one locked-in child process for each loaded instance.

docs/decisions/0010-python-sandbox.md tells what each wall keeps out and what remains possible.
"""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.plugins.runtime import process, seccomp
from chalicelib.plugins.runtime.artifacts import unpack
from chalicelib.plugins.runtime.channel import Channel, ChildEnded
from chalicelib.plugins.runtime.faults import (
    Deadline,
    Kind,
    PluginFault,
    check_travels,
    cpu_exhausted,
    out_of_memory,
    plugin_error,
    result_too_large,
    while_loading,
)
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Gateway
from chalicelib.plugins.runtime.request import PluginRef, Request

CLEANUP_MS = 500
"""For `cleanup()`; then the child is killed."""

CRASH_S = 0.5
"""For a child that has closed its pipe to end."""

LIFETIME_CPU_S = 3_600
"""RLIMIT_CPU of a child: it ends one that nobody watches any more. An execution's own budget is watched from
here."""

MAX_THREADS = 64
FIRST_UID = 60_000
UIDS = 5_000
RUN_FOLDER_PREFIX = "hotplug-run-"

# What a child says of a load that failed, and the code that goes with it: the code is ours to give, the message may
# be the plugin's.
_LOAD_KINDS: dict[str, tuple[Kind, str]] = {
    "load": ("load", "plugin.load_failed"),
    "refused": ("refused", "plugin.sandbox_unavailable"),
}
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
_uids = itertools.count(os.getpid() * 8)
_started: set[int] = set()


@dataclass(frozen=True)
class Sandbox:
    """Which walls stand; tests take some away to see that the others hold.

    Parameters
    ----------
    filtered
        The seccomp filter. Without it python plugins are refused, unless the deployment said that it does
        not care.
    landlock
        The file system wall, where the kernel has it.
    """

    filtered: bool = True
    landlock: bool = True

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Sandbox:
        return cls(filtered=env.get("HOTPLUG_UNSANDBOXED_PYTHON") != "1")


class PythonPlugin:
    """One child process with one plugin, initialised with one configuration.

    Parameters
    ----------
    plugin
        What to run, and its limits.
    archive
        The verified zip.
    config
        Handed to `init`.
    sandbox
        Which walls to build.
    deadline
        Of the load.
    log
        Takes what the plugin writes while it loads.

    Raises
    ------
    PluginFault
        Of kind `load`, `refused`, `memory` or `timeout`; nothing is left behind.
    """

    def __init__(
        self, plugin: PluginRef, archive: Path, config: Any, sandbox: Sandbox, deadline: Deadline, log: Log
    ) -> None:
        process.harden()
        self._plugin = plugin
        self._uid = _next_uid() if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix=f"{RUN_FOLDER_PREFIX}{os.getpid()}-"))
        self._child: subprocess.Popen[bytes] | None = None
        self._strayed = False
        try:
            unpack(archive, self._folder, group=self._uid)
            self._child, self._channel = _start()
            self._begun = process.start_time(self._child.pid)
            _started.add(self._child.pid)
            self._channel.watch = self._watch(int(deadline.left() * 1000))
            self._channel.send(self._setup(config, sandbox), deadline, log)
            answer = self._channel.receive(deadline, log)
            if "error" in answer:
                raise self._load_fault(answer["error"])
            self._rest()
        except ChildEnded:
            raise self._crash("load") from None
        except PluginFault as fault:
            raise while_loading(fault) from fault
        finally:
            if sys.exc_info()[0] is not None:
                self.close()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def alive(self) -> bool:
        """Whether it can run. A child near the end of its processor time is exchanged between executions."""
        if self._child is None or self._child.poll() is not None:
            return False
        return process.cpu_seconds(self._child.pid) < LIFETIME_CPU_S * 0.9

    def execute(self, request: Request, gateway: Gateway, deadline: Deadline, log: Log) -> Any:
        """Return the result. After any fault but the plugin's own error the child is gone."""
        turn = secrets.token_hex(8)
        message = {"turn": turn, "action": request.action, "params": request.params}
        message["context"] = dict(request.context)
        keep, self._strayed = False, False
        try:
            self._channel.drain(Log())  # of a thread that outlived its execution: another caller's
            self._wake()
            self._channel.watch = self._watch(self._plugin.resources.cpu_budget_ms(request.timeout_ms))
            self._channel.send(message, deadline, log)
            answer = self._next(turn, deadline, log)
            while "http" in answer:
                asked = answer["http"]
                self._channel.send(gateway.call(asked if isinstance(asked, dict) else {}), deadline, log)
                answer = self._next(turn, deadline, log)
            if "error" in answer:
                fault = self._fault(answer["error"])
                keep = fault.kind in ("plugin", "output")
                raise fault
            keep = True
            result = answer.get("result")
            check_travels(result, self._channel.frame_bytes)
            return result
        except ChildEnded:
            raise self._crash("plugin") from None
        finally:
            if keep and not self._strayed:
                self._rest()
            else:
                self._kill()

    def close(self, log: Log | None = None) -> None:
        """Run `cleanup()`, end the process and everything that it started, and delete its folder.

        Parameters
        ----------
        log
            Takes what `cleanup()` writes; forgotten where there is none, for no caller waits for it.
        """
        log = log or Log()
        if self.alive:
            try:
                deadline = Deadline.after(CLEANUP_MS)
                self._wake()
                self._channel.send({"cleanup": True}, deadline, log)
                self._wait(deadline)
                self._channel.drain(log)
            except (ChildEnded, PluginFault):
                pass  # it is killed below, which is all that a child can be asked for
        self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self, turn: str, deadline: Deadline, log: Log) -> dict[str, Any]:
        """Return the next frame of this execution.

        A frame of another one is passed over, and its child is not used again: taken for an answer, it would move
        every later answer on by one, and each caller would get the result of the one before.
        """
        while (frame := self._channel.receive(deadline, log)).get("turn") != turn:
            self._strayed = True
        return frame

    def _rest(self) -> None:
        """Stop the child until it is needed. A thread of it that ran on would use the processor of whoever comes next,
        and could look on while another plugin's process is being made and is not closed to it yet."""
        if self._child is not None:
            self._child.send_signal(signal.SIGSTOP)

    def _wake(self) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)

    def _wait(self, deadline: Deadline) -> None:
        try:
            if self._child is not None:
                self._child.wait(deadline.left())
        except subprocess.TimeoutExpired:
            return

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        self._channel.close()
        _started.discard(child.pid)
        process.kill_orphans(self._begun, _started)

    def _setup(self, config: Any, sandbox: Sandbox) -> dict[str, Any]:
        pid = self._child.pid if self._child else 0
        program: str | None = None
        if sandbox.filtered:
            try:
                program = base64.b64encode(seccomp.assemble(pid)).decode("ascii")
            except ValueError as error:
                raise PluginFault("refused", "plugin.sandbox_unavailable", str(error)) from error
        own = process.user_tasks(os.getuid()) if self._uid is None else 0
        libraries = [
            path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")
        ]
        return {
            "folder": str(self._folder),
            "entryPoint": self._plugin.entry_point,
            "config": config,
            "filter": program,
            "landlock": sandbox.landlock,
            "readable": [*_SYSTEM_FILES, *libraries],
            "uid": self._uid,
            "parent": os.getpid(),
            "memoryBytes": self._plugin.resources.memory_bytes,
            "processes": own + MAX_THREADS,
            "cpuSeconds": LIFETIME_CPU_S,
        }

    def _watch(self, budget_ms: int) -> Callable[[], None]:
        """Return a check of the processor time that one execution may use.

        Not RLIMIT_CPU: it counts a process's whole life, and a runtime that is root without CAP_SYS_RESOURCE
        may not move it for another user's process.
        """
        pid = self._child.pid if self._child else 0
        limit = process.cpu_seconds(pid) + budget_ms / 1000

        def check() -> None:
            if process.cpu_seconds(pid) > limit:
                raise cpu_exhausted()

        return check

    def _fault(self, error: Any) -> PluginFault:
        """Return the fault for an error that came over the pipe. The plugin may have written it: of what is not its own
        error only the kind is taken."""
        kind = _kind(error)
        if kind == "output":
            return result_too_large()
        if kind == "memory":
            return out_of_memory(self._plugin.resources.memory_bytes)
        return plugin_error(error)

    def _load_fault(self, error: Any) -> PluginFault:
        known = _LOAD_KINDS.get(_kind(error))
        if known is None:
            return self._fault(error)
        return PluginFault(*known, plugin_error(error).detail)

    def _exit_code(self) -> int:
        if self._child is None:
            return 0
        try:
            return self._child.wait(CRASH_S)
        except subprocess.TimeoutExpired:
            # It closed its pipe and lives on: waiting for it to end would wait beyond every deadline.
            self._child.kill()
            return self._child.wait()

    def _crash(self, kind: Kind) -> PluginFault:
        code = self._exit_code()
        if code == -signal.SIGXCPU:
            return cpu_exhausted()
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return PluginFault(kind, "plugin.crashed", f"The plugin's process ended: {ended}.")


def remove_stale_folders() -> None:
    """Delete the folders of runtime processes that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(RUN_FOLDER_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(folder, ignore_errors=True)


def _start() -> tuple[subprocess.Popen[bytes], Channel]:
    to_child, from_parent = os.pipe(), os.pipe()
    log = os.pipe()
    source = Path(__file__).with_name("child.py").read_text("utf-8")
    # Isolated (-I), without site packages (-S), its source as text: the child may not be able to read our
    # folder.
    command = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-u", "-c", source]
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


def _kind(error: Any) -> str:
    return str(error.get("kind")) if isinstance(error, dict) else ""
