"""Run one scenario in a process of its own, writing down every step and every side effect; die at the given one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import event

from chalicelib.core import steps
from chalicelib.core.storage import S3Storage
from tests.crash.scenarios import SCENARIOS, services

CHANGES = ("PutObject", "CopyObject", "DeleteObject", "DeleteObjects", "CreateMultipartUpload", "SendMessage")


def main(name: str, database_url: str, bucket: str, state: str, record: str, kill_at: int) -> None:
    """Run it; `kill_at` counts steps from 0, -1 runs to the end. A line of the file `record` is `step operation.name`,
    `s3 Operation key` or `sql commit`."""
    with Path(record).open("a", buffering=1) as lines:
        work(name, database_url, bucket, json.loads(state), lines, kill_at)


def work(name: str, database_url: str, bucket: str, state: dict[str, Any], lines: Any, left: int) -> None:
    """Run a scenario; `left` steps from now the process dies."""

    def on_step(operation: str, step: str) -> None:
        nonlocal left
        lines.write(f"step {operation}.{step}\n")
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    world = services(database_url, bucket)
    watch_storage(world.storage, lines)
    event.listen(world.database.engine, "commit", lambda connection: watch_commit(connection, lines))
    steps.observe(on_step)
    SCENARIOS[name].run(world, state)


def watch_storage(storage: Any, lines: Any) -> None:
    """Write down each S3 request that changes something, as it is sent."""
    assert isinstance(storage, S3Storage)

    def before_send(request: Any, event_name: str = "", **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        if operation in CHANGES:
            lines.write(f"s3 {operation}\n")

    storage.client.meta.events.register("before-send.s3", before_send)


def watch_commit(connection: Any, lines: Any) -> None:
    """Write down each COMMIT of a unit of work; an AUTOCOMMIT read commits nothing."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        lines.write("sql commit\n")
