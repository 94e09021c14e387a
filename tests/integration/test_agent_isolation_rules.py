"""Each rule of the scoped session on its own: what is added, what is refused, and what holds if SQLAlchemy changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import (
    bindparam,
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
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient_to_detached, with_loader_criteria
from sqlalchemy.orm.exc import DetachedInstanceError, StaleDataError
from sqlalchemy.schema import CreateTable, DropTable

from chalicelib.agents.scope.access import AGENT_BIND, APP_BIND, OPTION, Access, Scope, ScopeViolation
from chalicelib.agents.scope.compiler import ScopedCompiler
from chalicelib.agents.scope.engine import Engines
from chalicelib.agents.scope.sessions import AgentDatabase, cross_agent, for_agent
from chalicelib.core import guards
from chalicelib.core.database import DatabaseService, SecondConnection
from chalicelib.core.errors import Forbidden
from tests import databases
from tests.unit.agents.scope.models import (
    TABLES,
    AOwn,
    BOwn,
    SharedNote,
    SharedThread,
    scope,
    seeded_again,
    world,
)

MINE, FOREIGN = 1001, 2101
Note = SharedNote.__table__


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], DatabaseService]]:
    """Each server's database, made when it is first asked for."""
    made: dict[str, DatabaseService] = {}
    with ExitStack() as stack:

        def on(server: str) -> DatabaseService:
            if server not in made:
                folder = tmp_path_factory.mktemp("isolation")
                url = f"sqlite:///{folder}/hotplug.db"
                made[server] = stack.enter_context(world(_new(stack) if server == "mysql" else url))
            return made[server]

        yield on


def _new(stack: ExitStack) -> str:
    try:
        return stack.enter_context(databases.new_database())
    except databases.NoServer as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(params=["sqlite", "mysql"])
def service(
    request: pytest.FixtureRequest, worlds: Callable[[str], DatabaseService]
) -> Iterator[DatabaseService]:
    yield worlds(request.param)
    seeded_again(worlds(request.param))


@pytest.fixture
def server(worlds: Callable[[str], DatabaseService]) -> Iterator[DatabaseService]:
    """MariaDB or MySQL, for what SQLite has not."""
    yield worlds("mysql")
    seeded_again(worlds("mysql"))


@pytest.fixture
def mine(service: DatabaseService) -> AgentDatabase:
    return for_agent(service, scope())


@pytest.fixture
def on_sqlite(worlds: Callable[[str], DatabaseService]) -> Iterator[AgentDatabase]:
    """For what is refused before it is sent to any server."""
    before = everything(worlds("sqlite"))
    yield for_agent(worlds("sqlite"), scope())
    assert everything(worlds("sqlite")) == before


def everything(service: DatabaseService) -> list[Any]:
    with service.connection() as connection:
        return [tuple(row) for each in TABLES for row in connection.execute(select(each).order_by(each.c.id))]


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


# -- still the service's sessions ------------------------------------------------------------------------------


def test_a_scoped_session_is_a_unit_and_a_read_session(mine: AgentDatabase, service: DatabaseService) -> None:
    with mine.session_getter() as session:
        assert guards.unit_open()
        with pytest.raises(SecondConnection), service.reads():
            raise AssertionError("not reached")
        with pytest.raises(RuntimeError):
            session.connection()
        with session.begin_nested():
            session.add(SharedThread(id=1))
    with mine.reads() as session:
        assert session.get(SharedThread, 1) is not None
        assert not guards.unit_open()
        for refused in ("connection", "bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"):
            with pytest.raises(ScopeViolation):
                getattr(session, refused)(SharedThread, [])
        for statement in (delete(Note), update(Note).values(title="x"), insert(Note).values(id=1)):
            with pytest.raises(RuntimeError, match="does not write"):
                session.execute(statement)
            with pytest.raises(ScopeViolation, match="does not write"):
                Session.connection(session).execute(statement)


def test_a_unit_is_rolled_back_and_run_again(mine: AgentDatabase, on_lock: Any) -> None:
    attempts = []

    def work(session: Any) -> int:
        attempts.append(1)
        session.execute(update(SharedThread).values(title="x"))
        if len(attempts) == 1:
            raise on_lock
        return int(session.scalar(select(func.count()).select_from(SharedThread)))

    assert mine.run(work) == 2
    assert len(attempts) == 2


@pytest.fixture
def on_lock() -> Exception:
    from pymysql.err import OperationalError as Driver
    from sqlalchemy.exc import OperationalError

    return OperationalError("UPDATE", {}, Driver(1213, "Deadlock found"))


def test_scoping_adds_no_statement(service: DatabaseService) -> None:
    sent: list[str] = []
    event.listen(service.engine, "before_cursor_execute", lambda *each: sent.append(each[2]))

    def work(database: Any) -> int:
        sent.clear()
        with database.reads() as session:
            session.scalars(select(SharedThread).limit(1)).all()
        with database.session_getter() as session:
            session.scalars(select(SharedThread).limit(1)).all()
            session.add(AOwn(app_id=1))
        return len(sent)

    mine = for_agent(service, scope())
    assert work(mine) == work(service)
    # The service's own listeners see scoped statements too.
    service.load.take()
    work(mine)
    assert service.load.take().statements == len(sent)


# -- the last check --------------------------------------------------------------------------------------------


def unrecorded(**methods: Any) -> Engines:
    return Engines(type("Weakened", (ScopedCompiler,), methods))


@pytest.mark.parametrize(
    ("method", "statement"),
    [
        ("select_criteria", select(Note.c.id)),
        ("join_criteria", select(Note.c.id).join(AOwn, AOwn.title == Note.c.title)),
        ("update_criteria", update(Note).values(title="x")),
        ("delete_criteria", delete(Note)),
    ],
)
def test_a_table_without_criteria_is_noticed_before_it_is_sent(
    service: DatabaseService, method: str, statement: Any
) -> None:
    before = everything(service)
    weak = AgentDatabase(service, scope(), unrecorded(**{method: lambda self, _: []}))
    with weak.session_getter() as session, pytest.raises(ScopeViolation, match="do not fit the tables"):
        session.execute(statement)
    assert everything(service) == before


@pytest.mark.parametrize("method", ["_compose_select_body", "visit_join", "visit_update", "visit_delete"])
def test_a_method_that_sqlalchemy_no_longer_calls_is_noticed(service: DatabaseService, method: str) -> None:
    def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(ScopedCompiler, self), method)(*args, **kwargs)

    statement = {
        "_compose_select_body": select(Note.c.id),
        "visit_join": select(Note.c.id).join(AOwn, AOwn.title == Note.c.title),
        "visit_update": update(Note).values(title="x"),
        "visit_delete": delete(Note),
    }[method]
    weak = AgentDatabase(service, scope(), unrecorded(**{method: plain}))
    with weak.session_getter() as session, pytest.raises(ScopeViolation, match="do not fit the tables"):
        session.execute(statement)


def test_an_insert_that_is_not_filled_is_noticed(service: DatabaseService) -> None:
    def plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        return super(ScopedCompiler, self).visit_insert(*args, **kwargs)

    for methods in ({"visit_insert": plain}, {"insert_values": lambda self, _: {}}):
        weak = AgentDatabase(service, scope(), unrecorded(**methods))
        with weak.session_getter() as session, pytest.raises(ScopeViolation):
            session.execute(insert(Note).values(id=1, title="x"))


def test_sqlalchemy_still_has_what_the_compiler_stands_on(service: DatabaseService) -> None:
    compiler: Any = service.engine.dialect.statement_compiler
    for name in vars(ScopedCompiler):
        if name.startswith("visit_") or name == "_compose_select_body":
            assert callable(getattr(compiler, name, None)), name
    statement: Any = update(Note).values(title="x").where(Note.c.id == 1)
    for name in ("_where_criteria", "_values", "_prefixes", "_clone", "_compile_state_factory"):
        assert hasattr(statement, name), name
    for name in ("_values", "_multi_values", "_select_names", "_post_values_clause", "_annotations"):
        assert hasattr(insert(Note), name), name


def test_a_statement_that_was_not_compiled_for_the_scope_is_refused(mine: AgentDatabase) -> None:
    with mine.session_getter() as session:
        connection: Any = session.get_bind()
        with pytest.raises(ScopeViolation, match="not compiled for the scope"):
            connection.exec_driver_sql("SELECT id FROM agentflow_shared_note")


def test_ddl_other_schemas_and_given_scopes_are_refused(mine: AgentDatabase) -> None:
    with mine.session_getter() as session:
        for statement in (DropTable(Note), CreateTable(Note)):
            with pytest.raises(ScopeViolation, match="makes and changes no tables"):
                session.execute(statement)
        with pytest.raises(ScopeViolation, match="no other schema"):
            session.execute(select(Note.c.id), execution_options={"schema_translate_map": {None: "x"}})
        for name in (APP_BIND, AGENT_BIND):
            with pytest.raises(ScopeViolation, match="set by the session"):
                session.execute(select(Note.c.id), {name: 2})
            shadow = select(Note.c.id).where(Note.c.app_id == bindparam(name, 2))
            with pytest.raises(ScopeViolation, match="without the values of the scope"):
                session.execute(shadow)
        other = Access(Scope(2, "b"), writes=True)
        found = session.scalars(select(SharedThread.id), execution_options={OPTION: other})
        assert sorted(found) == [1001, 1002]


def test_a_statement_that_brings_its_own_cache_does_not_read_across(service: DatabaseService) -> None:
    kept: dict[Any, Any] = {}
    with for_agent(service, scope(role="admin")).reads() as session:
        with cross_agent(session):
            session.scalars(select(Note.c.id), execution_options={"compiled_cache": kept}).all()
        with pytest.raises(ScopeViolation, match="another reach"):
            session.scalars(select(Note.c.id), execution_options={"compiled_cache": kept}).all()


# -- what it costs ---------------------------------------------------------------------------------------------


def test_a_thread_is_still_read_by_its_index(mysql_url: str) -> None:
    from chalicelib.agents.shared.models import SharedConversationHistory as History

    service = DatabaseService(mysql_url)
    service.create_db_and_tables([History])
    sent: list[tuple[str, Any]] = []
    event.listen(service.engine, "before_cursor_execute", lambda *each: sent.append((each[2], each[3])))
    newest = (
        select(History).where(History.thread_id == "t").order_by(History.created_at.desc(), History.id.desc())
    )
    with for_agent(service, scope()).session_getter() as session:
        session.add_all(History(thread_id=f"t{n % 20}", role="user", content="x") for n in range(400))
        session.flush()
        session.scalars(newest.limit(20)).all()
    with service.connection() as connection:
        connection.exec_driver_sql("ANALYZE TABLE agentflow_shared_conversation_history").all()
        statement, values = sent[-2]
        (plan,) = connection.exec_driver_sql(f"EXPLAIN {statement}", values).mappings().all()
    service.close()
    assert plan["key"] == "ix_agentflow_shared_conversation_history_thread"
    # Equality on app_id, agent_name and thread_id: three parts of the index, and no sorting.
    assert plan["ref"] == "const,const,const"
    assert "filesort" not in (plan["Extra"] or "")


def test_a_statement_is_compiled_once_for_all_scopes(service: DatabaseService) -> None:
    compiled: list[int] = []

    class Counting(ScopedCompiler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            compiled.append(1)
            super().__init__(*args, **kwargs)

    engines = Engines(Counting)
    for app in (1, 2):
        for agent in ("a", "b"):
            with AgentDatabase(service, scope(app, agent), engines).reads() as session:
                assert len(session.scalars(select(SharedThread.id)).all()) == 2
    assert len(compiled) == 1
