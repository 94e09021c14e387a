"""What a scoped session reads, and what it refuses to; reading across agents on purpose."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    column,
    delete,
    event,
    extract,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.orm import with_loader_criteria
from sqlalchemy.orm.exc import DetachedInstanceError

from chalicelib.agents.scope.access import ScopeViolation
from chalicelib.agents.scope.sessions import AgentDatabase, cross_agent, for_agent
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Forbidden
from tests.integration import agent_world
from tests.unit.agents.scope.models import AOwn, BOwn, SharedNote, SharedThread, scope, world

worlds, service, server = agent_world.worlds, agent_world.service, agent_world.server
mine, on_sqlite = agent_world.mine, agent_world.on_sqlite

MINE, FOREIGN = 1001, 2101
Note = SharedNote.__table__


# -- why not with_loader_criteria ------------------------------------------------------------------------------

LIGHT = table(SharedThread.__tablename__, column("id"))
CORE = SharedThread.__table__
NO_ENTITY = [
    select(CORE.c.id),
    select(LIGHT.c.id),
    select(CORE.alias().c.id),
    select(CORE.c.id).join(SharedNote, SharedNote.title == CORE.c.title).where(SharedNote.id == 1011),
    select(AOwn.id + 1000).where(AOwn.id == 1001, select(CORE.c.id).where(CORE.c.id == 2001).exists()),
]


@pytest.mark.parametrize("statement", NO_ENTITY, ids=str)
def test_loader_criteria_leak_what_is_no_entity_and_the_scope_does_not(
    service: DatabaseService, statement: Any
) -> None:
    mine_only = [
        with_loader_criteria(model, column == 1, include_aliases=True)
        for model, column in ((SharedThread, SharedThread.tenant), (SharedNote, SharedNote.app_id))
    ]
    with service.reads() as session:
        assert any(2000 < found < 3000 for found in session.scalars(statement.options(*mine_only)))
    with for_agent(service, scope()).reads() as session:
        assert set(session.scalars(statement)) <= {1001, 1002}


# -- reading ---------------------------------------------------------------------------------------------------


def test_an_outer_join_keeps_the_rows_without_a_partner_of_its_own(mine: AgentDatabase) -> None:
    with mine.reads() as session:
        # Note 1031 hangs on a thread of app 2.
        pairs = session.execute(select(SharedNote.id, SharedThread.id).outerjoin(SharedNote.thread)).all()
        assert (1031, None) in [tuple(pair) for pair in pairs]
        assert len(pairs) == 5


def test_an_or_in_a_text_or_a_literal_widens_nothing(mine: AgentDatabase) -> None:
    with mine.reads() as session:
        for condition in (text("1 = 0 OR 1 = 1"), literal_column("1 = 0 OR 1 = 1")):
            assert sorted(session.scalars(select(SharedThread.id).where(condition))) == [1001, 1002]
            joined = select(SharedThread.id).join(SharedNote, condition).distinct()
            assert sorted(session.scalars(joined)) == [1001, 1002]


def test_rows_of_others_are_not_found_by_key(mine: AgentDatabase) -> None:
    with mine.session_getter() as session:
        assert session.get(SharedThread, MINE) is not None
        assert [session.get(SharedThread, key) for key in (1101, 2001, FOREIGN)] == [None, None, None]


def test_a_full_outer_join_is_refused(mine: AgentDatabase) -> None:
    both = select(SharedNote.id).join(SharedThread, SharedNote.title == SharedThread.title, full=True)
    with mine.reads() as session, pytest.raises(ScopeViolation, match="full outer"):
        session.execute(both)


@pytest.mark.parametrize(
    "statement",
    [
        select(BOwn),
        select(BOwn.__table__),
        select(table("agentflow_b_own", column("id"))),
        select(AOwn).where(AOwn.id.in_(select(BOwn.id))),
        select(AOwn).join(BOwn, AOwn.title == BOwn.title),
        update(BOwn).values(title="x"),
        delete(BOwn),
        insert(BOwn).values(id=1),
        insert(AOwn.__table__).from_select(["id", "title"], select(BOwn.id, BOwn.title)),
        text("SELECT id FROM agentflow_b_own WHERE app_id = :app_id"),
    ],
    ids=str,
)
def test_the_own_table_of_another_agent_is_refused(on_sqlite: AgentDatabase, statement: Any) -> None:
    with (
        on_sqlite.session_getter() as session,
        pytest.raises(ScopeViolation, match="the agent a has no table agentflow_b_own"),
    ):
        session.execute(statement)


def test_a_kept_statement_is_checked_for_each_agent(service: DatabaseService) -> None:
    with for_agent(service, scope(agent="b")).reads() as session:
        assert len(session.scalars(select(BOwn)).all()) == 2
    with for_agent(service, scope()).reads() as session, pytest.raises(ScopeViolation):
        session.scalars(select(BOwn)).all()


@pytest.mark.parametrize(
    "statement",
    [
        select(table("app_credential", column("id"))),
        select(column("x")).select_from(text("app_credential")),
        select(func.pragma_table_info("app").table_valued("name")),
        select(table("agentflow_shared_note", column("id"), schema="other")),
        select(literal(1)).where(literal_column("1 = (SELECT count(*) FROM app_credential)")),
        select(SharedNote.id).order_by(text("1 UNION SELECT id FROM app_credential")),
        select(SharedNote.id).where(
            SharedNote.title.op("= '' UNION SELECT 1 FROM app_credential WHERE 1 =")(1)
        ),
        select(SharedNote.id).where(SharedNote.title.op("= 1) OR (1 =")(1)),
        select(SharedNote.id).where(text("1 = 1) OR (1 = 1")),
        select(SharedNote.id).where(text("1 = 1 -- ")),
        select(SharedNote.id).with_hint(SharedNote, "FORCE INDEX (PRIMARY), app_credential", "*"),
        select(SharedNote.id).with_statement_hint("UNION SELECT id FROM app_credential"),
        select(extract("year FROM 1) FROM app_credential WHERE (1", SharedNote.title)),
        text("SELECT id FROM agentflow_shared_note"),
        text("DELETE FROM agentflow_shared_note WHERE app_id = :app_id AND agent_name = :agent_name"),
        text("SELECT id FROM agentflow_shared_note").columns(column("id")),
    ],
    ids=lambda statement: str(statement)[:60],
)
def test_what_could_reach_further_is_refused(on_sqlite: AgentDatabase, statement: Any) -> None:
    with on_sqlite.session_getter() as session, pytest.raises(ScopeViolation):
        session.execute(statement)


def test_raw_sql_reads_with_the_values_of_the_session(mine: AgentDatabase) -> None:
    raw = text("SELECT id FROM agentflow_shared_thread WHERE app_id = :app_id AND agent_name = :agent_name")
    with mine.reads() as session:
        # Whatever the caller gives.
        for given in ({}, {"app_id": 2, "agent_name": "b"}):
            assert sorted(session.scalars(raw, given)) == [1001, 1002]
        assert sorted(session.scalars(raw.bindparams(app_id=2, agent_name="b"))) == [1001, 1002]
        whole = select(SharedThread).from_statement(raw.columns(SharedThread.id))
        assert sorted(row.id for row in session.scalars(whole)) == [1001, 1002]


def test_hints_and_locks_stay_where_they_were(mysql_url: str) -> None:
    with world(mysql_url) as service:
        mine = for_agent(service, scope())
        sent: list[str] = []
        event.listen(service.engine, "before_cursor_execute", lambda *each: sent.append(each[2]))
        with mine.session_getter() as session:
            statement = (
                select(SharedThread.id).with_hint(SharedThread, "FORCE INDEX (PRIMARY)").with_for_update()
            )
            assert sorted(session.scalars(statement)) == [1001, 1002]
            session.execute(update(SharedThread).prefix_with("LOW_PRIORITY").values(title="x"))
    assert "FORCE INDEX (PRIMARY) \nWHERE" in sent[0]
    assert sent[0].endswith("FOR UPDATE")


# -- reading across agents -------------------------------------------------------------------------------------


def test_an_admin_reads_the_shared_rows_of_all_agents_of_its_app(service: DatabaseService) -> None:
    admin = for_agent(service, scope(role="admin"))
    with admin.reads() as session:
        assert sorted(session.scalars(select(SharedThread.id))) == [1001, 1002]
        with cross_agent(session):
            rows = session.scalars(select(SharedThread).order_by(SharedThread.id)).all()
            assert [row.id for row in rows] == [1001, 1002, 1101, 1102]
            assert session.get(SharedThread, FOREIGN) is None
            assert [note.id for note in rows[2].notes] == [1111, 1112, 1121, 1122][:2]
            with pytest.raises(ScopeViolation):
                session.scalars(select(BOwn)).all()
            # A text names its agent, and that stays the session's.
            raw = "SELECT id FROM agentflow_shared_thread WHERE app_id = :app_id AND agent_name = :agent_name"
            assert sorted(session.scalars(text(raw))) == [1001, 1002]
            with pytest.raises(RuntimeError, match="does not write"):
                session.execute(delete(SharedThread))
        assert sorted(session.scalars(select(SharedThread.id))) == [1001, 1002]
        assert session.get(SharedThread, 1101) is None
        with pytest.raises(DetachedInstanceError):
            _ = rows[3].notes


def test_reading_across_needs_the_role_and_a_read_session(service: DatabaseService) -> None:
    for role in ("viewer", "caller", "publisher"):
        with (
            for_agent(service, scope(role=role)).reads() as session,
            pytest.raises(Forbidden) as refused,
            cross_agent(session),
        ):
            raise AssertionError("not reached")
        assert refused.value.code == "agent.cross_agent_role"
    admin = for_agent(service, scope(role="admin"))
    with admin.session_getter() as unit, pytest.raises(ScopeViolation), cross_agent(unit):
        raise AssertionError("not reached")
    with service.reads() as plain, pytest.raises(ScopeViolation), cross_agent(plain):
        raise AssertionError("not reached")


def test_reading_across_ends_with_its_block_after_an_error(service: DatabaseService) -> None:
    with for_agent(service, scope(role="admin")).reads() as session:
        with pytest.raises(ZeroDivisionError), cross_agent(session):
            _ = 1 / 0
        assert sorted(session.scalars(select(SharedThread.id))) == [1001, 1002]
