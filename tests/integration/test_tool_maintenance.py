"""What is not kept of tools for ever, at the very second, and what stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from chalicelib.core.audit import AuditLog
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import NotFound
from chalicelib.core.hotcache import HotCache
from chalicelib.core.jobs import Runner
from chalicelib.tools import catalog, credentials, drafts, maintenance, registry
from chalicelib.tools.credentials import Credential
from chalicelib.tools.maintenance import tool_jobs
from chalicelib.tools.models import (
    ToolCredential,
    ToolDocument,
    ToolExecution,
    ToolMeta,
    ToolSchema,
)
from tests.plugin_rows import OTHER, OWNER, caller
from tests.tool_documents import document
from tests.tool_rows import put_apps, put_tool

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@dataclass
class World:
    """Two tenants, and a clock that does not move by itself."""

    database: DatabaseService
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def run(self, name: str) -> dict[str, Any]:
        job = {job.name: job for job in tool_jobs(self.database, lambda: self.now)}[name]
        report = Runner(self.database, deadline_s=60).run(job)
        assert report["failures"] == []
        return report

    def rows(self, model: Any) -> list[Any]:
        with self.database.reads() as session:
            return list(session.scalars(select(model)))

    def add_version(self, tool_id: str, version: str) -> None:
        draft = drafts.draft(document())
        self.database.run(
            lambda session: registry.add_version(
                session, caller(), tool_id, version, name=None, description=None, document=draft
            )
        )

    def delete(self, tool_id: str, version: str | None = None, *, age: timedelta) -> None:
        """Delete a version, that long ago."""
        before = {row.id for row in self.rows(ToolSchema) if row.is_deleted}
        self.database.run(lambda session: registry.delete(session, caller(), tool_id, version, None))
        gone = [row.id for row in self.rows(ToolSchema) if row.is_deleted and row.id not in before]
        self.age(gone, age)

    def age(self, row_ids: list[int], age: timedelta) -> None:
        """Let rows have been changed that long ago."""
        aged = update(ToolSchema).where(ToolSchema.id.in_(row_ids)).values(update_at=self.now - age)
        self.database.run(lambda session: session.execute(aged))


@pytest.fixture
def world(database: DatabaseService) -> Iterator[World]:
    put_apps(database)
    yield World(database)


def test_calls_go_after_thirty_days(world: World) -> None:
    cutoff = world.now - 30 * DAY

    def call(at: datetime) -> ToolExecution:
        return ToolExecution(
            tool_id="tool@1", app_id=OWNER, version="V1.0", operation="getPet", outcome="success",
            duration_us=1, started_at=at,
        )  # fmt: skip

    calls = [call(cutoff - SECOND), call(cutoff), call(cutoff + SECOND)]
    world.database.run(lambda session: session.add_all(calls))
    report = world.run("retain_tool_executions")
    assert [(one["target"], one["count"]) for one in report["plan"]] == [("tool_execution", 1)]
    assert sorted(row.started_at for row in world.rows(ToolExecution)) == [cutoff, cutoff + SECOND]
    assert world.run("retain_tool_executions")["planned"] == 0


def test_a_deleted_version_goes_after_ninety_days_and_the_others_stay(world: World) -> None:
    tool = put_tool(world.database)
    for version in ("V2", "V3"):
        world.add_version(tool, version)
    world.delete(tool, "V2", age=90 * DAY + SECOND)
    world.delete(tool, "V3", age=90 * DAY - SECOND)
    # A version that is live stays, however long nobody touched it.
    world.age([row.id for row in world.rows(ToolSchema) if not row.is_deleted], 1000 * DAY)
    report = world.run("purge_tools")
    assert [(one["target"], one["count"]) for one in report["plan"]] == [("tools_schema", 1)]
    kept = {row.id: row.version for row in world.rows(ToolSchema)}
    assert sorted(kept.values()) == ["V1.0", "V3"]
    assert {row.schema_id for row in world.rows(ToolDocument)} == set(kept)
    assert [row.tool_id for row in world.rows(ToolMeta)] == [tool]
    with pytest.raises(NotFound):
        world.database.run(lambda session: registry.restore(session, caller(), tool, "V2"))
    world.database.run(lambda session: registry.restore(session, caller(), tool, "V3"))
    assert world.run("purge_tools")["planned"] == 0


def test_a_tool_goes_with_its_last_version_and_not_before(world: World) -> None:
    tool, other = put_tool(world.database), put_tool(world.database)
    world.add_version(tool, "V2")
    world.delete(tool, "V1.0", age=100 * DAY)
    world.delete(tool, "V2", age=10 * DAY)
    world.run("purge_tools")
    assert {row.tool_id for row in world.rows(ToolMeta)} == {tool, other}
    world.now += 81 * DAY
    world.run("purge_tools")
    for model in (ToolMeta, ToolSchema, ToolDocument):
        assert [row.tool_id for row in world.rows(model)] == [other]
    audited = [(row.action, row.object_type, row.object_id) for row in world.rows(AuditLog)]
    assert audited.count(("tool.purge", "tool", tool)) == 2


def test_many_go_batch_by_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "VERSIONS_A_UNIT", 2)
    tools = [put_tool(world.database) for _ in range(5)]
    for tool in tools:
        world.delete(tool, age=91 * DAY)
    assert world.run("purge_tools")["plan"][0]["count"] == 5
    assert world.rows(ToolSchema) == world.rows(ToolMeta) == []


def test_what_was_restored_after_the_plan_stays(world: World) -> None:
    tool = put_tool(world.database)
    world.delete(tool, age=91 * DAY)
    [job] = [job for job in tool_jobs(world.database, lambda: world.now) if job.name == "purge_tools"]
    [action] = job.plan({}).actions
    world.database.run(lambda session: registry.restore(session, caller(), tool, "V1.0"))
    assert action.work() is False
    assert [row.is_deleted for row in world.rows(ToolSchema)] == [0]


def test_what_was_restored_before_its_tool_was_locked_stays(world: World) -> None:
    tool = put_tool(world.database)
    [row] = world.rows(ToolSchema)
    world.age([row.id], 91 * DAY)

    def purge(session: Any) -> None:
        meta = session.get(ToolMeta, tool)
        maintenance._delete_of_tool(session, meta, [row.id], world.now - 90 * DAY)

    world.database.run(purge)
    assert len(world.rows(ToolSchema)) == len(world.rows(ToolMeta)) == len(world.rows(ToolDocument)) == 1


def test_a_purged_row_leaves_warm_functions_alone_with_other_tools(world: World) -> None:
    gone, other = put_tool(world.database), put_tool(world.database)
    world.delete(gone, age=91 * DAY)
    cache = HotCache(world.database)
    cache.refresh()
    catalog.find(cache, caller(), other)
    world.run("purge_tools")
    cache.refresh()
    assert cache.get(("tool", other)) is not None


@pytest.mark.parametrize(("few", "kept_warm"), [(2, True), (1, False)])
def test_a_deleted_tool_takes_every_apps_credentials_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, few: int, kept_warm: bool
) -> None:
    """Few are deleted one by one, which names the tool; many at once, and warm functions drop all of their tools."""
    monkeypatch.setattr(registry, "FEW_CREDENTIALS", few)
    tool, other = put_tool(world.database, shared=True), put_tool(world.database)
    cache = HotCache(world.database)
    cache.refresh()
    for app_id in (OWNER, OTHER):
        found = catalog.find(cache, caller(app_id), tool)
        sealed = [Credential("key", "apiKey", "sealed")]
        world.database.run(lambda session: credentials.put(session, caller(app_id), found, sealed))  # noqa: B023
    cache.refresh()
    catalog.find(cache, caller(), other)
    world.database.run(lambda session: registry.delete(session, caller(), tool, None, None))
    assert world.rows(ToolCredential) == []
    cache.refresh()
    assert (cache.get(("tool", other)) is not None) is kept_warm
