"""Many rows at once, put straight into the tables: what a deployment has after years."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Table, insert

from chalicelib.core.database import DatabaseService
from chalicelib.core.ids import new_id
from chalicelib.plugins.install_models import PluginInstall
from chalicelib.plugins.models import Plugin, PluginVersion

BATCH = 1_000
CHECKSUM = "ab" * 32


def plugin_id_of(number: int) -> str:
    """Return the id of the plugin that was put under this number."""
    return f"plugin_bench-{number}_abc123"


def put_plugins(database: DatabaseService, count: int, app_id: int, *, versions: bool = True) -> None:
    """Add `count` plugins of one app, each with its one version unless nothing will load it."""
    _put(database, Plugin.__table__, (_plugin(number, app_id) for number in range(count)))
    if versions:
        _put(database, PluginVersion.__table__, (_version(number) for number in range(count)))


def put_installs(database: DatabaseService, count: int, app_id: int) -> None:
    """Add `count` install tasks of one app that have ended."""
    _put(database, PluginInstall.__table__, (_install(number, app_id) for number in range(count)))


def _put(database: DatabaseService, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    assert isinstance(table, Table)
    with database.engine.connect() as connection:
        while batch := list(islice(rows, BATCH)):
            connection.execute(insert(table), batch)


def _manifest(number: int) -> dict[str, Any]:
    name = f"bench-{number}"
    return {"name": name, "version": "1.0.0", "pluginType": "notify", "entryPoint": "main.py"}


def _plugin(number: int, app_id: int) -> dict[str, Any]:
    return {
        "plugin_id": plugin_id_of(number), "app_id": app_id, "name": f"bench-{number}", "version": "1.0.0",
        "plugin_type": "notify", "entry_point": "main.py", "default_config": {}, "checksum": CHECKSUM,
        "manifest": _manifest(number), "runtime": "python", "is_enabled": 1,
    }  # fmt: skip


def _version(number: int) -> dict[str, Any]:
    plugin_id = plugin_id_of(number)
    return {
        "plugin_id": plugin_id, "version": "1.0.0", "checksum": CHECKSUM, "size": 10, "runtime": "python",
        "s3_path": f"plugins/{plugin_id}/1.0.0/{plugin_id}_1.0.0.zip", "s3_version": "v1",
        "manifest": _manifest(number),
    }  # fmt: skip


def _install(number: int, app_id: int) -> dict[str, Any]:
    return {
        "app_id": app_id, "source": "local", "filename": "x.zip", "object_key": f"incoming/tasks/{number}.zip",
        "object_version": f"{new_id()}", "state": "registered", "progress": 100, "attempts": 1,
    }  # fmt: skip
