"""What nodes are told of earlier runs, and what they leave for later ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.llm.model import ChatMessage
from chalicelib.flows.engine.call import Exchange, Scope
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.nodes.asking import is_told


def told(database: DatabaseService, scope: Scope, plan: Plan) -> Scope:
    """Return the scope with what was said at the nodes of a flow that are told of it: one query, or none where no node
    is. Not inside a unit."""
    from chalicelib.flows.history import service

    nodes = {
        node.id: node.params.get("maxTokens") for node in plan.flow.nodes.values() if is_told(node.params)
    }
    if not nodes or not scope.history:
        return scope
    with database.reads() as session:
        found = service.get(session, scope.caller.app_id, scope.flow_id, scope.uid, scope.chat_id, nodes)
    memory = {
        node_id: tuple(ChatMessage(one["role"], one["content"]) for one in messages)
        for node_id, messages in found.items()
    }
    return replace(scope, memory=memory)


def keep(session: Unit, scope: Scope, exchanges: Iterable[tuple[str, int, Exchange]]) -> None:
    """Keep what was said in a run that has succeeded; for a run without a history nothing."""
    from chalicelib.flows.history import service

    if not scope.history:
        return
    service.add(
        session,
        [
            service.Entry(
                scope.caller.app_id, flow_id, node_id, scope.uid, scope.chat_id, one.question, one.answer
            )
            for node_id, flow_id, one in exchanges
        ],
    )
