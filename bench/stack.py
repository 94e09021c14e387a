"""The local stack, driven over HTTP: stale answers after a change, uploads until they are registered, throughput.

Beside it runs a second stack with bench/baseline, which does the same kind of work without checks.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from uuid import uuid4

import httpx

from bench.clock import interleaved, seconds
from bench.figure import Figure, compared, counted, plain
from bench.packages import write_package
from infra.local.stack import LocalStack

AREA = "stack"
BASELINE = Path(__file__).parent / "baseline"
PROCESSES = 4
CHANGES, READERS = 40, 4
UPLOADS, UPLOAD_BYTES = 15, 1_000_000
REQUESTS, ROUNDS = 150, 5
INSTALLS = 20
WAIT_S = 20
POLL_S = 0.002
UNLIMITED = {"HOTPLUG_RATE": "100000", "HOTPLUG_BURST": "100000"}


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with tempfile.TemporaryDirectory(prefix="hotplug-bench-") as made:
        folder = Path(made)
        with (
            LocalStack(
                folder / "ours", api_processes=PROCESSES, environment=UNLIMITED, schedules=False
            ) as stack,
            LocalStack(folder / "base", task_root=BASELINE, schedules=False) as base,
            httpx.Client(
                base_url=f"{stack.url}/api/v1",
                headers={"Authorization": f"Bearer {stack.admin_credential}"},
                timeout=30,
            ) as client,
        ):
            packages = folder / "packages"
            packages.mkdir()
            plugin_id = _install(client, write_package(packages / "reload.zip", "reload", 10_000))
            return [
                *_stale(stack, client, plugin_id),
                *_uploads(stack, base, client, packages),
                *_throughput(stack, base, client, plugin_id, packages),
            ]


def _install(client: httpx.Client, package: Path) -> str:
    with package.open("rb") as file:
        answer = client.post(
            "/plugins/install", data={"source": "local"}, files={"file": (package.name, file)}
        )
    _expect(answer, 201)
    return str(answer.json()["pluginId"])


def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:500]}")


# -- hot reload ----------------------------------------------------------------------------------------------


@dataclass
class _Watch:
    """What readers compare with: the newest generation that a change was acknowledged with."""

    acknowledged: int = 0
    done: bool = False
    answers: int = 0
    stale: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _stale(stack: LocalStack, client: httpx.Client, plugin_id: str) -> list[Figure]:
    watch = _Watch(int(client.get(f"/plugins/{plugin_id}").json()["generation"]))
    with ThreadPoolExecutor(READERS) as readers:
        running = [readers.submit(_watch, client, plugin_id, watch) for _ in range(READERS)]
        try:
            for number in range(CHANGES):
                action = "disable" if number % 2 else "enable"
                answer = client.post(f"/plugins/{plugin_id}/{action}")
                _expect(answer, 200)
                watch.acknowledged = int(answer.json()["generation"])
                time.sleep(0.01)
        finally:
            watch.done = True
        for reader in running:
            reader.result()
    served = sum(environment.served > 0 for environment in stack.environments("api"))
    if served < PROCESSES or watch.answers < CHANGES:
        raise RuntimeError(f"{watch.answers} answers of {served} processes prove nothing")
    name = f"hot reload: stale answers of {PROCESSES} warm processes after an acknowledged change"
    return [
        counted(name, AREA, watch.stale, "answers", 0),
        plain(f"answers that were compared, during {CHANGES} changes", AREA, watch.answers, "answers"),
    ]


def _watch(client: httpx.Client, plugin_id: str, watch: _Watch) -> None:
    while not watch.done:
        # Taken before the request is sent: what was acknowledged by now, every later answer must know.
        known = watch.acknowledged
        answer = client.get(f"/plugins/{plugin_id}")
        _expect(answer, 200)
        with watch.lock:
            watch.answers += 1
            watch.stale += int(answer.json()["generation"]) < known


# -- upload to registered ------------------------------------------------------------------------------------


def _uploads(stack: LocalStack, base: LocalStack, client: httpx.Client, packages: Path) -> list[Figure]:
    numbers = count()
    s3 = base.client("s3")

    def ours() -> float:
        package = write_package(packages / "upload.zip", f"upload-{next(numbers)}", UPLOAD_BYTES)
        content = package.read_bytes()
        order = {
            "source": "local",
            "filename": package.name,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        opened = client.post("/plugins/install", json=order)
        _expect(opened, 202)
        upload = opened.json()["upload"]
        answer = httpx.post(upload["url"], data=upload["fields"], files={"file": content}, timeout=30)
        began = time.perf_counter()
        if not answer.is_success:
            raise RuntimeError(f"S3 answered {answer.status_code}: {answer.text[:300]}")
        return _until(
            stack,
            began,
            "SELECT 1 FROM t_plugin_install WHERE install_id = ? AND state = 'registered'",
            opened.json()["installId"],
        )

    def bare() -> float:
        content = write_package(packages / "bare.zip", "bare", UPLOAD_BYTES).read_bytes()
        key = f"incoming/tasks/{uuid4().hex}.zip"
        s3.put_object(Bucket=base.bucket, Key=key, Body=content)
        return _until(base, time.perf_counter(), "SELECT 1 FROM registered WHERE key = ?", key)

    try:
        readings = interleaved({"ours": ours, "bare": bare}, UPLOADS, warm_up=2)
    finally:
        s3.close()
    return [
        compared(
            "1 MB upload finished until registered, p50 / a consumer that checks nothing",
            AREA, readings["ours"], readings["bare"], "ms", 10, scale=1000,
        ),
        plain("1 MB upload finished until registered, p50", AREA, median(readings["ours"]) * 1000, "ms", 250),
    ]  # fmt: skip


def _until(stack: LocalStack, began: float, query: str, key: str) -> float:
    """Return the seconds since `began` until the query finds its row, looking at the database itself."""
    path = stack.database_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        while connection.execute(query, [key]).fetchone() is None:
            if time.perf_counter() - began > WAIT_S:
                raise RuntimeError(f"{key} was not registered within {WAIT_S} s")
            time.sleep(POLL_S)
        return time.perf_counter() - began
    finally:
        connection.close()


# -- throughput ----------------------------------------------------------------------------------------------


def _throughput(
    stack: LocalStack, base: LocalStack, client: httpx.Client, plugin_id: str, packages: Path
) -> list[Figure]:
    path = f"/api/v1/plugins/{plugin_id}"
    with httpx.Client(base_url=base.url, timeout=30) as bare:

        def get(which: httpx.Client, target: str) -> Callable[[], object]:
            return lambda: _expect(which.get(target), 200)

        readings = interleaved(
            {
                "ours": lambda: seconds(get(client, f"/plugins/{plugin_id}"), REQUESTS),
                "bare": lambda: seconds(get(bare, path), REQUESTS),
            },
            ROUNDS,
        )
    ours, bare_rate = (1 / median(readings[name]) for name in ("ours", "bare"))
    installing = [
        write_package(packages / f"many-{number}.zip", f"many-{number}", 10_000) for number in range(INSTALLS)
    ]
    took = [seconds(lambda package=package: _install(client, package)) for package in installing]  # type: ignore[misc]
    return [
        rate("GET of a plugin, one client after the other", ours, bare_rate),
        plain("installs of 10 KB in one request each", AREA, 1 / median(took), "installs/s"),
    ]


def rate(name: str, ours: float, bare: float) -> Figure:
    """Return requests a second beside the bare endpoint's; more is better, so there is no budget to compare with."""
    return compared(name, AREA, [ours], [bare], "requests/s", None)
