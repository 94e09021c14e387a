"""What flows remember is not kept for ever, and not after the flow or the app."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, text, update

from chalicelib.apps.models import App
from chalicelib.core.database import DatabaseService
from chalicelib.core.housekeeping import BATCH
from chalicelib.core.ids import id_at
from chalicelib.core.jobs import Runner
from chalicelib.flows import drafts
from chalicelib.flows.history import retention, service
from chalicelib.flows.history.dao import Entry
from chalicelib.flows.history.models import NodeHistory
from chalicelib.flows.history.retention import memory_jobs
from chalicelib.flows.variables import service as variables
from chalicelib.flows.variables.models import FlowVariable
from chalicelib.flows.variables.service import Scope
from tests.conftest import create_schema
from tests.flow_rows import put_apps, put_flow
from tests.plugin_rows import OTHER, OWNER, caller

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
SHORT_WAIT = text("SET SESSION innodb_lock_wait_timeout = 1")


@dataclass
class World:
    """Two tenants, a flow, and a clock that does not move by itself."""

    database: DatabaseService
    flow: int
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def run(self, name: str) -> dict[str, Any]:
        job = {job.name: job for job in memory_jobs(self.database, lambda: self.now)}[name]
        report = Runner(self.database, deadline_s=60).run(job)
        assert report["failures"] == []
        return report

    def add_turns(self, question: str, age: timedelta, count: int = 1, first_id: int | None = None) -> None:
        """Put turns of that age into the table, with ids of their time unless others are given."""
        first = id_at(self.now - age) if first_id is None else first_id
        rows = [
            {
                "id": first + number, "app_id": OWNER, "flow_id": str(self.flow), "node_id": "llm::1", "uid": "ann",
                "chat_id": "", "raw_question": question, "raw_answer": "a", "create_time": self.now - age,
            }
            for number in range(count)
        ]  # fmt: skip
        self.database.run(lambda session: session.execute(insert(NodeHistory), rows))

    def set_variable(self, name: str, age: timedelta = 0 * DAY, **scope: Any) -> None:
        whose = replace(Scope(OWNER, self.flow, "ann", ""), **scope)
        aged = update(FlowVariable).where(FlowVariable.digest == whose.digest(name))

        def work(session: Any) -> None:
            variables.put(session, whose, {name: 1})
            session.execute(aged.values(updated_at=self.now - age))

        self.database.run(work)

    def say(self, question: str, app_id: int = OWNER, flow: int | None = None) -> None:
        turn = Entry(app_id, flow or self.flow, "llm::1", "ann", "", question, "a")
        self.database.run(lambda session: service.add(session, [turn]))

    def kept(self) -> tuple[set[str], set[str]]:
        with self.database.reads() as session:
            said = set(session.scalars(select(NodeHistory.raw_question)))
            return said, set(session.scalars(select(FlowVariable.name)))

    def count(self) -> int:
        with self.database.reads() as session:
            return session.scalar(select(func.count()).select_from(NodeHistory)) or 0


@pytest.fixture
def world(database: DatabaseService) -> Iterator[World]:
    put_apps(database)
    yield World(database, put_flow(database))


# -- by age ----------------------------------------------------------------------------------------------------------


def test_turns_and_variables_go_after_ninety_days(world: World) -> None:
    for name, age in (("old", 90 * DAY + SECOND), ("just", 90 * DAY), ("new", 0 * DAY)):
        world.add_turns(name, age)
        world.set_variable(name, age)
    report = world.run("retain_flow_history")
    assert [(one["action"], one["target"], one["count"]) for one in report["plan"]] == [
        ("delete_rows", "workflow_node_history", 1),
        ("delete_rows", "flow_variable", 1),
    ]
    assert world.kept() == ({"just", "new"}, {"just", "new"})
    assert world.run("retain_flow_history")["planned"] == 0


def test_of_ids_that_are_not_ours_the_time_decides(world: World) -> None:
    world.add_turns("brought over", 3 * DAY, first_id=7)
    world.add_turns("and old", 91 * DAY, first_id=8)
    world.run("retain_flow_history")
    assert world.kept()[0] == {"brought over"}


def test_many_go_in_batches(world: World) -> None:
    world.add_turns("old", 100 * DAY, 2 * BATCH + 10)
    world.add_turns("new", 1 * DAY, 20)
    deleted: list[int] = []

    def note(*told: Any) -> None:
        if told[2].lstrip().startswith("DELETE FROM workflow_node_history"):
            deleted.append(len(told[3]))

    event.listen(world.database.engine, "before_cursor_execute", note)
    try:
        assert world.run("retain_flow_history")["done"] == 1
    finally:
        event.remove(world.database.engine, "before_cursor_execute", note)
    assert len(deleted) == 3
    assert (world.kept()[0], world.count()) == ({"new"}, 20)


def test_a_variable_that_is_set_again_stays(world: World) -> None:
    world.set_variable("a", 100 * DAY)
    [job] = [
        job for job in memory_jobs(world.database, lambda: world.now) if job.name == "retain_flow_history"
    ]
    [action] = job.plan({}).actions
    world.set_variable("a")
    assert action.work() is False
    assert world.kept()[1] == {"a"}


def test_a_variable_is_not_set_while_it_goes(mysql_url: str) -> None:
    """Between the look at it and its deletion: whoever sets it waits, and sets it anew."""

    database = create_schema(mysql_url)
    put_apps(database)
    world = World(database, put_flow(database))
    world.set_variable("a", 100 * DAY)
    other = DatabaseService(mysql_url)
    scope = Scope(OWNER, world.flow, "ann", "")
    waited: list[str] = []

    def meanwhile(*told: Any) -> None:
        if not told[2].startswith("DELETE FROM flow_variable"):
            return
        try:
            with other.session_getter() as session:
                session.execute(SHORT_WAIT)
                variables.put(session, scope, {"a": 2})
        except Exception as error:
            waited.append(str(error))

    event.listen(database.engine, "before_cursor_execute", meanwhile)
    world.run("retain_flow_history")
    assert len(waited) == 1
    assert "1205" in waited[0]
    other.close()
    database.close()


# -- with the flow and the app -----------------------------------------------------------------------------------------


def test_what_a_deleted_flow_remembers_goes(world: World) -> None:
    kept = put_flow(world.database, "Kept")
    for app_id in (OWNER, OTHER):
        world.say("gone", app_id)
        world.set_variable("gone", app_id=app_id)
    world.say("stays", flow=kept)
    world.set_variable("stays", flow_id=kept)
    assert world.run("purge_flow_history")["planned"] == 0
    world.database.run(lambda session: drafts.delete(session, caller(), world.flow, None))
    report = world.run("purge_flow_history")
    assert [one["target"] for one in report["plan"]] == [
        f"{table} of flow {world.flow}, app {app_id}"
        for table in ("workflow_node_history", "flow_variable")
        for app_id in (OWNER, OTHER)
    ]
    assert world.kept() == ({"stays"}, {"stays"})


def test_what_a_deleted_app_remembers_goes(world: World) -> None:
    for app_id, name in ((OWNER, "stays"), (OTHER, "gone")):
        world.say(name, app_id)
        world.set_variable(name, app_id=app_id)
    world.database.run(lambda session: session.execute(delete(App).where(App.id == OTHER)))
    world.run("purge_flow_history")
    assert world.kept() == ({"stays"}, {"stays"})


def test_the_walk_over_apps_and_flows_goes_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "WALK", 2)
    monkeypatch.setattr(retention, "PAIRS_A_RUN", 4)
    flows = [put_flow(world.database, f"Flow {number}") for number in range(7)]
    for number, flow in enumerate(flows):
        for app_id in (OWNER, OTHER):
            world.say(f"q{number}", app_id, flow)
    for flow in flows[1::2]:
        world.database.run(lambda session, flow=flow: drafts.delete(session, caller(), flow, None))
    first = world.run("purge_flow_history")
    assert (first["done"], first["more"]) == (4, True)
    second = world.run("purge_flow_history")
    assert (second["done"], second["more"]) == (2, False)
    assert world.kept()[0] == {"q0", "q2", "q4", "q6"}


def test_a_flow_id_that_is_none_belongs_to_no_flow(world: World) -> None:
    rows = [
        {
            "id": 5, "app_id": OWNER, "flow_id": "workflow-7", "node_id": "llm::1", "uid": "", "chat_id": "",
            "raw_question": "strange", "raw_answer": "", "create_time": world.now,
        }
    ]  # fmt: skip
    world.database.run(lambda session: session.execute(insert(NodeHistory), rows))
    world.run("purge_flow_history")
    assert world.kept()[0] == set()
