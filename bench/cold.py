"""Cold starts: a new process, bytecode present as the package ships it, until the endpoint can take a request.

Processor time, not time of day: nothing here waits for anything worth mentioning, and what else runs on the machine
counts less.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.clock import interleaved
from bench.figure import Figure, compared, plain
from bench.gateway_event import PLUGIN, gateway_event
from bench.machine import silence
from infra.functions import ROOT
from tests import databases
from tests.http import deployed
from tests.plugin_rows import put_plugin
from tests.tool_documents import document

AREA = "cold"
ROUNDS = 9
TIMEOUT_S = 60

# What any function on this stack has to import: the framework, the ORM, and the dialect with its driver.
ALONE = """
import time; began = time.process_time()
from chalice.app import Chalice
import sqlalchemy.orm
sqlalchemy.create_engine("mysql+pymysql://nobody@127.0.0.1/none")
print(time.process_time() - began)
"""
OURS = """
import time; began = time.process_time()
import app
from chalicelib.core import process
process.database()
print(time.process_time() - began)
"""
FIRST = """
import time; began = time.process_time()
import app, json, os, sys
event = json.loads(os.environ["BENCH_EVENT"])
out, sys.stdout = sys.stdout, open(os.devnull, "w")
answer = app.app(event, None)
assert answer["statusCode"] == 200, answer
print(time.process_time() - began, file=out)
"""


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with tempfile.TemporaryDirectory(prefix="hotplug-bench-") as folder, databases.new_database() as url:
        tree = _package(Path(folder))
        with deployed(url) as deployment, silence():
            from chalicelib.core import process

            plugin_id = put_plugin(
                process.database(), app_id=int(deployment.client.get("/api/v1/me").json["appId"])
            )
            event = gateway_event("GET", PLUGIN, {"pluginId": plugin_id}, credential=deployment.admin)
            made = deployment.client.post("/api/v1/tools", {"name": "Pets", "openapi": document()}).json
            read = gateway_event(
                "GET", "/api/v1/tools/{toolId}", {"toolId": made["toolId"]}, credential=deployment.admin
            )
        one = {
            "HOTPLUG_ENDPOINT": "plugins.get_plugin",
            "HOTPLUG_DATABASE_URL": url,
            "BENCH_EVENT": json.dumps(event),
        }
        tool = {**one, "HOTPLUG_ENDPOINT": "tools.get_tool", "BENCH_EVENT": json.dumps(read)}
        every = {**one, "HOTPLUG_ENDPOINT": "all"}
        readings = interleaved(
            {
                "alone": lambda: _run(tree, ALONE, {}),
                "ours": lambda: _run(tree, OURS, one),
                "first": lambda: _run(tree, FIRST, one),
                "tool": lambda: _run(tree, OURS, tool),
                "first of tool": lambda: _run(tree, FIRST, tool),
                "all": lambda: _run(tree, OURS, every),
            },
            ROUNDS,
        )
    alone = readings["alone"]
    return [
        compared(
            "cold start of GET plugin, imports and engine / Chalice, SQLAlchemy and PyMySQL alone",
            AREA, readings["ours"], alone, "ms", 1.3, scale=1000,
        ),
        compared(
            "cold start of GET plugin, until its first answer / the same libraries alone",
            AREA, readings["first"], alone, "ms", 1.3, scale=1000,
        ),
        compared(
            "cold start of GET tool, imports and engine / the same libraries alone",
            AREA, readings["tool"], alone, "ms", 1.3, scale=1000,
        ),
        compared(
            "cold start of GET tool, until its first answer / the same libraries alone",
            AREA, readings["first of tool"], alone, "ms", 1.3, scale=1000,
        ),
        plain(
            "cold start of all endpoints in one function, imports and engine",
            AREA, median(readings["all"]) * 1000, "ms",
        ),
    ]  # fmt: skip


def _package(folder: Path) -> Path:
    """Copy what is deployed, with its bytecode, away from whoever edits the sources meanwhile."""
    for name in ("app.py", "chalicelib"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return folder


def _run(tree: Path, source: str, environment: dict[str, str]) -> float:
    """Return what a new interpreter printed: processor seconds since its first statement, without its own start."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**inherited, **environment, "PYTHONPATH": str(tree)},
        cwd=tree, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the process failed:\n{done.stderr}")
    return float(done.stdout)
