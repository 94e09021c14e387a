"""How a run ends, and what it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.core.answers import wire_bytes
from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.errors import BRANCH_FAILED, NODE_FAILED
from chalicelib.flows.engine.frame import Frame

MAX_ANSWER = 5 * 1024 * 1024
"""Bytes of the outputs and the content that a run ends with, as an answer carries them."""


@dataclass(frozen=True)
class RunError:
    """Why a run failed; `node_id` is None where no node is to blame."""

    code: int
    message: str
    node_id: str | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `state` is succeeded, failed or cancelled."""

    state: str
    outputs: Mapping[str, Any]
    content: str
    error: RunError | None
    usage: Usage


class RunFailed(Exception):
    """The run ends here."""

    def __init__(self, error: RunError) -> None:
        super().__init__(error.message)
        self.error = error


def answer_of(root: Frame) -> tuple[Mapping[str, Any], str]:
    """Return the outputs and the content of a run of which nothing is left to do.

    Raises
    ------
    RunFailed
        It reached no end, or gives more than a function can answer with.
    """
    outputs, content = root.result(), content_of(root)
    if outputs is None:
        raise RunFailed(RunError(BRANCH_FAILED, "No branch led to an end node.", None))
    if wire_bytes([outputs, content]) > MAX_ANSWER:
        message = f"Outputs and content take more than {MAX_ANSWER} bytes of an answer."
        raise RunFailed(RunError(NODE_FAILED, message, None))
    return outputs, content


def cut_content(text: str) -> str:
    """Return as much of the beginning of a failed run's content as an answer carries."""
    while wire_bytes(text) > MAX_ANSWER:
        text = text[: len(text) // 2]
    return text


def content_of(home: Frame) -> str:
    """Return what was said, in graph order: an end node's text after the messages."""
    ends = {number for number, _ in home.ends}

    def order(said: tuple[tuple[int, ...], str]) -> tuple[bool, tuple[int, ...]]:
        rank = said[0]
        return (len(rank) == 1 and rank[0] in ends, rank)

    return "".join(text for _, text in sorted(home.contents, key=order))
