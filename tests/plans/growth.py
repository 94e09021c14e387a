"""A deployment that has been used for a while: some thousand rows in every table that grows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text, update

from chalicelib.agents.models import CANCELLED, AgentMove
from chalicelib.agents.shared.models import SharedConversationHistory
from chalicelib.apps.models import App, AppCredential
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.database import Base, DatabaseService
from chalicelib.core.idempotency_record import IdempotencyRecord
from chalicelib.core.ids import id_at, new_ulid, ulid_at
from chalicelib.core.instances import Instance
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.master_keys import MasterKey, masters
from chalicelib.core.outbound.circuit_record import CircuitBreaker
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.history.models import NodeHistory
from chalicelib.flows.models import Flow, License
from chalicelib.flows.runs.models import FlowRun, FlowRunData, FlowRunEvent, FlowRunNode
from chalicelib.flows.variables.models import FlowVariable
from chalicelib.flows.variables.service import Scope
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import PluginDependency, PluginInstall, PluginTombstone
from chalicelib.plugins.models import ENABLED, Plugin, PluginHistory, PluginVersion
from chalicelib.plugins.run_models import PluginExecution, PluginMetric
from chalicelib.tools.models import (
    SERVER,
    TOOL,
    ToolCredential,
    ToolDocument,
    ToolExecution,
    ToolMeta,
    ToolSchema,
)
from tests.tool_documents import document

ROWS = 4000
APPS = 200
# Every tenth plugin is the busy app's, every tenth is shared.
SHARE = 10
FIRST_APP = 1000
# What has been there for so long that maintenance takes it away.
OLD_SHARE = 20
GROWING: tuple[type[Base], ...] = (
    AgentMove, App, AppCredential, AuditLog, CacheChange, CircuitBreaker, DataKey, Flow, FlowRun, FlowRunData,
    FlowRunEvent, FlowRunNode, FlowVariable, IdempotencyRecord, Instance, License, NodeHistory, Plugin,
    PluginConfig, PluginDependency, PluginExecution, PluginHistory, PluginInstall, PluginMetric, PluginTombstone,
    PluginVersion, SharedConversationHistory, ToolCredential, ToolDocument, ToolExecution, ToolMeta, ToolSchema,
)  # fmt: skip
NAMES = frozenset(model.__tablename__ for model in GROWING)
Rows = Iterator[dict[str, Any]]


def fill(database: DatabaseService, busy: int, former: MasterKey) -> None:
    """Add the rows, and let the server look at them.

    Parameters
    ----------
    busy
        Id of the app that owns a tenth of everything.
    former
        The master key that wrapped what is old.
    """
    now = datetime.now(UTC)
    made: dict[type[Base], Rows] = {
        App: _apps(),
        AppCredential: _credentials(),
        DataKey: _data_keys(former),
        Plugin: _plugins(busy),
        PluginVersion: _versions(),
        PluginConfig: _configs(busy),
        PluginInstall: _installs(busy, now),
        PluginDependency: (
            {"plugin_id": plugin_id(i), "name": f"p{i // 2}", "range": "*"} for i in range(ROWS)
        ),
        PluginTombstone: (
            {"app_id": _owner(i, busy), "name": f"p{i}", "version": "1.0.0", "checksum": "ab" * 32}
            for i in range(ROWS)
        ),
        PluginHistory: _history(busy),
        PluginExecution: _executions(busy, now),
        PluginMetric: _metrics(busy, now),
        AuditLog: _audit(busy),
        CacheChange: ({"scope": "tools", "version": i + 1, "item_key": f"t{i}"} for i in range(ROWS)),
        CircuitBreaker: _breakers(busy, now),
        IdempotencyRecord: _idempotency(now),
        Instance: _instances(now),
        ToolMeta: _tools(busy, now),
        ToolSchema: _tool_versions(busy, now),
        ToolDocument: _tool_documents(),
        ToolCredential: _tool_credentials(busy),
        ToolExecution: _tool_executions(busy, now),
        AgentMove: _moves(now),
        SharedConversationHistory: _messages(busy, now),
        Flow: _flows(busy),
        License: _licenses(busy),
        NodeHistory: _turns(busy, now),
        FlowVariable: _variables(busy, now),
        FlowRun: _runs(busy, now),
        FlowRunNode: _run_nodes(now),
        FlowRunEvent: _run_events(now),
        FlowRunData: _run_data(now),
    }
    assert set(made) == set(GROWING)
    with database.connection() as connection:
        for model, rows in made.items():
            connection.execute(insert(model), list(rows))
        newest = update(CacheVersion).where(CacheVersion.scope == "tools").values(version=12_000)
        connection.execute(newest)
        for name in sorted(NAMES):
            # Whole tables: a sample of a small table would lead to another plan each time.
            connection.execute(text(f"ALTER TABLE {name} STATS_SAMPLE_PAGES = 10000"))
            connection.execute(text(f"ANALYZE TABLE {name}")).all()


def plugin_id(number: int) -> str:
    """Return the id of one of the plugins; number 0 is the busy app's."""
    return f"plugin_p{number}_aaaaaa"


def tool_id(number: int) -> str:
    """Return the id of one of the tools; number 0 is the busy app's. Every fourth of an app is an MCP server."""
    return f"{'mcp' if number // SHARE % 4 == 3 else 'tool'}@p{number}"


def flow_id(number: int) -> int:
    """Return the id of one of the flows; number 0 is the busy app's, and has two hundred versions and licences."""
    return 1_000_000 + number


def _owner(number: int, busy: int) -> int:
    return busy if number % SHARE == 0 else FIRST_APP + number % APPS


def _apps() -> Rows:
    for i in range(APPS * SHARE):
        yield {"id": FIRST_APP + i, "name": f"App {i}", "alias_id": f"app-{i}"}


def _data_keys(former: MasterKey) -> Rows:
    for i in range(ROWS):
        app_id, master = FIRST_APP + i, masters().current if i % OLD_SHARE else former
        yield {
            "app_id": app_id,
            "key_version": 1,
            "wrapped": master.wrap(app_id, b"k" * 32),
            "wrapped_by": master.name,
        }


def _credentials() -> Rows:
    roles = ("viewer", "caller", "caller", "publisher")
    for i in range(ROWS):
        app_id = FIRST_APP + i % (APPS * SHARE)
        # A few admins among many: every app has one at most.
        role = "admin" if i % 40 == 0 else roles[i % 4]
        yield {"app_id": app_id, "api_key": f"key{i}", "secret_hash": os.urandom(32), "role": role}


def _manifest(number: int, version: str) -> dict[str, Any]:
    return {"name": f"p{number}", "version": version, "pluginType": "custom", "entryPoint": "main.py"}


def _plugins(busy: int) -> Rows:
    for i in range(ROWS):
        yield {
            "plugin_id": plugin_id(i), "app_id": _owner(i, busy), "name": f"p{i}", "version": "1.0.0",
            "visibility": "shared" if i % SHARE == 1 else "private", "description": f"Number {i} of many",
            "plugin_type": ("custom", "notify", "build", "deploy")[i // SHARE % 4], "entry_point": "main.py",
            "source": "local" if i % 7 else "s3", "is_enabled": ENABLED if i % 3 == 0 else 0,
            "checksum": "ab" * 32, "s3_path": f"plugins/{plugin_id(i)}/1.0.0/x.zip", "s3_version": "v1",
            "manifest": _manifest(i, "1.0.0"), "default_config": {}, "runtime": "python",
        }  # fmt: skip


def _versions() -> Rows:
    # Each plugin's active one; a few plugins have more than are kept.
    numbers = [(i, "1.0.0") for i in range(ROWS)] + [
        (i, f"0.{n}.0") for i in range(0, 400, 10) for n in range(20)
    ]
    for i, version in numbers:
        compiled = f"{i:064x}"
        yield {
            "plugin_id": plugin_id(i), "version": version, "checksum": "ab" * 32, "size": 10,
            "s3_path": f"plugins/{plugin_id(i)}/{version}/x.zip", "s3_version": "v1",
            "manifest": _manifest(i, version), "runtime": "python", "wasm_sha256": compiled,
            "compiled_path": f"compiled/{compiled}/engine.cwasm", "compiled_version": "v1",
        }  # fmt: skip


def _configs(busy: int) -> Rows:
    for i in range(ROWS):
        # Every twentieth belongs to one plugin, which many subjects have configured.
        target = 0 if i % 20 == 0 else i
        app_id = _owner(0 if i % 20 == 0 else i, busy)
        yield {
            "plugin_id": plugin_id(target), "app_id": app_id, "name": f"c{i}",
            "config_items": {"values": {"a": 1}, "secrets": {}}, "scope": "user",
            "scope_id": f"{app_id}:user{i}", "is_default": 1,
        }  # fmt: skip


def _installs(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        state = "registered"
        if i % OLD_SHARE == 0:
            state = ("awaiting_upload", "verifying", "failed", "rejected")[i // OLD_SHARE % 4]
        install_id = new_ulid()
        old = now - timedelta(hours=2)
        yield {
            "install_id": install_id, "app_id": _owner(i, busy), "source": "local", "filename": "x.zip",
            "object_key": f"incoming/tasks/{install_id}.zip", "object_version": "v1" if i % 3 else "",
            "state": state, "upload_expires_at": old, "created_at": old, "updated_at": old,
            "lease_until": old if i % 5 == 0 else None,
        }  # fmt: skip


def _history(busy: int) -> Rows:
    for i in range(ROWS):
        target = 0 if i % 20 == 0 else i
        yield {
            "plugin_id": plugin_id(target), "app_id": _owner(target, busy), "action": "update", "version": "1.0.0",
            "from_version": "0.9.0" if i % 2 else None, "outcome": "success",
        }  # fmt: skip


def _executions(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        target = 0 if i % 20 == 0 else i
        days = 45 if i % OLD_SHARE == 3 else 3
        yield {
            "plugin_id": plugin_id(target), "app_id": _owner(target, busy), "version": "1.0.0", "action": "execute",
            "outcome": "failed" if i % 9 == 0 else "success", "duration_us": 1000,
            "started_at": now - timedelta(days=days, seconds=i),
        }  # fmt: skip


def _metrics(busy: int, now: datetime) -> Rows:
    minute = int(now.timestamp()) // 60
    for i in range(ROWS):
        target = 0 if i % 20 == 0 else i
        old = 45 * 1440 if i % OLD_SHARE == 3 else 0
        yield {
            "plugin_id": plugin_id(target), "app_id": _owner(target, busy), "version": "1.0.0",
            "minute": minute - old - i % 4000, "bucket": i % 10, "executions": 1, "last_at": now,
            "last_error": "broke" if i % 6 == 0 else None, "last_error_at": now if i % 6 == 0 else None,
        }  # fmt: skip


def _audit(busy: int) -> Rows:
    actions = ("plugin.install", "plugin.update", "plugin.enable", "app.create", "credential.create")
    for i in range(ROWS):
        yield {
            "app_id": _owner(i, busy), "credential_id": 1, "action": actions[i % 5], "request_id": f"r{i}",
            "object_type": ("plugin", "app", "credential", "install")[i % 4], "object_id": plugin_id(i // 5),
        }  # fmt: skip


def _breakers(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        age = timedelta(days=3) if i % OLD_SHARE == 0 else timedelta(minutes=i % 60)
        yield {
            "app_id": _owner(i, busy), "host": f"h{i}.example:443", "state": "closed", "revision": 3,
            "failures": 0, "updated_at": now - age,
        }  # fmt: skip


def _idempotency(now: datetime) -> Rows:
    for i in range(ROWS):
        hours = -3 if i % OLD_SHARE == 3 else 20
        yield {
            "id": f"key-{i}", "status": "COMPLETED", "owner": "a" * 32, "payload_hash": "b" * 64,
            "expires_at": int((now + timedelta(hours=hours)).timestamp()),
        }  # fmt: skip


def _instances(now: datetime) -> Rows:
    for i in range(ROWS):
        hours = 2 if i % OLD_SHARE == 3 else 0
        yield {
            "instance_id": f"{i:032x}", "function": "api", "versions": {"apps": 1}, "loaded": [],
            "seen_at": now - timedelta(hours=hours),
        }  # fmt: skip


def _is_gone(number: int) -> bool:
    return number % OLD_SHARE == 3


def _tools(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        yield {
            "tool_id": tool_id(i), "id": i + 1, "app_id": _owner(i, busy),
            "kind": SERVER if tool_id(i).startswith("mcp") else TOOL,
            "visibility": "shared" if i % SHARE == 1 else "private", "latest_id": None if _is_gone(i) else i + 1,
            "is_deleted": i + 1 if _is_gone(i) else 0, "created_at": now, "updated_at": now,
        }  # fmt: skip


def _tool_versions(busy: int, now: datetime) -> Rows:
    text = json.dumps(document())
    # Each tool's newest; the busy one has as many versions as a tool may have, and was tidied up now and then.
    versions = [(i + 1, i, "V1.0", _is_gone(i)) for i in range(ROWS)]
    versions += [(ROWS + n, 0, f"V0.{n}", n > 90) for n in range(1, 200)]
    for row_id, i, version, gone in versions:
        is_server = tool_id(i).startswith("mcp")
        # A few of what is deleted has been so for long.
        at = now - timedelta(days=100 if gone and row_id % 10 == 4 else 3)
        yield {
            "id": row_id, "app_id": str(_owner(i, busy)), "tool_id": tool_id(i), "name": f"Tool {i}",
            "description": f"Number {i} of many", "open_api_schema": None if is_server else text,
            "mcp_server_url": "https://mcp.example/mcp" if is_server else None,
            "schema": {"tools": []} if is_server else None, "version": version,
            "is_deleted": row_id if gone else 0, "create_at": at, "update_at": at,
        }  # fmt: skip


def _tool_documents() -> Rows:
    operation = {"operationId": "getPet", "method": "GET", "path": "/pets/{petId}", "summary": "One pet"}
    for i in range(ROWS + 200):
        if i < ROWS and tool_id(i).startswith("mcp"):
            continue
        yield {
            "schema_id": i + 1, "tool_id": tool_id(i if i < ROWS else 0), "security_schemes": [], "size": 700,
            "operations": [{**operation, "deprecated": False, "tags": []}], "origins": ["https://api.example:443"],
            "checksum": f"{i:064x}",
        }  # fmt: skip


def _tool_credentials(busy: int) -> Rows:
    for i in range(ROWS):
        # Every twentieth is for one tool, which many apps call.
        target = 1 if i % 20 == 0 else i
        app_id = FIRST_APP + i if i % 20 == 0 else _owner(i, busy)
        yield {
            "app_id": app_id, "tool_id": tool_id(target), "scheme": "key", "kind": "apiKey", "ciphertext": "x",
        }  # fmt: skip


def _tool_executions(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        target = 0 if i % 20 == 0 else i
        days = 45 if i % OLD_SHARE == 3 else 3
        yield {
            "tool_id": tool_id(target), "app_id": _owner(target, busy), "version": "V1.0", "operation": "getPet",
            "outcome": "failed" if i % 9 == 0 else "success", "duration_us": 1000,
            "started_at": now - timedelta(days=days, seconds=i),
        }  # fmt: skip


def thread_id(number: int) -> str:
    """Return the id of one of the threads with the agent cmdb; number 0 is the busy app's, and has a tenth of all."""
    return f"thread-{number:05}"


def _messages(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        thread = 0 if i % SHARE == 0 else i // 10
        yield {
            "app_id": _owner(0 if i % SHARE == 0 else i, busy), "agent_name": "cmdb" if i % 3 else "other",
            "thread_id": thread_id(thread), "role": "user", "content": "hello",
            "created_at": now - timedelta(days=30, seconds=ROWS - i),
        }  # fmt: skip


def _moves(now: datetime) -> Rows:
    for i in range(ROWS):
        yield {
            "agent_name": "common_qa" if i % 2 else f"gone{i % 7}", "target": "shared", "state": CANCELLED,
            "source_table": "agentflow_a", "target_table": "agentflow_b", "keep_days": 7, "created_by": 1,
            "finished_at": now,
        }  # fmt: skip


def _flows(busy: int) -> Rows:
    drafts = [(i, "") for i in range(ROWS)]
    versions = [(i, "v1") for i in range(1, ROWS, 2)] + [(0, f"v{n}") for n in range(1, 201)]
    for row_id, (i, version) in enumerate(drafts + versions, flow_id(0)):
        yield {
            "id": row_id, "group_id": flow_id(i), "app_id": str(_owner(i, busy)), "name": f"Flow {i}",
            "version": version, "version_key": version_key(version) if version else "",
            "data": None if version else '{"nodes":[],"edges":[]}', "checksum": "ab" * 32,
            "release_data": '{"nodes":[],"edges":[]}' if version else None,
            # Most of what was ever published was taken off since; of the busy one nothing was.
            "release_status": (2, 1)[i == 0 or row_id % 10 == 0] if version else 0,
            "is_deleted": 0 if version else int(i % OLD_SHARE == 3),
        }  # fmt: skip


def _licenses(busy: int) -> Rows:
    for i in range(1, ROWS):
        yield {"app_id": _owner(i, busy), "group_id": flow_id(i)}
    for i in range(200):
        yield {"app_id": FIRST_APP + i, "group_id": flow_id(0)}


def chat(number: int, busy: int) -> Scope:
    """Return one of the conversations with flows; number 0 is the busy app's, and has a tenth of all turns."""
    return Scope(_owner(number, busy), flow_id(number), f"person {number % 50}", f"chat {number}")


def _turns(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        whose = chat(0 if i % SHARE == 0 else i // 4, busy)
        at = now - timedelta(days=100 if i % OLD_SHARE == 3 else 3, seconds=ROWS - i)
        yield {
            "id": id_at(at) + i, "app_id": whose.app_id, "flow_id": str(whose.flow_id), "uid": whose.uid,
            "chat_id": whose.chat_id, "node_id": f"llm::{i // SHARE % 40}", "raw_question": f"question {i}",
            "raw_answer": "so " * 100, "create_time": at,
        }  # fmt: skip


def _variables(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        whose, name = chat(0 if i < 40 else i, busy), f"v{i}"
        yield {
            "digest": whose.digest(name), "app_id": whose.app_id, "flow_id": str(whose.flow_id), "uid": whose.uid,
            "chat_id": whose.chat_id, "name": name, "value": {"a": i},
            "updated_at": now - timedelta(days=100 if i % OLD_SHARE == 3 else 3, seconds=i),
        }  # fmt: skip


def run_id(number: int, now: datetime) -> str:
    """Return the id of one of the runs, of its time; number 0 is the busy app's, and tells a tenth of everything."""
    at = now - timedelta(days=40 if number % OLD_SHARE == 3 else 3, seconds=ROWS - number)
    return f"{ulid_at(at)[:10]}{number:016d}"


def _runs(busy: int, now: datetime) -> Rows:
    for i in range(ROWS):
        # A few work, a few of them for too long; a few ends are still to be told.
        is_active = i % 200 == 10
        yield {
            "run_id": run_id(i, now), "flow_id": flow_id(0 if i % SHARE == 0 else i), "version": "v1",
            "app_id": _owner(i, busy), "author_id": busy, "credential_id": 1, "request_id": "r", "uid": "ann",
            "chat_id": "", "mode": "express", "state": "running" if is_active else "succeeded",
            "active": int(is_active), "slot": i if is_active else None, "digest": f"{i % 400:064x}", "parameters": {},
            "result": None if is_active else {"outputs": {}, "content": "so " * 100},
            "wake_at": now + timedelta(seconds=-1 if i % 1000 == 10 else 3600) if is_active else None,
            "callback_url": "http://127.0.0.1/done" if i % 400 == 11 else None,
            "callback_at": now if i % 400 == 11 else None, "created_at": now, "started_at": now,
        }  # fmt: skip


def _told(i: int) -> tuple[int, int]:
    """Which run tells it, and the how-manieth it is."""
    return (0, i // SHARE) if i % SHARE == 0 else (i // 4 + 1, i % 4)


def _run_nodes(now: datetime) -> Rows:
    for i in range(ROWS):
        run, position = _told(i)
        yield {
            "run_id": run_id(run, now), "position": position, "node_key": f"code::{i}", "node_id": f"code::{i}",
            "node_type": "code", "alias_name": "", "attempt": 1, "state": "succeeded", "inputs": {},
            "outputs": {"a": "so " * 100}, "duration_us": 10,
        }  # fmt: skip


def _run_events(now: datetime) -> Rows:
    for i in range(ROWS):
        run, position = _told(i)
        yield {"run_id": run_id(run, now), "seq": position + 1, "frame": {"seq": position + 1, "type": "x"}}


def _run_data(now: datetime) -> Rows:
    for i in range(ROWS):
        aged = timedelta(days=100 if i % OLD_SHARE == 3 else 3, seconds=i)
        yield {"digest": f"{i:064x}", "data": '{"nodes":[],"edges":[]}', "used_at": now - aged}
