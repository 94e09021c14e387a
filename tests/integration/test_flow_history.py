"""The history of nodes: what is stored of it, and what a node is told, by one query."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, func, select

from chalicelib.core.database import DatabaseService
from chalicelib.flows.history import service
from chalicelib.flows.history.budget import budget_of, messages_of, within
from chalicelib.flows.history.clipping import MAX_VALUE_BYTES
from chalicelib.flows.history.dao import Chat, Entry, HistoryDAO, history_query
from chalicelib.flows.history.models import NodeHistory
from chalicelib.flows.history.octets import octets
from tests.conftest import create_schema
from tests.wire import WireProxy

APP, FLOW, NODE = 11, 7_000_000_001, "llm::1"
CHAT = Chat(APP, FLOW, "ann", "chat")
ROOMY = 1_000_000


def entry(question: str, answer: str = "yes", node_id: str = NODE, **other: Any) -> Entry:
    whose = {"app_id": APP, "flow_id": FLOW, "uid": "ann", "chat_id": "chat", **other}
    return Entry(node_id=node_id, question=question, answer=answer, **whose)


def add(database: DatabaseService, *entries: Entry) -> None:
    database.run(lambda session: service.add(session, entries))


def get(database: DatabaseService, tokens: Any = None, **other: Any) -> dict[str, Any]:
    whose = {"app_id": APP, "flow_id": FLOW, "uid": "ann", "chat_id": "chat", **other}
    with database.reads() as session:
        return service.get(session, node_max_token=tokens or {NODE: ROOMY}, **whose)


def questions(told: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in told[::2]]


@contextmanager
def statements(database: DatabaseService) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(*told: Any) -> None:
        sent.append(told[2])

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


# -- what is told --------------------------------------------------------------------------------------------------


def test_the_newest_ten_turns_are_told_the_oldest_first(database: DatabaseService) -> None:
    for number in range(12):
        add(database, entry(f"q{number}", f"a{number}"))
    told = get(database)
    assert told == {
        NODE: [message for number in range(2, 12) for message in messages_of(f"q{number}", f"a{number}")]
    }


def test_turns_of_one_microsecond_keep_their_order(database: DatabaseService) -> None:
    # One batch has one time.
    add(database, *(entry(f"q{number}") for number in range(50)))
    with database.reads() as session:
        assert session.scalar(select(func.count(NodeHistory.create_time.distinct()))) == 1
    assert questions(get(database)[NODE]) == [f"q{number}" for number in range(40, 50)]


def test_the_contract_of_the_two_look_ups(database: DatabaseService) -> None:
    database.run(
        lambda session: HistoryDAO(session).add_history(APP, FLOW, NODE, "ann", "how?", "so", "chat")
    )
    with database.reads() as session:
        found = HistoryDAO(session).get_history(APP, FLOW, "ann", {NODE: 100}, "chat")
    assert found == [{"nodeID": NODE, "chat_history": messages_of("how?", "so")}]


def test_only_the_nodes_that_are_asked_for_are_read(database: DatabaseService) -> None:
    add(database, entry("mine"), entry("other", node_id="llm::2"))
    assert get(database, {NODE: None, "llm::3": 10}) == {NODE: messages_of("mine", "yes")}
    with statements(database) as sent:
        with database.reads() as session:
            assert service.get(session, APP, FLOW, "ann", "chat", {}) == {}
        assert sent == []
    # The contract's own look-up reads them all, and takes the default where none is stated.
    with database.reads() as session:
        found = HistoryDAO(session).get_history(APP, FLOW, "ann", {}, "chat")
    assert [node["nodeID"] for node in found] == [NODE, "llm::2"]


def test_a_conversation_is_nobody_elses(database: DatabaseService) -> None:
    long = "x" * 64
    others: list[dict[str, Any]] = [
        {"app_id": 22}, {"flow_id": FLOW + 1}, {"uid": ""}, {"uid": "Ann"}, {"uid": "ann "}, {"uid": "ännn"},
        {"uid": " ann"}, {"uid": "ann\0"}, {"chat_id": ""}, {"chat_id": "chat "}, {"chat_id": "CHAT"},
        {"uid": long}, {"uid": long + "y"}, {"uid": long + "z"}, {"chat_id": long + "y"}, {"chat_id": long + "z"},
        {"uid": "漢" * 255, "chat_id": "字" * 255},
    ]  # fmt: skip
    for number, other in enumerate(others):
        add(database, entry(f"q{number}", **other))
    assert get(database) == {}
    add(database, entry("mine"))
    assert questions(get(database)[NODE]) == ["mine"]
    for number, other in enumerate(others):
        assert questions(get(database, **other)[NODE]) == [f"q{number}"], other


def test_nodes_are_told_as_much_as_a_plain_walk_would_tell_them(database: DatabaseService) -> None:
    chosen = random.Random(7)
    tokens: dict[str, int | None] = {
        f"llm::{number}": chosen.choice([None, 1, 200, 500, 2048, 3000, 100_000]) for number in range(40)
    }
    alphabet = 'aé漢😀"\\\n\0'
    kept: dict[str, list[tuple[str, str]]] = defaultdict(list)
    entries = []
    for _ in range(600):
        node_id = chosen.choice(list(tokens))
        texts = ["".join(chosen.choices(alphabet, k=chosen.choice([0, 3, 20, 200]))) for _ in range(2)]
        kept[node_id].insert(0, (texts[0], texts[1]))
        entries.append(entry(*texts, node_id=node_id))
    add(database, *entries)
    expected = {
        node_id: told
        for node_id, turns in kept.items()
        if (told := within(turns[:10], budget_of(tokens[node_id])))
    }
    assert len(expected) > 25
    assert get(database, tokens) == expected


def test_a_hundred_nodes_are_one_query(database: DatabaseService) -> None:
    nodes = [f"llm::{number}" for number in range(100)]
    for number in range(50):
        add(database, *(entry(f"q{number}", node_id=node_id) for node_id in nodes))
    tokens = {node_id: 1000 + number for number, node_id in enumerate(nodes)}
    with statements(database) as sent:
        told = get(database, tokens)
    assert len(sent) == 1
    assert set(told) == set(nodes)
    assert all(questions(one) == [f"q{number}" for number in range(40, 50)] for one in told.values())


def test_what_cannot_fit_is_not_sent(database: DatabaseService) -> None:
    sizes = [2_000_000, 50, 50, 2_000_000, 50, 50]
    add(database, *(entry("q" * size, "") for size in sizes), entry("q" * 3000, "a" * 3000, "llm::2"))
    tokens = {NODE: 1000, "llm::2": 1000}
    with database.reads() as session:
        rows = session.execute(history_query(CHAT, tokens)).all()
    # The walk of the first node ends at the turn of megabytes, that of the second begins with one that is too long.
    assert [(row.node_id, len(row.raw_question)) for row in rows] == [(NODE, 50), (NODE, 50)]
    assert set(get(database, tokens)) == {NODE}


# -- what is kept ----------------------------------------------------------------------------------------------------


# Of quotation marks, which are escaped: twice as much on the wire.
@pytest.mark.parametrize(("character", "width"), [("'", 1), ("漢", 3)])
def test_texts_as_long_as_their_columns_are_kept(
    database: DatabaseService, character: str, width: int
) -> None:
    whole = MAX_VALUE_BYTES // width
    text = character * (whole + 10)
    add(database, entry("before"), entry(text, text, "llm::2"), entry("after"))
    with database.reads() as session:
        for column in (NodeHistory.raw_question, NodeHistory.raw_answer):
            # One by one: a row of both is longer than a packet of the server.
            assert session.scalar(select(column).where(NodeHistory.node_id == "llm::2")) == text[:whole]
            assert (
                session.scalar(select(octets(column)).where(NodeHistory.node_id == "llm::2")) == whole * width
            )
    assert questions(get(database)[NODE]) == ["before", "after"]
    assert get(database, {"llm::2": None}) == {}


def test_what_a_model_makes_of_unicode_is_kept(database: DatabaseService) -> None:
    add(database, entry("\ud83d", "a\0b"))
    assert get(database) == {NODE: messages_of("\ufffd", "a\0b")}


@pytest.mark.parametrize(
    "other", [{"uid": "x" * 256}, {"chat_id": "x" * 256}, {"node_id": "llm::" + "x" * 251}]
)
def test_names_that_do_not_fit_are_refused(database: DatabaseService, other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="longer name"):
        add(database, entry("q"), entry("q", **other))
    with database.reads() as session:
        assert session.scalar(select(func.count()).select_from(NodeHistory)) == 0


def test_turns_belong_to_the_unit_that_adds_them(database: DatabaseService) -> None:
    with pytest.raises(ZeroDivisionError), database.session_getter() as session:
        service.add(session, [entry("q")])
        assert service.get(session, APP, FLOW, "ann", "chat", {NODE: None}) != {}
        raise ZeroDivisionError
    assert get(database) == {}
    add(database)


def test_a_run_of_many_nodes_is_one_insert_and_one_query_on_the_wire(mysql_url: str) -> None:
    create_schema(mysql_url).close()
    with WireProxy(mysql_url) as wire:
        database = DatabaseService(wire.url)
        tokens = {f"llm::{number}": None for number in range(100)}
        add(database, *(entry("how?" * 20, "so" * 100, node_id) for node_id in tokens))
        sent = [command for command in wire.commands if command.startswith("QUERY INSERT")]
        assert len(sent) == 1
        # The line behind a long statement is given back, as that of a proxy should be.
        get(database, tokens)
        wire.commands.clear()
        assert len(get(database, tokens)) == 100
        assert [command[:12] for command in wire.commands] == ["QUERY SELECT"]
        database.close()
