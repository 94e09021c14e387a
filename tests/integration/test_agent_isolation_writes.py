"""What a scoped session writes, and what it refuses to; objects that it has not loaded."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import bindparam, column, delete, func, insert, literal, select, table, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError, SAWarning
from sqlalchemy.orm import make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.exc import StaleDataError

from chalicelib.agents.scope.access import ScopeViolation
from chalicelib.agents.scope.sessions import AgentDatabase, for_agent
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from tests.integration import agent_world
from tests.integration.agent_world import everything
from tests.unit.agents.scope.models import LINK, AOwn, SharedNote, SharedThread, scope

worlds, service, server = agent_world.worlds, agent_world.service, agent_world.server
mine, on_sqlite = agent_world.mine, agent_world.on_sqlite

MINE, FOREIGN = 1001, 2101
Note = SharedNote.__table__


# -- writing ---------------------------------------------------------------------------------------------------


def test_what_is_inserted_carries_the_scope(mine: AgentDatabase, service: DatabaseService) -> None:
    with mine.session_getter() as session:
        row = SharedThread(id=1)
        session.add(row)
        session.flush()
        assert (row.tenant, row.agent_name) == (1, "a")
        session.execute(insert(SharedThread), [{"id": 2}, {"id": 3}])
        session.execute(insert(SharedThread).values(id=4, tenant=1))
        session.execute(insert(SharedThread).values([{"id": 5, "tenant": 1}, {"id": 6}]))
        session.execute(insert(Note).values([(7, 1, "a", None, "x")]))
        session.execute(insert(Note), {"id": 8, "app_id": 1, "agent_name": "a"})
        session.execute(insert(Note), {"id": 9, "app_id": None})
        copies = select(SharedNote.id + 10, SharedNote.title).where(SharedNote.id == 1031)
        session.execute(insert(Note).from_select(["id", "title"], copies, include_defaults=False))
        merged = session.merge(SharedNote(id=10))
        session.flush()
        assert (merged.app_id, merged.agent_name) == (1, "a")
    with service.reads() as session:
        new = select(SharedThread.id).where(SharedThread.id < 1000)
        assert session.scalars(new.where(SharedThread.tenant == 1, SharedThread.agent_name == "a")).all() == [
            1, 2, 3, 4, 5, 6,
        ]  # fmt: skip
        notes = select(Note.c.id, Note.c.app_id, Note.c.agent_name).where(
            Note.c.id.in_([7, 8, 9, 10, 1041])
        ).order_by(Note.c.id)  # fmt: skip
        assert {tuple(row[1:]) for row in session.execute(notes)} == {(1, "a")}


FOREIGN_INSERTS: list[Any] = [
    (insert(SharedThread), [{"id": 1, "tenant": 2}]),
    (insert(SharedThread), [{"id": 1, "tenant": 1}, {"id": 2, "tenant": 2}]),
    (insert(SharedThread).values(id=1, tenant=2), None),
    (insert(SharedThread).values(id=1, agent_name="b"), None),
    (insert(SharedThread).values({SharedThread.tenant: 2}), None),
    (insert(SharedThread).values([{"id": 1, "tenant": 1}, {"id": 2, "tenant": 2}]), None),
    (insert(Note), {"id": 1, "app_id": 2}),
    (insert(Note).values(id=1, app_id=2), None),
    (insert(Note).values([(1, 2, "a", None, "x")]), None),
    (insert(Note).values(id=1, app_id=literal(1) + 1), None),
    (insert(Note).values(id=1, app_id=select(func.max(AOwn.app_id)).scalar_subquery()), None),
    (insert(Note).values(id=1, app_id=bindparam("whose")), {"whose": 2}),
    (insert(Note).from_select(["id", "app_id"], select(Note.c.id, Note.c.app_id)), None),
    (insert(table("agentflow_shared_note", column("id"))).values(id=1), None),
]


@pytest.mark.parametrize(("statement", "given"), FOREIGN_INSERTS)
def test_an_insert_for_others_is_refused(on_sqlite: AgentDatabase, statement: Any, given: Any) -> None:
    with on_sqlite.session_getter() as session, pytest.raises(ScopeViolation):
        session.execute(statement, given)


@pytest.mark.parametrize(
    "statement",
    [
        sqlite.insert(Note)
        .values(id=FOREIGN)
        .on_conflict_do_update(index_elements=["id"], set_={"title": "x"}),
        sqlite.insert(Note).values(id=FOREIGN).on_conflict_do_nothing(),
        insert(Note).prefix_with("OR REPLACE").values(id=FOREIGN),
        update(Note).prefix_with("OR REPLACE").values(id=FOREIGN),
        delete(Note).prefix_with("LOW_PRIORITY QUICK"),
    ],
)
def test_what_would_replace_a_row_that_it_meets_is_refused(on_sqlite: AgentDatabase, statement: Any) -> None:
    with on_sqlite.session_getter() as session, pytest.raises(ScopeViolation, match=r"upserts|prefix"):
        session.execute(statement)


def test_an_upsert_of_mysql_is_refused(server: DatabaseService) -> None:
    with for_agent(server, scope()).session_getter() as session:
        statement = mysql.insert(Note).values(id=FOREIGN).on_duplicate_key_update(title="x")
        with pytest.raises(ScopeViolation, match="upserts"):
            session.execute(statement)


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        (update(SharedThread).values(tenant=2), None),
        (update(SharedThread).values(tenant=1), None),
        (update(SharedThread).values({"agent_name": "b"}), None),
        (update(SharedThread).values({SharedThread.tenant: SharedThread.tenant + 1}), None),
        (update(SharedThread).ordered_values((SharedThread.agent_name, "b")), None),
        (update(SharedThread), [{"id": MINE, "tenant": 2}]),
        (update(Note).values(app_id=2), None),
        (update(Note).where(Note.c.id == bindparam("key")), [{"key": 1011, "app_id": 2}]),
        (update(AOwn.__table__).values({Note.c.app_id: 2}).where(Note.c.id == 1), None),
        (update(table("agentflow_shared_note", column("app_id"))).values(app_id=2), None),
    ],
)
def test_an_update_never_sets_the_scope(on_sqlite: AgentDatabase, statement: Any, given: Any) -> None:
    with (
        on_sqlite.session_getter() as session,
        pytest.raises(ScopeViolation, match=r"never sets (app_id|agent_name)"),
    ):
        session.execute(statement, given)


def test_a_flush_never_moves_a_row(mine: AgentDatabase) -> None:
    for change in ({"tenant": 2}, {"agent_name": "b"}):
        with mine.session_getter() as session:
            row = session.get_one(SharedThread, MINE)
            for key, value in change.items():
                setattr(row, key, value)
            with pytest.raises(ScopeViolation, match="never changes"):
                session.flush()
            session.expunge_all()
        with mine.session_getter() as session:
            session.add(SharedThread(id=1, **change))
            with pytest.raises(ScopeViolation, match="is set by the session"):
                session.flush()
            session.expunge_all()


def test_a_multi_table_statement_changes_own_rows_by_own_rows(server: DatabaseService) -> None:
    before = everything(server)
    with for_agent(server, scope()).session_getter() as session:
        joined = update(SharedThread).where(SharedThread.title == SharedNote.title).values(title="x")
        assert session.execute(joined, execution_options={"synchronize_session": False}).rowcount == 2
        gone = delete(Note).where(Note.c.title == AOwn.__table__.c.title)
        assert session.execute(gone).rowcount == 5
    # Of app 1 and agent a: two threads that were renamed, five notes that are gone.
    after = everything(server)
    assert len([row for row in before if row not in after]) == 7


# -- objects that were not loaded through the session ----------------------------------------------------------


def forged(**attributes: Any) -> SharedThread:
    row = SharedThread(id=FOREIGN, **attributes)
    make_transient_to_detached(row)
    return row


def test_a_forged_identity_is_not_taken(mine: AgentDatabase, service: DatabaseService) -> None:
    with service.reads() as session:
        loaded = session.get_one(SharedThread, FOREIGN)
        session.expunge(loaded)
    before = everything(service)
    attacks: list[Any] = [
        lambda session: session.add(forged()),
        lambda session: session.delete(forged()),
        lambda session: session.add(loaded),
        lambda session: session.merge(forged(tenant=1, agent_name="a", title="x"), load=False),
        lambda session: session.add(SharedNote(id=1, thread=forged())),
    ]
    for attack in attacks:
        for opened in (mine.session_getter, mine.reads):
            with opened() as session:
                with pytest.raises(ScopeViolation, match="new objects only"):
                    attack(session)
                session.expunge_all()
    assert everything(service) == before


def test_a_merge_of_anothers_key_does_not_reach_its_row(
    mine: AgentDatabase, service: DatabaseService
) -> None:
    before = everything(service)
    with pytest.raises(IntegrityError), mine.session_getter() as session:
        session.merge(SharedThread(id=FOREIGN, title="x"))
    with pytest.raises(StaleDataError), mine.session_getter() as session:
        session.execute(update(SharedThread), [{"id": FOREIGN, "title": "x"}])
    assert everything(service) == before


def test_a_loaded_object_that_is_given_anothers_key_does_not_reach_its_row(
    mine: AgentDatabase, service: DatabaseService
) -> None:
    before = everything(service)
    for act in (lambda _session, row: setattr(row, "title", "x"), lambda session, row: session.delete(row)):
        with pytest.raises((StaleDataError, SAWarning)), mine.session_getter() as session:
            row = session.get_one(AOwn, MINE)
            # Committed, so that the flush takes it for what the database has.
            set_committed_value(row, "id", 2001)
            act(session, row)
        assert everything(service) == before


def test_rows_between_two_tables_carry_the_scope(service: DatabaseService) -> None:
    with for_agent(service, scope()).session_getter() as session:
        thread = session.get_one(SharedThread, MINE)
        thread.tags.append(AOwn(id=1, title="tag"))
        session.flush()
        session.expire_all()
        assert [tag.title for tag in thread.tags] == ["tag"]
    with service.connection() as connection:
        connection.execute(insert(LINK), {"thread_id": MINE, "own_id": 1002, "app_id": 2, "agent_name": "a"})
        rows = connection.execute(select(LINK.c.own_id, LINK.c.app_id, LINK.c.agent_name)).all()
        assert sorted(map(tuple, rows)) == [(1, 1, "a"), (1002, 2, "a")]
    with for_agent(service, scope()).session_getter() as session:
        thread = session.get_one(SharedThread, MINE)
        assert [tag.id for tag in thread.tags] == [1]
        thread.tags.clear()
    with service.connection() as connection:
        assert [tuple(row) for row in connection.execute(select(LINK.c.own_id))] == [(1002,)]


def test_a_database_that_is_away_is_told_as_everywhere() -> None:
    service = DatabaseService("mysql+pymysql://x:y@127.0.0.1:1/none")
    mine = for_agent(service, scope())
    for opened in (mine.session_getter, mine.reads):
        with pytest.raises(Unavailable), opened():
            raise AssertionError("not reached")
    service.close()
