"""What the branches of a node are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.flows.diagram.text import clean
from chalicelib.flows.dsl.branches import branch_list
from chalicelib.flows.dsl.model import Edge, Node, plain_handle
from chalicelib.flows.dsl.params import DEFAULT_LEVEL

FAILURE = "on failure"


def names_of(node: Node) -> dict[str, str]:
    """Return the name of each handle of a node, in the order of its branches; empty for one that does not branch.

    The cases of an if-else have no names; they are numbered in the order in which they are tried.
    """
    if not node.params:
        return {}  # not valid: its handles are shown as they are
    found = branch_list(node.type, dict(node.params))
    if found is None:
        return {}
    name, branches = found
    if name != "cases":
        return {plain_handle(one["id"]): _name(one) for one in branches}
    tried = [one for one in branches if one.get("level") != DEFAULT_LEVEL]
    names = {
        plain_handle(one["id"]): f"if {number}" if len(tried) > 1 else "if"
        for number, one in enumerate(tried, start=1)
    }
    for one in branches:
        names.setdefault(plain_handle(one["id"]), "else")
    return names


def label_of(edge: Edge, names: Mapping[str, str]) -> str:
    """Return what is written at an edge; '' where there is nothing to tell.

    Parameters
    ----------
    names
        Of its source's handles.
    """
    if edge.failure:
        return FAILURE
    return names.get(edge.handle) or clean(edge.handle.rpartition("::")[2])


def _name(branch: Mapping[str, Any]) -> str:
    content = str(branch.get("content", ""))
    return clean(branch.get("name") or content) or clean(plain_handle(branch["id"]).rpartition("::")[2])
