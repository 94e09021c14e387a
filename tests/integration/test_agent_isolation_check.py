"""The last check before a statement leaves; the scoped session as a session of the service; what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, func, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable, DropTable

from chalicelib.agents.scope.access import AGENT_BIND, APP_BIND, OPTION, Access, Scope, ScopeViolation
from chalicelib.agents.scope.compiler import ScopedCompiler
from chalicelib.agents.scope.engine import Engines
from chalicelib.agents.scope.sessions import AgentDatabase, cross_agent, for_agent
from chalicelib.core import guards
from chalicelib.core.database import DatabaseService, SecondConnection
from tests.integration import agent_world
from tests.integration.agent_world import everything
from tests.unit.agents.scope.models import AOwn, BOwn, SharedNote, SharedThread, scope

worlds, service, server = agent_world.worlds, agent_world.service, agent_world.server
mine, on_sqlite = agent_world.mine, agent_world.on_sqlite

Note = SharedNote.__table__


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

    for methods, reason in (
        ({"visit_insert": plain}, "without the columns of the scope"),
        ({"insert_values": lambda self, _: {}}, "was not rendered with the columns"),
    ):
        weak = AgentDatabase(service, scope(), unrecorded(**methods))
        with weak.session_getter() as session, pytest.raises(ScopeViolation, match=reason):
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


def test_what_is_compiled_beside_a_statement_is_checked_too(mine: AgentDatabase) -> None:
    # As SQLAlchemy does with a default that it has to ask the database for.
    with mine.reads() as session:
        session.execute(select(Note.c.id)).all()
        with pytest.raises(ScopeViolation, match="the agent a has no table agentflow_b_own"):
            select(BOwn.id).compile(dialect=session.get_bind().dialect)


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
        (plan,) = (
            connection.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {statement}", values).mappings().all()
        )
    service.close()
    assert plan["key"] == "ix_agentflow_shared_conversation_history_thread"
    # Equality on app_id, agent_name and thread_id: three parts of the index, and no sorting.
    assert plan["ref"] == "const,const,const"
    assert "filesort" not in (plan["Extra"] or "")


def test_the_scoped_dialect_knows_which_server_it_has(database_url: str) -> None:
    # Made before the service has a connection.
    service = DatabaseService(database_url)
    engine = Engines().over(service.engine, Access(scope(), writes=False))
    assert engine.dialect.server_version_info == service.engine.dialect.server_version_info
    assert engine.dialect.server_version_info is not None
    service.close()


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
