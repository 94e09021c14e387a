"""Running a python plugin: one locked-in child process for each loaded instance.

docs/decisions/0010-python-sandbox.md tells what each wall keeps out and what remains possible.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

from chalicelib.plugins.runtime.artifacts import unpack
from chalicelib.plugins.runtime.channel import ChildEnded
from chalicelib.plugins.runtime.faults import (
    Deadline,
    Kind,
    PluginFault,
    check_travels,
    out_of_memory,
    plugin_error,
    result_too_large,
    while_loading,
)
from chalicelib.plugins.runtime.locked_child import LockedChild, Sandbox
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Gateway
from chalicelib.plugins.runtime.request import PluginRef, Request

CLEANUP_MS = 500
"""For `cleanup()`; then the child is killed."""

# What a child says of a load that failed, and the code that goes with it: the code is ours to give, the message may
# be the plugin's.
_LOAD_KINDS: dict[str, tuple[Kind, str]] = {
    "load": ("load", "plugin.load_failed"),
    "refused": ("refused", "plugin.sandbox_unavailable"),
}


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
        self._plugin = plugin
        self._strayed = False
        self._child = LockedChild(lambda folder, group: unpack(archive, folder, group=group))
        try:
            self._load(config, sandbox, deadline, log)
        except ChildEnded:
            raise self._child.crash("load") from None
        except PluginFault as fault:
            raise while_loading(fault) from fault
        finally:
            if sys.exc_info()[0] is not None:
                self.close()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can run; see `LockedChild.alive`."""
        return self._child.alive

    def execute(self, request: Request, gateway: Gateway, deadline: Deadline, log: Log) -> Any:
        """Return the result. After any fault but the plugin's own error the child is gone."""
        turn = secrets.token_hex(8)
        message = {"turn": turn, "action": request.action, "params": request.params}
        message["context"] = dict(request.context)
        keep, self._strayed = False, False
        try:
            self._child.channel.drain(Log())  # of a thread that outlived its execution: another caller's
            self._child.wake()
            self._child.watch(self._plugin.resources.cpu_budget_ms(request.timeout_ms))
            self._child.channel.send(message, deadline, log)
            answer = self._next(turn, deadline, log)
            while "http" in answer:
                asked = answer["http"]
                self._child.channel.send(
                    gateway.call(asked if isinstance(asked, dict) else {}), deadline, log
                )
                answer = self._next(turn, deadline, log)
            if "error" in answer:
                fault = self._fault(answer["error"])
                keep = fault.kind in ("plugin", "output")
                raise fault
            keep = True
            result = answer.get("result")
            check_travels(result, self._child.channel.frame_bytes)
            return result
        except ChildEnded:
            raise self._child.crash("plugin") from None
        finally:
            if keep and not self._strayed:
                self._child.rest()
            else:
                self._child.kill()

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
                self._child.wake()
                self._child.channel.send({"cleanup": True}, deadline, log)
                self._child.wait(deadline)
                self._child.channel.drain(log)
            except (ChildEnded, PluginFault):
                pass  # it is killed below, which is all that a child can be asked for
        self._child.end()

    def _next(self, turn: str, deadline: Deadline, log: Log) -> dict[str, Any]:
        """Return the next frame of this execution.

        A frame of another one is passed over, and its child is not used again: taken for an answer, it would move
        every later answer on by one, and each caller would get the result of the one before.
        """
        while (frame := self._child.channel.receive(deadline, log)).get("turn") != turn:
            self._strayed = True
        return frame

    def _load(self, config: Any, sandbox: Sandbox, deadline: Deadline, log: Log) -> None:
        child = self._child
        child.watch(int(deadline.left() * 1000))
        setup = child.setup(
            sandbox,
            self._plugin.resources.memory_bytes,
            entryPoint=self._plugin.entry_point,
            config=config,
        )
        child.channel.send(setup, deadline, log)
        answer = child.channel.receive(deadline, log)
        if "error" in answer:
            raise self._load_fault(answer["error"])
        child.rest()

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


def _kind(error: Any) -> str:
    return str(error.get("kind")) if isinstance(error, dict) else ""
