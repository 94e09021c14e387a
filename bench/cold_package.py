"""Cold starts of every function as it is deployed: out of the built package, under Lambda's runtime client, until it
asks for its first invocation.

Processor time of the process, as the kernel counts it, with the interpreter's own start: what Lambda's init phase is
spent on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from bench.figure import Figure, compared, plain
from infra.aws import dependencies
from infra.aws.package import build
from infra.functions import Function, function_table
from infra.walkthrough.packaged import Unpacked, unpack

AREA = "cold_package"
ROUNDS, ROUNDS_ANEW = 3, 9
# How many of the slowest are taken anew.
AGAIN = 5
TIMEOUT_S = 60
# It describes the jobs, and so imports all domains; what an admin asks once a day may start half as slow again.
OF_EVERY_DOMAIN = {"maintenance-list_jobs"}
# What any function has to import: the framework, the ORM, and the dialect with its driver.
ALONE = """
from chalice.app import Chalice
import sqlalchemy.orm
sqlalchemy.create_engine("mysql+pymysql://nobody@127.0.0.1/none")
app = Chalice("alone")
"""


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with tempfile.TemporaryDirectory(prefix="hotplug-bench-") as folder:
        package = _package(Path(folder))
        alone = Path(folder) / "alone"
        alone.mkdir()
        (alone / "app.py").write_text(ALONE)
        functions = {one.name: one for one in function_table(per_endpoint=True).functions}
        reads = {
            name
            for name, one in functions.items()
            if one.kind == "api" and set(one.rights) <= {"database"} and name not in OF_EVERY_DOMAIN
        }
        spent = {name: [_of(one, package) for _ in range(ROUNDS)] for name, one in functions.items()}
        # Of so many figures the largest is of a function that was unlucky: the first ones are taken anew.
        slow = {*_slowest(spent, reads, AGAIN), *_slowest(spent, functions, AGAIN)}
        floors: list[float] = []
        anew: dict[str, list[float]] = {name: [] for name in slow}
        for _ in range(ROUNDS_ANEW):
            floors.append(_start(alone, package, "app.app", {}))
            for name, values in anew.items():
                values.append(_of(functions[name], package))
    (read,), (any_of_all,) = _slowest(anew, reads & slow, 1), _slowest(anew, slow, 1)
    middle = median(median(values) for values in spent.values())
    return [
        compared(
            f"cold start out of the package, the slowest of {len(reads)} functions with no right but the database"
            f" ({read}) / the libraries alone",
            AREA, anew[read], floors, "ms", 1.3, scale=1000,
        ),
        compared(
            f"cold start out of the package, the slowest of {len(functions)} functions ({any_of_all}) / the same",
            AREA, anew[any_of_all], floors, "ms", None, scale=1000,
        ),
        plain(
            f"cold start out of the package, the median of {len(functions)} functions", AREA, middle * 1000, "ms"
        ),
    ]  # fmt: skip


def _slowest(spent: Mapping[str, Sequence[float]], names: Iterable[str], most: int) -> list[str]:
    return sorted(names, key=lambda name: median(spent[name]), reverse=True)[:most]


def _package(folder: Path) -> Unpacked:
    """Build what is deployed, for the running interpreter, and unpack it as Lambda does."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    build("dev", dependencies.find_target(running), folder / "built")
    return unpack(folder / "built", folder / "unpacked")


def _of(function: Function, package: Unpacked) -> float:
    settings = {"HOTPLUG_DATABASE_URL": "mysql+pymysql://nobody@127.0.0.1/none"}
    return _start(package.code, package, function.handler, {**settings, **function.environment})


def _start(task_root: Path, package: Unpacked, handler: str, variables: Mapping[str, str]) -> float:
    """Return the processor seconds that a new environment takes until it asks for work."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with _runtime_api() as (port, asked):
        process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            env={
                **inherited,
                **variables,
                **package.variables,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
                "AWS_REGION": "eu-west-1",
                "LAMBDA_TASK_ROOT": str(task_root),
                "_HANDLER": handler,
            },
            cwd=task_root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        has_asked = asked.wait(TIMEOUT_S)
        process.kill()
        # Not `wait`: this one tells what the process has used, to the microsecond.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        if not has_asked:
            raise RuntimeError(f"{handler} {dict(variables)} never asked for work")
        return used.ru_utime + used.ru_stime


@contextmanager
def _runtime_api() -> Iterator[tuple[int, threading.Event]]:
    """A Runtime API that has no work: its port, and what is set once somebody asks."""
    asked, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            over.wait(TIMEOUT_S)

        def do_POST(self) -> None:
            """An init error: nobody will ask."""
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the table is the output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
