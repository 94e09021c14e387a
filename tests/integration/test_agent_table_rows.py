"""What is recorded of the agents and their tables: as admins see and change it, and as a deployment leaves it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Index, String, Text, select, update

from chalicelib.agents.models import AgentRow
from chalicelib.agents.spec import AgentSpec, LoadedAgent, LoadError, OwnedTable
from chalicelib.agents.tables import catalog
from chalicelib.agents.tables.rows import sync_agents
from chalicelib.core.audit import AuditLog
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid, NotFound, PreconditionFailed
from chalicelib.core.paging import Page
from chalicelib.core.representation import entity_tag
from tests.agent_tables import NOTES, OWNER, SHARED_NAMES, World, columns, fresh, model, owned, shared_tables
from tests.plugin_rows import caller


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    service = fresh(database_url)
    yield World(service)
    service.close()


# -- as admins see them ------------------------------------------------------------------------------------------


def page(limit: int = 30, cursor: str | None = None) -> Page:
    return Page(limit, cursor, {"path": "/agents/tables"}, b"k" * 32)


def test_a_listing_shows_each_table_with_its_checks_and_asks_for_no_second_connection(world: World) -> None:
    notes = owned(model(Index("ix_notes", "title")))
    world.migrate(notes, *shared_tables())
    world.migrate(owned(model(name="agentflow_gone_note"), "gone"), owned(model(), "thief"))
    newer = owned(model(Index("ix_notes", "title"), Column("extra", Text)))
    thief = OwnedTable(SHARED_NAMES[0], "thief", "independent", model(name=SHARED_NAMES[0]))
    models = {one.name: one for one in (newer, thief, *shared_tables()[1:])}
    found, cursor = [], None
    while True:
        with world.database.reads() as session:
            one = catalog.list_tables(session, page(2, cursor), models)
        found += one["items"]
        cursor = one["nextCursor"]
        if cursor is None:
            break
    assert [one["table"] for one in found] == ["agentflow_gone_note", NOTES, *SHARED_NAMES]
    states = {one["table"]: one["state"] for one in found}
    assert states == {
        "agentflow_gone_note": "unknown",
        NOTES: "outdated",
        SHARED_NAMES[0]: "foreign",
        SHARED_NAMES[1]: "ready",
        SHARED_NAMES[2]: "ready",
    }
    gone, shown, foreign, ready, _ = found
    assert gone["checks"] == foreign["checks"] == []
    assert [one["name"] for one in shown["checks"] if not one["success"]] == ["extra"]
    assert {"name": "ix_notes", "type": "index", "success": True} in shown["checks"]
    assert shown["problems"] == [f"owned by {OWNER}; refused to thief"]
    assert {key: ready[key] for key in ("owner", "mode", "retainDays", "retainRows", "problems")} == {
        "owner": "shared", "mode": "shared", "retainDays": None, "retainRows": None, "problems": [],
    }  # fmt: skip
    assert all(one["success"] for one in ready["checks"])


def retain(world: World, changes_: dict[str, int | None], if_match: str | None = None, **options: Any) -> Any:
    models = options.pop("models", {NOTES: owned(model())})
    return world.database.run(
        lambda session: catalog.set_retention(
            session, caller(), options.get("name", NOTES), changes_, if_match, models
        )
    )


def test_retention_is_set_bit_by_bit_and_recorded(world: World) -> None:
    world.migrate(model())
    before = catalog.describe(world.row())
    version = world.version()
    after = retain(world, {"retainDays": 30}, entity_tag(before))
    assert (after["retainDays"], after["retainRows"]) == (30, None)
    assert catalog.describe(world.row()) == after
    assert world.version() == version + 1
    with pytest.raises(PreconditionFailed) as caught:
        retain(world, {"retainDays": 1}, entity_tag(before))
    assert caught.value.extensions == {"etag": entity_tag(after)}
    both = retain(world, {"retainRows": 1000}, entity_tag(after))
    assert (both["retainDays"], both["retainRows"]) == (30, 1000)
    # What is asked for is there already.
    assert retain(world, {"retainRows": 1000}) == both
    cleared = retain(world, {"retainDays": None, "retainRows": None})
    assert (cleared["retainDays"], cleared["retainRows"]) == (None, None)
    with world.database.reads() as session:
        rows = session.scalars(select(AuditLog).order_by(AuditLog.id)).all()
    assert [(row.action, row.object_type, row.object_id) for row in rows] == [
        ("agent.table_update", "agent_table", NOTES)
    ] * 3
    assert rows[0].after_digest == rows[1].before_digest != rows[1].after_digest
    # The next migration keeps what admins decided.
    retain(world, {"retainDays": 7})
    world.migrate(model(Column("extra", Text)))
    assert world.row().retain_days == 7


def test_a_table_that_is_not_there_has_no_retention(world: World) -> None:
    with pytest.raises(NotFound) as caught:
        retain(world, {"retainDays": 1})
    assert caught.value.code == "agent.table_not_found"


def test_what_cannot_be_retained_is_refused(world: World) -> None:
    keyed = [Column("id", String(26), primary_key=True), *columns()[1:]]
    world.migrate(model(base=keyed))
    for models in ({NOTES: owned(model(base=[column._copy() for column in keyed]))}, {}):
        with pytest.raises(Invalid) as caught:
            retain(world, {"retainDays": 1, "retainRows": 1}, models=models)
        assert caught.value.code == "agent.retention_unsupported"
        assert [one.pointer for one in caught.value.errors] == ["/retainDays", "/retainRows"]
        assert retain(world, {"retainDays": None}, models=models)["retainDays"] is None
    dated = {NOTES: owned(model(Index("ix", "created_at"), base=[column._copy() for column in keyed]))}
    assert retain(world, {"retainDays": 1}, models=dated)["retainDays"] == 1
    with pytest.raises(Invalid) as caught:
        retain(world, {"retainRows": 1}, models=dated)
    assert [one.pointer for one in caught.value.errors] == ["/retainRows"]


def at_once(database_url: str, *works: Any) -> list[Any]:
    """Run works in threads of their own, each on its own connection; return what each returned or raised."""
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def run(number: int) -> None:
        service = DatabaseService(database_url)
        barrier.wait()
        try:
            results[number] = works[number](service)
        except Exception as error:
            results[number] = error
        service.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_of_two_admins_who_saw_the_same_one_wins(world: World, database_url: str) -> None:
    world.migrate(model())
    tag = entity_tag(catalog.describe(world.row()))

    def work(days: int) -> Any:
        return lambda service: retain(World(service), {"retainDays": days}, tag)

    results = at_once(database_url, *(work(days) for days in (1, 2, 3, 4)))
    refused = [one for one in results if isinstance(one, PreconditionFailed)]
    [won] = [one for one in results if isinstance(one, dict)]
    assert len(refused) == 3, results
    assert world.row().retain_days == won["retainDays"]


# -- the rows of agents --------------------------------------------------------------------------------------------


def loaded(name: str, version: str | None = "1.0.0", error: LoadError | None = None) -> LoadedAgent:
    spec = None
    if version is not None:
        spec = AgentSpec(name, version, "An agent", "Agent", Path("/nowhere"), f"chalicelib.agents.{name}")
    return LoadedAgent(name, spec, None, error=error)


def agent_rows(world: World) -> dict[str, AgentRow]:
    with world.database.reads() as session:
        return {row.name: row for row in session.scalars(select(AgentRow))}


def test_a_deployment_adds_its_agents_and_keeps_what_admins_decided(world: World) -> None:
    broken = LoadError("agent.import_failed", "No module named nothing")

    def sync(*agents: LoadedAgent) -> int:
        before = world.version()
        world.database.run(lambda session: sync_agents(session, agents))
        return world.version() - before

    assert sync(loaded("one"), loaded("two", None, broken), loaded("Not a name!")) == 1
    rows = agent_rows(world)
    assert {name: (row.version, row.load_error, row.is_enabled) for name, row in rows.items()} == {
        "one": ("1.0.0", None, 1),
        "two": ("", broken.as_dict(), 1),
    }
    decided = update(AgentRow).where(AgentRow.name == "one")
    kept = {"is_enabled": 0, "generation": 5, "history_mode": "shared", "moving_to": "independent"}
    world.database.run(lambda session: session.execute(decided.values(**kept)))
    # Nothing is new: no bump.
    assert sync(loaded("one"), loaded("two", None, broken)) == 0
    assert sync(loaded("one", "1.1.0"), loaded("two", "0.1.0")) == 1
    rows = agent_rows(world)
    assert {name: (row.version, row.load_error) for name, row in rows.items()} == {
        "one": ("1.1.0", None),
        "two": ("0.1.0", None),
    }
    assert {name: getattr(rows["one"], name) for name in kept} == kept
    # One whose agent.yaml cannot be read keeps its version; one that is gone keeps its row.
    assert sync(loaded("one", None, broken)) == 1
    assert agent_rows(world)["one"].version == "1.1.0"
    assert set(agent_rows(world)) == {"one", "two"}


def test_two_deployments_at_once_add_each_agent_once(world: World, database_url: str) -> None:
    agents = [loaded(f"agent_{number}") for number in range(5)]

    def work(service: DatabaseService) -> None:
        service.run(lambda session: sync_agents(session, agents))

    assert at_once(database_url, *[work] * 4) == [None] * 4
    assert sorted(agent_rows(world)) == [agent.name for agent in agents]
    assert world.version() == 1
