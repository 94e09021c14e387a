"""The stack's child processes: each leads a process group, and none outlives the stack."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from infra.local import reaper


class Children:
    """Starts children and tells the reaper process of each, so that they end even when the stack is killed.

    A parent-death signal would not do: it follows the thread that forked, needs code in the child, and does not reach
    the children of a child.
    """

    def __init__(self) -> None:
        self._reaper: asyncio.subprocess.Process | None = None

    async def start(self, lock: int) -> None:
        """Start the reaper; `lock` is the descriptor of the folder's lock, which it holds to the end."""
        self._reaper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(Path(reaper.__file__)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
        )

    async def spawn(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: IO[bytes]
    ) -> asyncio.subprocess.Process:
        """Start a child in a process group of its own; call `ended` when it is gone."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        self._tell(f"+{process.pid}\n")
        return process

    def ended(self, pid: int) -> None:
        """Forget a child: its number may come to name a stranger's process."""
        self._tell(f"-{pid}\n")

    async def close(self) -> None:
        """End the reaper; whatever was not ended by then ends with it."""
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            await self._reaper.wait()

    def _tell(self, line: str) -> None:
        if self._reaper is not None and self._reaper.stdin is not None and self._reaper.returncode is None:
            self._reaper.stdin.write(line.encode())


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
