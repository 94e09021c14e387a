"""How much of its history a node is told: as many bytes as its model leaves room for. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TOKEN_LIMIT = 8192 * 0.95
"""Taken for a node that states no `maxTokens`."""
SHARE = 0.8
"""Of the tokens; the rest is for the prompt itself."""

USER, ASSISTANT = "user", "assistant"
Message = dict[str, str]
NodeMaxToken = Mapping[str, int | None]
"""`maxTokens` by node id; None for a node that states none."""


def budget_of(max_tokens: float | None) -> float:
    """Return how many bytes of messages a node is told at most.

    Parameters
    ----------
    max_tokens
        What the node states, None where it states nothing.
    """
    return SHARE * (TOKEN_LIMIT if max_tokens is None else max_tokens)


def messages_of(question: str, answer: str) -> list[Message]:
    """Return a turn as messages, the user's first."""
    return [{"role": USER, "content": question}, {"role": ASSISTANT, "content": answer}]


def size_of(messages: Sequence[Message]) -> int:
    """Return the bytes of messages, each as JSON."""
    # As stored, not as \uXXXX: a Chinese character would count twice.
    return sum(len(json.dumps(message, ensure_ascii=False).encode()) for message in messages)


def within(turns: Sequence[tuple[str, str]], budget: float) -> list[Message]:
    """Return the newest turns that fit a budget, the oldest of them first.

    Parameters
    ----------
    turns
        Questions with their answers, the newest first. The first one that does not fit ends the walk: what is older
        would be told without what it led to.
    budget
        Bytes, as `size_of` counts them.
    """
    told: list[list[Message]] = []
    left = budget
    for question, answer in turns:
        messages = messages_of(question, answer)
        left -= size_of(messages)
        if left < 0:
            break
        told.append(messages)
    return [message for messages in reversed(told) for message in messages]


def node_max_tokens(data: Any) -> dict[str, int | None]:
    """Return the `maxTokens` of the nodes of a flow's data, in either spelling; of a draft that is not valid, what can
    be read of it."""
    nodes = data.get("nodes") if isinstance(data, dict) else None
    found: dict[str, int | None] = {}
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and isinstance(node.get("id"), str):
            parameters = _member(_member(node, "data"), "nodeParam", "node_param")
            found.setdefault(node["id"], _stated(parameters))
    return found


def _member(value: Any, *names: str) -> Any:
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in names if name in value), None)


def _stated(parameters: Any) -> int | None:
    value = _member(parameters, "maxTokens", "max_tokens")
    # Not isinstance: true is no number of tokens.
    return value if type(value) is int and value > 0 else None
