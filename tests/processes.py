"""Processes of their own that start in milliseconds: each is forked from one that has imported what they need, and has
done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.crash.worker", "tests.conftest", "chalicelib.events.migration"])


class Child:
    """A function that runs in a process of its own, with this one's environment, and whose warnings are errors."""

    def __init__(self, target: Callable[..., object], arguments: tuple[object, ...], errors: Path) -> None:
        """Start it; what it writes to its standard error goes to the file `errors`."""
        self._errors = errors
        # How it ended can be read from the fork server once: of two threads that wait, the other is told 255.
        self._waiting = threading.Lock()
        self._process = PROCESSES.Process(
            target=_run, args=(target, arguments, dict(os.environ), str(errors))
        )
        self._process.start()

    def kill(self) -> None:
        """End it by SIGKILL and wait until it has ended."""
        self._process.kill()
        with self._waiting:
            self._process.join()

    def wait(self, seconds: float) -> int:
        """Wait for its end; return 0, or the negative number of the signal that ended it."""
        with self._waiting:
            self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self.kill()
            raise AssertionError(f"the process did not end within {seconds} s")
        assert code <= 0, self._errors.read_text()
        return code


def _run(
    target: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str], errors: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(errors, "wb") as output:
        os.dup2(output.fileno(), 2)
    warnings.simplefilter("error")
    target(*arguments)
