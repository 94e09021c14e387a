"""Runs the move job on a database and ends itself by SIGKILL before its n-th step, as a function is ended anywhere."""

from __future__ import annotations

import os
import signal
import sys

from chalicelib.agents.moves.job import move_jobs
from chalicelib.core import steps
from chalicelib.core.database import DatabaseService
from chalicelib.core.jobs import Runner
from tests.history_rows import place


def main(url: str, declared: str, last: int) -> None:
    """Run until the step of that number."""
    seen = 0

    def kill(operation: str, _step: str) -> None:
        nonlocal seen
        seen += operation == "agent_move"
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.observe(kill)
    database = DatabaseService(url)
    [job, _] = move_jobs(database, lambda _: place(declared))
    Runner(database, deadline_s=120).run(job)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
