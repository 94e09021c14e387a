"""Which edges are followed from a node that has ended."""

from __future__ import annotations

from chalicelib.flows.dsl.branches import branch_list
from chalicelib.flows.dsl.model import Edge, Node, plain_handle
from chalicelib.flows.dsl.nodes import is_default
from chalicelib.flows.engine.frame import Takes


def taken(branch: str) -> Takes:
    """Those of a branch; of "", all of a node that has one way out. Never a failure edge."""
    return lambda edge: not edge.failure and edge.handle == branch


def on_failure(edge: Edge) -> bool:
    """The failure edges."""
    return edge.failure


def default_branch(node: Node) -> str:
    """The branch that is taken when no other is; "" for a node that has one way out."""
    listed = branch_list(node.type, dict(node.params))
    branches = [] if listed is None else listed[1]
    return next((plain_handle(one["id"]) for one in branches if is_default(node.type, one)), "")
