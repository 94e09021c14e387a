"""What a function that serves one endpoint imports: each of these costs 50 to 600 ms of every cold start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.apps.service import ensure_first_admin
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.flows import drafts, publishing
from tests.conftest import create_schema
from tests.flow_rows import graph
from tests.tool_rows import put_apps, put_tool

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "boto3",
    "botocore",
    "wasmtime",
    "cryptography",
    "httpx",
    "httpcore",
    "alembic",
    "jsonschema",
    "python_multipart",
    "aws_lambda_powertools",
    "openapi_spec_validator",
    "mcp",
    "mcp_types",
    "pydantic",
    "httpx2",
)
# Imports the application as Lambda does, sends one request, and tells what has been imported before and after.
PROGRAM = """
import json, os, sys
heavy = json.loads(os.environ["HEAVY"])
import app
before = [name for name in heavy if name in sys.modules]
from tests.http import Client
sent = {"json": json.loads(os.environ["BODY"])} if os.environ["BODY"] else {}
answer = Client(app.app, os.environ["CREDENTIAL"]).request(os.environ["METHOD"], os.environ["TARGET"], **sent)
after = [name for name in heavy if name in sys.modules]
modules = sorted(name for name in sys.modules if name.startswith("chalicelib.api."))
from chalicelib.core.database import Base
configured = any(mapper.configured for mapper in Base.registry.mappers)
tables = sorted({table.split("_")[0] for table in Base.metadata.tables})
told = {"status": answer.status, "before": before, "after": after, "modules": modules, "configured": configured,
        "tables": tables}
print(json.dumps(told))
"""


Target = str | Callable[[DatabaseService], str]


def run_cold(url: str, name: str, method: str, target: Target, body: str = "") -> dict[str, Any]:
    """Return what a process of its own tells that serves one endpoint, once."""
    service = create_schema(url)
    credential = service.run(ensure_first_admin)
    path = target if isinstance(target, str) else target(service)
    service.close()
    environment = {
        "PATH": os.environ["PATH"],
        "HOTPLUG_ENDPOINT": name,
        "HOTPLUG_DATABASE_URL": url,
        "HEAVY": json.dumps(HEAVY),
        "CREDENTIAL": str(credential),
        "METHOD": method,
        "TARGET": path,
        "BODY": body,
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert told["status"] == 200
    return told


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("system.me", "/api/v1/me"),
        ("system.list_audit", "/api/v1/audit?limit=5&objectType=app"),
        ("apps.get_app", "/api/v1/apps/admin"),
    ],
)
def test_a_cold_read_imports_nothing_heavy(sqlite_url: str, name: str, target: str) -> None:
    told = run_cold(sqlite_url, name, "GET", target)
    assert (told["before"], told["after"]) == ([], [])
    module, others = name.partition(".")[0], {"plugins", "plugin_installs", "apps", "system", "maintenance"}
    assert not {f"chalicelib.api.{other}" for other in others - {module}} & set(told["modules"])


def shared_tool(service: DatabaseService) -> str:
    """Register a tool that another app shares, and return where it is read."""
    put_apps(service)
    return f"/api/v1/tools/{quote(put_tool(service, shared=True))}"


def test_a_cold_read_of_a_tool_imports_nothing_heavy_and_configures_no_model(sqlite_url: str) -> None:
    """The first use of one model configures all of them, which costs as much as an import."""
    told = run_cold(sqlite_url, "tools.get_tool", "GET", shared_tool)
    assert (told["before"], told["after"], told["configured"]) == ([], [], False)
    # Those of plugins begin with t_; declaring them would cost twice what the tools' cost.
    assert {"tools", "tool"} <= set(told["tables"])
    assert "t" not in told["tables"]
    others = {
        f"chalicelib.api.{name}"
        for name in ("tool_runs", "tool_credentials", "mcp_servers", "mcp", "plugins")
    }
    assert not others & set(told["modules"])


def published_flow(service: DatabaseService) -> str:
    """Publish a flow of the admin's own app, and return where it is read."""
    with service.reads() as session:
        app_id = session.scalars(select(App.id)).one()
    owner = Caller(app_id, "admin", 1, "admin", "r")
    cache = HotCache(service)
    cache.refresh()
    prepared = drafts.prepare(cache, owner, graph(), None)
    flow_id = service.run(lambda session: drafts.create(session, owner, "Greeter", "", prepared).id)
    valid = publishing.check_draft(service, cache, owner, flow_id)
    service.run(
        lambda session: publishing.publish(session, owner, flow_id, publishing.Wanted("v1", 1), valid)
    )
    return f"/api/v1/flows/{flow_id}"


@pytest.mark.parametrize(
    ("name", "part"), [("flows.get_flow", ""), ("flow_versions.get_published_flow", "/published")]
)
def test_a_cold_read_of_a_flow_imports_nothing_heavy_and_configures_no_model(
    sqlite_url: str, name: str, part: str
) -> None:
    told = run_cold(sqlite_url, name, "GET", lambda service: published_flow(service) + part)
    assert (told["before"], told["after"], told["configured"]) == ([], [], False)
    assert {"flow", "license"} <= set(told["tables"])
    assert not {"t", "tool", "tools"} & set(told["tables"])


def test_a_cold_mcp_server_imports_its_log_and_no_sdk(sqlite_url: str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    told = run_cold(sqlite_url, "mcp.call_mcp", "POST", "/api/v1/mcp", body)
    # powertools asks for botocore's version, which costs half a millisecond; boto3 is what costs.
    assert (told["before"], told["after"]) == ([], ["botocore", "aws_lambda_powertools"])
