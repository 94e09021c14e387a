from __future__ import annotations

from chalicelib.agents.models import AgentTable
from chalicelib.agents.tables.definition import schema_hash
from chalicelib.agents.tables.states import check
from tests.agent_tables import NOTES, model, owned

NOTE = owned(model())


def row(**changes: str) -> AgentTable:
    stored = {"owner": NOTE.owner, "schema_hash": schema_hash(NOTE.model)} | changes
    return AgentTable(table_name=NOTES, mode="independent", earlier_hashes=[], problems=[], **stored)


def test_each_state_is_told_from_the_stored_row() -> None:
    assert check([row()], [NOTE]) == {NOTES: "ready"}
    assert check([], [NOTE]) == {NOTES: "missing"}
    assert check([row(schema_hash="0" * 64)], [NOTE]) == {NOTES: "outdated"}
    assert check([row(schema_hash="")], [NOTE]) == {NOTES: "outdated"}
    assert check([row(owner="other")], [NOTE]) == {NOTES: "foreign"}
    assert check(None, [NOTE]) == {NOTES: "unknown"}


def test_what_was_only_added_to_serves_the_release_before() -> None:
    stored = row(schema_hash="1" * 64)
    stored.earlier_hashes = ["2" * 64, schema_hash(NOTE.model)]
    assert check([stored], [NOTE]) == {NOTES: "ready"}


def test_a_foreign_table_is_foreign_even_with_the_same_definition_or_another() -> None:
    assert check([row(owner="other", schema_hash="")], [NOTE]) == {NOTES: "foreign"}


def test_a_problem_that_does_not_hinder_leaves_the_table_ready() -> None:
    stored = row()
    stored.problems = ["column old: the model does not know it; it stays"]
    assert check([stored], [NOTE]) == {NOTES: "ready"}


def test_rows_of_other_tables_are_nothing() -> None:
    assert check([row()], []) == {}
    other = owned(model(name="agentflow_notes_other"))
    assert check([row()], [NOTE, other]) == {NOTES: "ready", "agentflow_notes_other": "missing"}
