"""Names of indexes and constraints are the table's own, at most 64 characters, and no two are alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    func,
    inspect,
)

from chalicelib.agents.loading.index_names import derive_names
from chalicelib.agents.names import table_name
from chalicelib.core.database import Base, DatabaseService
from tests.agent_folders import HISTORY, AgentFolders


@pytest.fixture
def made() -> Iterator[list[Table]]:
    tables: list[Table] = []
    yield tables
    for table in tables:
        Base.metadata.remove(table)


def table(
    made: list[Table], name: str, *items: Any, columns: tuple[str, ...] = ("a", "b", "a_b", "c")
) -> Table:
    texts = [Column(column, String(20)) for column in columns]
    built = Table(name, Base.metadata, Column("id", BigInteger, primary_key=True), *texts, *items)
    made.append(built)
    derive_names(built)
    return built


def names(built: Table) -> list[str]:
    return sorted(str(index.name) for index in built.indexes)


def test_a_name_that_says_the_table_is_kept(made: list[Table]) -> None:
    built = table(made, "agentflow_x_t", Index("by_agentflow_x_t_c", "c"), Index(None, "a", "b"))
    assert names(built) == ["by_agentflow_x_t_c", "ix_agentflow_x_t_a_b"]


def test_any_other_name_is_derived(made: list[Table]) -> None:
    built = table(
        made,
        "agentflow_x_t",
        Index("idx_thread_id_created", "a", "b"),
        UniqueConstraint("c", name="uq_c"),
        ForeignKeyConstraint(["a"], ["agentflow_x_t.id"], name="fk_a"),
        CheckConstraint("a <> b", name="a_is_not_b"),
        CheckConstraint("a <> c"),
    )
    assert names(built) == ["ix_agentflow_x_t_a_b"]
    assert sorted(str(item.name) for item in built.constraints if item.name and not item.name.startswith("pk")) == [
        "ck_agentflow_x_t_a_is_not_b", "fk_agentflow_x_t_a", "uq_agentflow_x_t_c",
    ]  # fmt: skip


def test_a_second_time_changes_nothing(made: list[Table]) -> None:
    built = table(made, "agentflow_x_t", *(Index(f"i{number}", "a", "b") for number in range(3)))
    first = names(built)
    assert len(set(first)) == 3
    derive_names(built)
    assert names(built) == first


def test_the_same_columns_and_expressions_stay_apart(made: list[Table]) -> None:
    built = table(made, "agentflow_x_t", columns=("a", "b"))
    Index("one", func.lower(built.c.a), _table=built)
    Index("two", func.upper(built.c.a), _table=built)
    Index("three", built.c.a)
    Index("four", built.c.a, unique=True)
    derive_names(built)
    assert len(set(names(built))) == 4
    assert all("agentflow_x_t_a" in name and len(name) <= 64 for name in names(built))


def test_two_tables_whose_names_lead_to_one_stay_apart(made: list[Table]) -> None:
    # GIVEN ix_agentflow_x_t_a_b of (a_b), and of another table's (b)
    first = table(made, "agentflow_x_t", Index(None, "a_b"))
    second = table(made, "agentflow_x_t_a", Index(None, "b"))
    assert names(first) == ["ix_agentflow_x_t_a_b"]
    assert names(second) != names(first)
    assert names(second)[0].startswith("ix_agentflow_x_t_a_b")


def test_long_names_that_sqlalchemy_would_shorten_to_the_same_stay_apart(made: list[Table]) -> None:
    # Its hash has 16 bits: among a few hundred columns two agree; ours is of 32.
    long = tuple(f"column_{'x' * 40}_{number}" for number in range(600))
    built = table(made, "agentflow_x_" + "t" * 40, *(Index(None, name) for name in long), columns=long)
    assert len(set(names(built))) == 600
    assert all(len(name) <= 64 for name in names(built))


@settings(max_examples=30)
@given(st.data())
def test_no_two_indexes_of_any_two_tables_are_alike(data: st.DataObject) -> None:
    made: list[Table] = []
    unique = uuid4().hex[:6]
    try:
        drawn = data.draw(
            st.lists(st.text("ab_", min_size=1, max_size=60), min_size=2, max_size=4, unique=True)
        )
        tables = {table_name("x" + unique, name) for name in drawn}
        columns = st.lists(st.sampled_from(["a", "b", "a_b", "c"]), min_size=1, max_size=3, unique=True)
        for name in sorted(tables):
            given_names = data.draw(st.lists(st.none() | st.text("ix_ab", min_size=1), max_size=4))
            table(made, name, *(Index(one, *data.draw(columns)) for one in given_names))
        found = [(index.name, built.name) for built in made for index in built.indexes]
        assert len({name for name, _ in found}) == len(found)
        assert all(len(str(name)) <= 64 for name, _ in found)
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine, made)
        assert sum(len(inspect(engine).get_indexes(built.name)) for built in made) == len(found)
        engine.dispose()
    finally:
        for built in made:
            Base.metadata.remove(built)


def test_the_same_index_name_in_two_agents_is_made_twice(folders: AgentFolders, database_url: str) -> None:
    # GIVEN two agents whose tables each have an `idx_thread_id_created`
    assert "idx_thread_id_created" in HISTORY
    for name, cls in (("a", "A"), ("b", "B")):
        folders.add_history(name, cls)
    models = [one.tables[0].model for one in folders.load().all()]
    # WHEN their tables are made
    database = DatabaseService(database_url)
    database.create_db_and_tables(models)
    # THEN each has its index, as the model says
    for model in models:
        assert all(result.success for result in database.check_table(model))
        assert f"ix_{model.__tablename__}_app_id_thread_id_created_at_id" in {
            result.name for result in database.check_table(model)
        }
    database.close()
