"""The handles that a node offers to its edges."""

from __future__ import annotations

from typing import Any

from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, FAILURE_MARK, START, plain_handle
from chalicelib.flows.dsl.reading import DraftNode

_BRANCHES = {"if-else": "cases", "decision-making": "intentChains", "question-answer": "optionAnswer"}
"""Types that choose among branches, and the parameter that lists these."""
_ENDS = frozenset({END, *BODY_ENDS})
NEVER_FAIL = frozenset({START, END, *BODY_STARTS, *BODY_ENDS})
"""Types that have no failure edge."""


def branch_list(node_type: str, params: dict[str, Any]) -> tuple[str, list[dict[str, Any]]] | None:
    """The parameter that lists a node's branches, and these; None for a node that has one way out."""
    if node_type == "question-answer" and params["answerType"] != "option":
        return None
    name = _BRANCHES.get(node_type)
    return (name, params[name]) if name else None


def offers(node: DraftNode, handle: str) -> bool:
    """Whether an edge with a (plain) handle may leave a node. What could not be read is not held against it."""
    if FAILURE_MARK in handle:
        return node.type not in NEVER_FAIL and (not node.retry_known or node.retry.has_failure_edge)
    if node.type in _ENDS:
        return False
    if not node.type or node.params is None:
        return True
    return handle in handles(node)


def handles(node: DraftNode) -> frozenset[str]:
    """The handles of a node with valid parameters, without those of failure edges."""
    if node.type in _ENDS:
        return frozenset()
    branches = branch_list(node.type, node.params or {})
    if branches is None:
        return frozenset({""})
    return frozenset(plain_handle(branch["id"]) for branch in branches[1])
