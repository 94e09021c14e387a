"""The history of a conversation as the API shows it: what its nodes would be told now, a page of nodes at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import NotFound
from chalicelib.core.hotcache import HotCache
from chalicelib.core.paging import Page
from chalicelib.flows import catalog
from chalicelib.flows.history.budget import NodeMaxToken, budget_of
from chalicelib.flows.history.dao import Chat, HistoryDAO

# Of the budgets of one page's nodes: an answer has at most 6 MB, in which every quotation mark counts twice.
MAX_PAGE_BYTES = 2 * 1024 * 1024


def published_data(cache: HotCache, caller: Caller, flow_id: int) -> Any:
    """Return the data of a flow's newest published version; None for a flow of the caller's that has none.

    Raises
    ------
    errors.NotFound
        `flow.not_found`; `flow.not_published` for another app's.
    """
    try:
        return catalog.find_usable(cache, caller, flow_id).data
    except NotFound:
        if catalog.owner_of(cache, flow_id) != caller.app_id:
            raise
        return None


def list_history(session: Session, chat: Chat, node_max_token: NodeMaxToken, page: Page) -> dict[str, Any]:
    """Return a page of the nodes that have a history in a conversation, by their ids, with what each would be told.

    Two queries, however many nodes there are. A page ends early where its nodes could be told more than an answer
    holds.

    Raises
    ------
    errors.BadRequest
        A tampered, foreign or malformed cursor.
    """
    position = page.position(1)
    dao = HistoryDAO(session)
    nodes = dao.nodes_of(chat, None if position is None else str(position[0]), page.limit + 1)
    shown = _fitting(nodes[: page.limit], node_max_token)
    told = {}
    if shown:
        found = dao.get_history(
            chat.app_id, chat.flow_id, chat.uid, node_max_token, chat.chat_id, nodes=shown
        )
        told = {node["nodeID"]: node["chat_history"] for node in found}
    return {
        "items": [{"nodeId": node_id, "chatHistory": told.get(node_id, [])} for node_id in shown],
        "nextCursor": page.encode([shown[-1]]) if len(shown) < len(nodes) else None,
    }


def _fitting(nodes: list[str], node_max_token: NodeMaxToken) -> list[str]:
    """Return the first nodes whose budgets fit one answer; one at least, since no budget is as large as that."""
    left = float(MAX_PAGE_BYTES)
    for number, node_id in enumerate(nodes):
        left -= budget_of(node_max_token.get(node_id))
        if left < 0:
            return nodes[: max(number, 1)]
    return nodes
