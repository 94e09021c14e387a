"""What a node is told of its history: whole turns, the newest first, counted in bytes of JSON."""

from __future__ import annotations

import json

import pytest

from chalicelib.flows.history.budget import (
    budget_of,
    messages_of,
    node_max_tokens,
    size_of,
    within,
)


def test_a_budget_is_four_fifths_of_the_tokens() -> None:
    assert budget_of(1000) == 800
    assert budget_of(None) == pytest.approx(0.8 * 8192 * 0.95)


@pytest.mark.parametrize(
    ("text", "more"),
    [("", 0), ("abc", 3), ("é", 2), ("漢字", 6), ("😀", 4), ('"', 2), ("\n", 2), ("\0", 6)],
)
def test_a_message_counts_as_many_bytes_as_its_json(text: str, more: int) -> None:
    empty = size_of(messages_of("", ""))
    assert empty == len('{"role": "user", "content": ""}{"role": "assistant", "content": ""}')
    assert size_of(messages_of(text, "")) == size_of(messages_of("", text)) == empty + more


def turn(number: int, size: int) -> tuple[str, str]:
    """A turn whose messages have that many bytes."""
    question = f"q{number}"
    return question, "x" * (size - size_of(messages_of(question, "")))


def test_turns_are_told_as_far_as_the_budget_goes_to_the_byte() -> None:
    turns = [turn(3, 100), turn(2, 200), turn(1, 300)]
    for budget, told in ((99, []), (100, [3]), (299, [3]), (300, [2, 3]), (599.9, [2, 3]), (600, [1, 2, 3])):
        found = within(turns, budget)
        assert [message["content"] for message in found[::2]] == [f"q{number}" for number in told]
        assert [message["role"] for message in found] == ["user", "assistant"] * len(told)
        assert sum(len(json.dumps(message, ensure_ascii=False).encode()) for message in found) <= budget


def test_a_turn_that_does_not_fit_ends_the_walk() -> None:
    # What is older would fit; it is not told without what came after it.
    assert within([turn(3, 100), turn(2, 900), turn(1, 100)], 300) == messages_of(*turn(3, 100))
    assert within([turn(3, 900), turn(2, 100)], 300) == []
    assert within([], 300) == []


def llm(node_id: str, **parameters: object) -> dict[str, object]:
    return {"id": node_id, "data": {"nodeParam": parameters}}


def test_the_tokens_of_nodes_are_read_in_either_spelling() -> None:
    nodes = [llm("llm::1", maxTokens=100), llm("llm::2"), llm("llm::1", maxTokens=7)]
    nodes.append({"id": "llm::3", "data": {"node_param": {"max_tokens": 300}}})
    assert node_max_tokens({"nodes": nodes}) == {"llm::1": 100, "llm::2": None, "llm::3": 300}


@pytest.mark.parametrize("stated", [True, "100", 0, -1, 1.5, None, [100]])
def test_what_is_no_number_of_tokens_is_none_stated(stated: object) -> None:
    assert node_max_tokens({"nodes": [llm("llm::1", maxTokens=stated)]}) == {"llm::1": None}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"nodes": 7},
        {"nodes": [None, 7, {}, {"id": 7}, {"id": ["x"]}]},
        {"nodes": {"id": "llm::1"}},
    ],
)
def test_a_draft_may_be_anything(data: object) -> None:
    assert node_max_tokens(data) == {}


@pytest.mark.parametrize("data", [None, 7, [], {"nodeParam": 7}, {"nodeParam": [1]}])
def test_and_so_may_a_node(data: object) -> None:
    assert node_max_tokens({"nodes": [{"id": "llm::1", "data": data}]}) == {"llm::1": None}
