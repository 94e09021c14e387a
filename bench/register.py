"""Registering a large package: its time beside a download that only hashes, and its peak of memory.

Each registration runs in a process of its own, as in its function, against a real database and an S3 server.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from bench.clock import interleaved
from bench.figure import Figure, added, compared, plain
from bench.packages import MIB, write_package
from chalicelib.apps.models import App
from chalicelib.core.database import DatabaseService
from chalicelib.plugins import installs
from infra.functions import ROOT
from tests import databases
from tests.conftest import create_schema
from tests.http import settings
from tests.ministack import Ministack, running_ministack
from tests.plugin_rows import OWNER, caller

AREA = "register"
# 100 MB, and a little below the 100 MiB that a package may have.
LARGE, SMALL = 100_000_000, 1_000_000
ROUNDS = 3
BUCKET = "bench"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Run:
    """What one process told: seconds of its work, and the bytes it had at most."""

    seconds: float
    peak_bytes: float


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with (
        running_ministack() as server,
        databases.new_database() as url,
        tempfile.TemporaryDirectory(prefix="hotplug-bench-") as folder,
        # A new task asks them for the largest size.
        settings(HOTPLUG_DATABASE_URL=url),
    ):
        server.versioned_bucket(BUCKET)
        database = create_schema(url)
        try:
            database.run(lambda session: session.add(App(id=OWNER, name="Bench", alias_id="owner")))
            return _figures(_Uploads(server, database, Path(folder)))
        finally:
            database.close()


def _figures(uploads: _Uploads) -> list[Figure]:
    peaks: dict[int, list[float]] = {LARGE: [], SMALL: []}

    def register(size: int) -> float:
        run = uploads.run("register", size)
        peaks[size].append(run.peak_bytes)
        return run.seconds

    readings = interleaved(
        {
            "register": lambda: register(LARGE),
            "download": lambda: uploads.run("download", LARGE).seconds,
            "small": lambda: register(SMALL),
        },
        ROUNDS,
        warm_up=0,
    )
    return [
        compared(
            f"register {LARGE // 1_000_000} MB / download and SHA-256 alone",
            AREA, readings["register"], readings["download"], "s", 2,
        ),
        added(
            f"peak memory of registering {LARGE // 1_000_000} MB, above {SMALL // 1_000_000} MB",
            AREA, peaks[LARGE], peaks[SMALL], "MiB", 64, scale=1 / MIB,
        ),
        plain(
            f"register {SMALL // 1_000_000} MB, the first of its process", AREA,
            median(readings["small"]) * 1000, "ms",
        ),
    ]  # fmt: skip


class _Uploads:
    """Uploads packages and lets a process of its own work on each."""

    def __init__(self, server: Ministack, database: DatabaseService, folder: Path) -> None:
        self._server = server
        self._database = database
        self._numbers = count()
        self._environment = {
            **server.environment,
            "HOTPLUG_DATABASE_URL": database.database_url,
            "HOTPLUG_BUCKET": BUCKET,
            "TMPDIR": str(folder),
        }
        self._folder = folder

    def run(self, work: str, size: int) -> Run:
        """Upload a package of about `size` bytes under a new task and return what `work` on it took."""
        package = write_package(self._folder / "upload.zip", f"bench-{next(self._numbers)}", size)
        content = package.read_bytes()
        package.unlink()
        digest = hashlib.sha256(content).hexdigest()
        task = installs.new_task(
            caller(),
            filename="upload.zip",
            size=len(content),
            sha256=digest,
            target=None,
            allow_downgrade=False,
        )
        key = task.object_key
        self._database.run(lambda session: installs.save(session, caller(), installs.copy_of(task)))
        answer = self._server.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        done = subprocess.run(
            [sys.executable, "-m", "bench.register_process", work, key, answer["VersionId"]],
            env={**inherited, **self._environment},
            cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{work} failed:\n{done.stderr}")
        self._forget()
        told = json.loads(done.stdout.splitlines()[-1])
        return Run(told["seconds"], told["peakBytes"])

    def _forget(self) -> None:
        """Remove every object: the server keeps them in memory."""
        s3 = self._server.client("s3")
        for version in s3.list_object_versions(Bucket=BUCKET).get("Versions", ()):
            s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
