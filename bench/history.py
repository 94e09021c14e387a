"""The history of nodes: one query for all of them against one query a node."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Table, event, select

from bench.clock import interleaved, seconds
from bench.figure import Figure, compared, counted
from chalicelib.core.database import DatabaseService
from chalicelib.core.paging import through
from chalicelib.flows.history import service
from chalicelib.flows.history.budget import Message, budget_of, within
from chalicelib.flows.history.dao import MOST_TURNS, Chat, Entry
from chalicelib.flows.history.models import NodeHistory
from tests import databases
from tests.conftest import create_schema

AREA = "history"
NODES, TURNS = 100, 50
ROUNDS = 30
CHAT = Chat(11, 7_000_000_001, "ann", "monday")
TOKENS: dict[str, int | None] = {f"llm::{number}": 2048 for number in range(NODES)}
_TABLE = cast(Table, NodeHistory.__table__)


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with databases.new_database() as url:
        database = create_schema(url)
        try:
            return _measure(database)
        finally:
            database.close()


def _measure(database: DatabaseService) -> list[Figure]:
    for number in range(TURNS):
        with database.session_getter() as session:
            service.add(session, _turns(number))
    if _together(database, TOKENS) != _one_by_one(database, TOKENS):
        raise RuntimeError("the two ways to read a history differ")
    few = dict(list(TOKENS.items())[:10])
    return [
        counted(
            f"history of {NODES} nodes with {TURNS} turns each: queries", AREA, _queries(database), "", 1
        ),
        _against(database, TOKENS, 0.5),
        _against(database, few, 1.0),
    ]


def _turns(number: int) -> list[Entry]:
    question, answer = f"How far is number {number}? " * 3, "So far. " * 20
    return [
        Entry(CHAT.app_id, CHAT.flow_id, node_id, CHAT.uid, CHAT.chat_id, question, answer)
        for node_id in TOKENS
    ]


def _against(database: DatabaseService, tokens: dict[str, int | None], budget: float) -> Figure:
    readings = interleaved(
        {
            "together": lambda: seconds(lambda: _together(database, tokens)),
            "one by one": lambda: seconds(lambda: _one_by_one(database, tokens)),
        },
        ROUNDS,
        warm_up=3,
    )
    return compared(
        f"history of {len(tokens)} of {NODES} nodes with {TURNS} turns each / one query a node",
        AREA, readings["together"], readings["one by one"], "ms", budget, scale=1000,
    )  # fmt: skip


def _together(database: DatabaseService, tokens: dict[str, int | None]) -> dict[str, list[Message]]:
    with database.reads() as session:
        return service.get(session, CHAT.app_id, CHAT.flow_id, CHAT.uid, CHAT.chat_id, tokens)


def _one_by_one(database: DatabaseService, tokens: dict[str, int | None]) -> dict[str, list[Message]]:
    """The floor: the newest turns of one node after the other, each by the end of its range of the index."""
    found: dict[str, list[Message]] = {}
    with database.reads() as session:
        for node_id, most in tokens.items():
            query = select(_TABLE.c.raw_question, _TABLE.c.raw_answer).where(
                *CHAT.conditions(_TABLE), _TABLE.c.node_id == node_id
            )
            newest: Any = through(query, _TABLE, "ix_workflow_node_history_chat").order_by(_TABLE.c.id.desc())
            turns = [(row.raw_question, row.raw_answer) for row in session.execute(newest.limit(MOST_TURNS))]
            found[node_id] = within(turns, budget_of(most))
    return found


def _queries(database: DatabaseService) -> int:
    sent: list[str] = []

    def note(*told: Any) -> None:
        sent.append(told[2])

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        _together(database, TOKENS)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return len(sent)
