"""How a run ends, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.errors import BRANCH_FAILED, NODE_FAILED
from chalicelib.flows.engine.frame import Frame

MAX_ANSWER = 5 * 1024 * 1024
"""Bytes of the outputs and the content that a run ends with: a function answers with no more than 6 MB."""


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
    text = json.dumps(outputs, ensure_ascii=False, separators=(",", ":"))
    if sum(len(part.encode("utf-8", "surrogatepass")) for part in (content, text)) > MAX_ANSWER:
        message = f"Outputs and content are larger than {MAX_ANSWER} bytes."
        raise RunFailed(RunError(NODE_FAILED, message, None))
    return outputs, content


def content_of(home: Frame) -> str:
    """Return what was said, in graph order: an end node's text after the messages."""
    ends = {number for number, _ in home.ends}

    def order(said: tuple[tuple[int, ...], str]) -> tuple[bool, tuple[int, ...]]:
        rank = said[0]
        return (len(rank) == 1 and rank[0] in ends, rank)

    return "".join(text for _, text in sorted(home.contents, key=order))
