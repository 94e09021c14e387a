from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from chalicelib.apps.models import App, AppCredential
from chalicelib.core import cache_log
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import EVERYTHING, MOST_KEYS, SCOPES, CacheChange, CacheVersion, prune, touch
from chalicelib.core.database import Base, DatabaseService, Unit
from chalicelib.events import migration

ROOT = Path(__file__).resolve().parents[3]

# Which entries a change of a row drops: (scope, column of the key). By hand: a new table must be thought
# about here.
BUMPS: dict[str, tuple[str, str] | None] = {
    "agent": ("agents", "name"),
    "agent_move": None,
    "agent_table": ("agents", "table_name"),
    "app": ("apps", "id"),
    "app_credential": ("apps", "app_id"),
    "app_data_key": ("apps", "app_id"),
    "app_secret": ("apps", "app_id"),
    "app_source": None,
    "audit_log": None,
    "cache_change": None,
    "cache_version": None,
    "circuit_breaker": ("breakers", "app_id"),
    "flow": ("flows", "group_id"),
    "flow_run": None,
    "flow_run_data": None,
    "flow_run_event": None,
    "flow_run_node": None,
    "flow_variable": None,
    "idempotency_record": None,
    "instance": None,
    "job_run": None,
    "lease": None,
    "license": ("flows", "group_id"),
    "plugin_graph": None,
    "t_plugin": ("plugins", "plugin_id"),
    "t_plugin_config": ("plugins", "plugin_id"),
    "t_plugin_dependency": None,
    "t_plugin_execution": None,
    "t_plugin_history": None,
    "t_plugin_install": None,
    "t_plugin_metric": None,
    "t_plugin_removal": None,
    "t_plugin_tombstone": None,
    "t_plugin_version": ("plugins", "plugin_id"),
    "tool_credential": ("tools", "tool_id"),
    "tool_document": ("tools", "tool_id"),
    "tool_execution": None,
    "tool_meta": ("tools", "tool_id"),
    "tools_schema": ("tools", "tool_id"),
    "workflow_node_history": None,
}


def app(number: int, **values: Any) -> App:
    return App(**({"id": number, "name": f"app {number}", "alias_id": f"app-{number}"} | values))


def credential(number: int, app_id: int) -> AppCredential:
    return AppCredential(
        id=number, app_id=app_id, api_key=f"key-{number}", secret_hash=b"\0" * 32, role="viewer"
    )


def version(database: DatabaseService, scope: str = "apps") -> int:
    with database.reads() as session:
        return session.scalars(select(CacheVersion.version).where(CacheVersion.scope == scope)).one()


def changes(database: DatabaseService, scope: str = "apps", after: int = 0) -> list[tuple[int, str]]:
    query = select(CacheChange).where(CacheChange.scope == scope, CacheChange.version > after)
    with database.reads() as session:
        rows = session.scalars(query.order_by(CacheChange.version, CacheChange.item_key))
        return [(row.version, row.item_key) for row in rows]


@pytest.fixture
def apps(database: DatabaseService) -> DatabaseService:
    """A database with the apps 1 and 2, at version 1 of its scope."""
    with database.session_getter() as session:
        session.add_all([app(1), app(2)])
    assert changes(database) == [(1, "1"), (1, "2")]
    return database


# -- what is noticed -----------------------------------------------------------------------------------------


def test_an_insert_bumps_its_scope_and_no_other(database: DatabaseService) -> None:
    with database.session_getter() as session:
        session.add(app(7))
    assert {scope: version(database, scope) for scope in SCOPES} == dict.fromkeys(SCOPES, 0) | {"apps": 1}
    assert changes(database) == [(1, "7")]


def test_an_update_bumps(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "renamed"
    assert changes(apps, after=1) == [(2, "1")]


def test_an_update_that_changes_nothing_bumps_nothing(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "app 1"
    assert version(apps) == 1


def test_a_delete_bumps(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.delete(session.get_one(App, 2))
    assert changes(apps, after=1) == [(2, "2")]


def test_a_row_that_is_changed_after_an_early_flush_bumps(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "flushed"
        session.flush()
        session.get_one(App, 2).name = "not flushed"
    assert changes(apps, after=1) == [(2, "1"), (2, "2")]


def test_a_row_that_moves_to_another_key_bumps_both(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.add(credential(10, app_id=1))
    with apps.session_getter() as session:
        session.get_one(AppCredential, 10).app_id = 2
    assert changes(apps, after=2) == [(3, "1"), (3, "2")]


def test_a_row_that_moves_from_a_key_that_was_not_loaded_bumps_everything(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.add(credential(10, app_id=1))
    with apps.session_getter() as session:
        row = session.get_one(AppCredential, 10)
        session.expire(row, ["app_id"])
        row.app_id = 2
    assert changes(apps, after=2) == [(3, EVERYTHING)]


def test_rows_that_nobody_caches_bump_nothing(database: DatabaseService) -> None:
    with database.session_getter() as session:
        row = {
            "app_id": 1,
            "credential_id": 1,
            "action": "a",
            "object_type": "t",
            "object_id": "o",
            "request_id": "r",
        }
        session.add(AuditLog(**row))
        session.execute(insert(AuditLog.__table__), [row | {"id": 5}])  # type: ignore[arg-type]
    assert [version(database, scope) for scope in SCOPES] == [0] * len(SCOPES)


@pytest.mark.parametrize(
    "statement",
    [
        update(App).where(App.id == 1).values(name="bulk"),
        delete(App).where(App.id == 2),
        insert(App).values(id=3, name="bulk", alias_id="bulk"),
    ],
    ids=["update", "delete", "insert"],
)
def test_a_bulk_statement_bumps_everything(apps: DatabaseService, statement: Any) -> None:
    with apps.session_getter() as session:
        session.execute(statement)
    assert changes(apps, after=1) == [(2, EVERYTHING)]


def test_touch_adds_a_key_that_no_row_shows(database: DatabaseService) -> None:
    with database.session_getter() as session:
        touch(session, "breakers", "host.example")
        session.add(app(1))
    assert changes(database, "breakers") == [(1, "host.example")]
    assert changes(database) == [(1, "1")]


# -- what is refused, because it would not be noticed --------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        update(App.__table__).values(name="unseen"),  # type: ignore[arg-type]
        delete(App.__table__),  # type: ignore[arg-type]
        insert(App.__table__).values(id=3, name="unseen", alias_id="unseen"),  # type: ignore[arg-type]
        text("UPDATE app SET name = 'unseen'"),
        text("  delete from `app`"),
        text("INSERT INTO app (id) VALUES (1)"),
        text("REPLACE INTO app (id) VALUES (1)"),
        text("WITH old AS (SELECT 1) UPDATE app SET name = 'unseen'"),
    ],
    ids=str,
)
def test_a_statement_that_names_no_model_is_refused_on_a_cached_table(
    apps: DatabaseService, statement: Any
) -> None:
    with pytest.raises(RuntimeError, match="bumps no cache version"), apps.session_getter() as session:
        session.execute(statement)
    assert version(apps) == 1
    with apps.reads() as session:
        assert sorted(session.scalars(select(App.name))) == ["app 1", "app 2"]


def test_text_that_reads_a_cached_table_or_writes_another_is_allowed(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        assert session.execute(text("SELECT COUNT(*) FROM app")).scalar() == 2
        session.execute(text("DELETE FROM app_source"))
    assert version(apps) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda session: session.connection(),
        lambda session: session.bulk_save_objects([app(3)]),
        lambda session: session.bulk_insert_mappings(App, [{"id": 3, "name": "x", "alias_id": "x"}]),
        lambda session: session.bulk_update_mappings(App, [{"id": 1, "name": "x"}]),
    ],
    ids=["connection", "save", "insert", "update"],
)
def test_ways_past_the_listeners_are_refused(apps: DatabaseService, write: Any) -> None:
    with pytest.raises(RuntimeError, match="without bumping"), apps.session_getter() as session:
        write(session)
    assert version(apps) == 1


def test_a_read_session_does_not_write(apps: DatabaseService) -> None:
    with pytest.raises(RuntimeError, match="does not write"), apps.reads() as session:
        session.execute(update(App).values(name="unseen"))
    with pytest.raises(RuntimeError, match="does not write"), apps.reads() as session:
        session.execute(text("UPDATE app SET name = 'unseen'"))
    with pytest.raises(RuntimeError, match="does not write"), apps.reads() as session:
        session.add(app(3))
        session.flush()
    with apps.reads() as session:
        assert sorted(session.scalars(select(App.name))) == ["app 1", "app 2"]


def test_a_row_that_is_written_after_the_bump_is_refused(apps: DatabaseService) -> None:
    def late(session: Unit) -> None:
        session.get_one(App, 1).name = "unseen"

    with pytest.raises(RuntimeError, match="after the unit had bumped"), apps.session_getter() as session:
        # A listener of this very session runs after those of its class.
        event.listen(session, "before_commit", late)
        session.get_one(App, 2).name = "seen"
    assert version(apps) == 1


# -- transactions --------------------------------------------------------------------------------------------


def test_a_rollback_undoes_the_bump(apps: DatabaseService) -> None:
    with pytest.raises(KeyError), apps.session_getter() as session:
        session.get_one(App, 1).name = "never"
        session.flush()
        raise KeyError
    assert version(apps) == 1
    assert changes(apps, after=1) == []


def test_the_bump_is_the_last_that_a_unit_does(apps: DatabaseService) -> None:
    statements: list[str] = []

    def watch(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(" ".join(statement.split()[:3]))

    event.listen(apps.engine, "before_cursor_execute", watch)
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "renamed"
        touch(session, "tools", "t")
    event.remove(apps.engine, "before_cursor_execute", watch)
    assert [one for one in statements if not one.startswith("BEGIN")][1:] == [
        "UPDATE app SET",
        "UPDATE cache_version SET",
        "SELECT cache_version.scope, cache_version.version",
        "INSERT INTO cache_change",
    ]


def test_a_savepoint_that_is_rolled_back_loses_no_bump_of_what_was_before(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "kept"
        with pytest.raises(KeyError), session.begin_nested():
            session.get_one(App, 2).name = "undone"
            raise KeyError
    assert (2, "1") in changes(apps, after=1)
    with apps.reads() as session:
        assert sorted(session.scalars(select(App.name))) == ["app 2", "kept"]


def test_a_savepoint_that_is_kept_bumps_once_at_the_end(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        with session.begin_nested():
            session.get_one(App, 1).name = "inside"
        assert session.scalars(select(CacheVersion.version).where(CacheVersion.scope == "apps")).one() == 1
        session.get_one(App, 2).name = "after"
    assert changes(apps, after=1) == [(2, "1"), (2, "2")]


def test_a_session_that_commits_twice_bumps_each_time_what_it_changed(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 1).name = "first"
        session.commit()
        session.get_one(App, 2).name = "second"
    assert changes(apps, after=1) == [(2, "1"), (3, "2")]


def test_a_session_that_goes_on_after_an_error_bumps_only_what_it_commits(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.get_one(App, 2).name = "undone"
        session.add(app(3, alias_id="app-1"))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        session.get_one(App, 1).name = "done"
    assert changes(apps, after=1) == [(2, "1")]


def test_a_unit_that_bumps_several_scopes_moves_each_by_one(database: DatabaseService) -> None:
    with database.session_getter() as session:
        for scope in reversed(SCOPES):
            touch(session, scope, "k")
            touch(session, scope, "l")
    assert [version(database, scope) for scope in SCOPES] == [1] * len(SCOPES)
    assert changes(database, "flows") == [(1, "k"), (1, "l")]


@pytest.mark.parametrize(("keys", "logged"), [(MOST_KEYS, MOST_KEYS), (MOST_KEYS + 1, 1)])
def test_a_unit_that_touches_many_keys_logs_everything(
    database: DatabaseService, keys: int, logged: int
) -> None:
    with database.session_getter() as session:
        session.add_all(app(number) for number in range(1, keys + 1))
        touch(session, "tools", "t")
    assert len(changes(database)) == logged
    assert (changes(database) == [(1, EVERYTHING)]) is (logged == 1)
    assert changes(database, "tools") == [(1, "t")]


def test_a_database_that_was_not_migrated_refuses_to_commit(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.execute(delete(CacheVersion).where(CacheVersion.scope == "apps"))
    with pytest.raises(RuntimeError, match="no row for apps"), apps.session_getter() as session:
        session.get_one(App, 1).name = "never"
    with apps.reads() as session:
        assert session.get_one(App, 1).name == "app 1"


# -- the table itself ----------------------------------------------------------------------------------------


def test_seeding_again_keeps_versions_and_the_one_epoch(apps: DatabaseService) -> None:
    with apps.session_getter() as session:
        session.execute(delete(CacheVersion).where(CacheVersion.scope == "flows"))
    with apps.session_getter() as session:
        cache_log.seed(session)
    with apps.reads() as session:
        rows = list(session.scalars(select(CacheVersion)))
    assert {row.scope for row in rows} == set(SCOPES)
    assert len({row.epoch for row in rows}) == 1
    assert version(apps) == 1


def test_a_new_epoch_is_that_of_every_scope(database: DatabaseService) -> None:
    with database.session_getter() as session:
        before = session.scalars(select(CacheVersion.epoch).distinct()).one()
        epoch = cache_log.renew_epoch(session)
    with database.reads() as session:
        assert session.scalars(select(CacheVersion.epoch).distinct()).one() == epoch != before


def log(database: DatabaseService, scope: str, through: int) -> None:
    with database.session_getter() as session:
        session.execute(update(CacheVersion).where(CacheVersion.scope == scope).values(version=through))
        session.execute(
            insert(CacheChange),
            [{"scope": scope, "version": number, "item_key": "k"} for number in range(1, through + 1)],
        )


def test_pruning_keeps_the_newest_ten_thousand_and_deletes_a_prefix(database: DatabaseService) -> None:
    # GIVEN one scope with more changes than are kept and one with fewer
    log(database, "apps", cache_log.KEPT_VERSIONS + 1500)
    log(database, "tools", 10)
    with database.reads() as session:
        plan = cache_log.plan_prune(session)
    assert plan == {"apps": 1500}

    # WHEN batches are deleted THEN each time a prefix is gone
    deleted = []
    while not deleted or deleted[-1]:
        with database.session_getter() as session:
            deleted.append(prune(session, "apps", plan["apps"]))
        left = [number for number, _ in changes(database)]
        assert left == list(range(sum(deleted) + 1, cache_log.KEPT_VERSIONS + 1501))
    assert deleted == [1000, 500, 0]
    with database.reads() as session:
        assert cache_log.plan_prune(session) == {}


# -- every model ---------------------------------------------------------------------------------------------


def models() -> list[type[Base]]:
    found: list[type[Base]] = []
    todo: list[type[Base]] = [Base]
    while todo:
        for model in todo.pop().__subclasses__():
            todo.append(model)
            # What agents declare is kept by no function: their tables are made, not migrated.
            ours = model.__module__.startswith("chalicelib.") and hasattr(model, "__tablename__")
            if ours and not model.__tablename__.startswith("agentflow_"):
                found.append(model)
    return found


def test_every_model_is_in_the_table_and_bumps_what_it_says() -> None:
    declared = {
        model.__tablename__: (model.cache_scope, model.cache_key) if model.cache_scope is not None else None
        for model in models()
    }
    assert declared == BUMPS


@pytest.mark.parametrize("model", migration.MODELS, ids=lambda model: model.__tablename__)
def test_every_model_says_itself_whether_it_is_cached(model: type[Base]) -> None:
    assert "cache_scope" in vars(model), "inherited silence is how a bump is forgotten"
    if model.cache_scope is None:
        assert model.cache_key is None
    else:
        assert model.cache_scope in SCOPES
        assert model.cache_key in model.__table__.columns
        column = model.__table__.columns[model.cache_key]
        assert not column.nullable
        assert getattr(column.type, "length", None) is None or column.type.length <= 128


def test_no_cached_table_loses_rows_by_a_cascade_of_the_server() -> None:
    for model in migration.MODELS:
        if model.cache_scope is not None:
            for key in model.__table__.foreign_keys:
                assert (key.ondelete, key.onupdate) == (None, None), (
                    "the listeners do not see what the server does"
                )


def test_every_module_with_tables_is_migrated() -> None:
    with_tables = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "chalicelib").rglob("*.py")
        if re.search(r'^    __tablename__ = "(?!agentflow_)', path.read_text(), re.MULTILINE)
    }
    assert with_tables == {module.__name__ for module in migration.MODEL_MODULES}
    assert {model.__tablename__ for model in migration.MODELS} == set(BUMPS)
