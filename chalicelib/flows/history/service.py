"""The history of nodes, as runs use it: `get` before the nodes begin, `add` in the unit in which the run ends."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from chalicelib.core.database import Unit
from chalicelib.flows.history.budget import Message, NodeMaxToken
from chalicelib.flows.history.dao import Entry as Entry
from chalicelib.flows.history.dao import HistoryDAO


def add(session: Unit, entries: Iterable[Entry]) -> None:
    """Keep the turns of a run in the caller's unit, in their order; of one microsecond they keep it too.

    A question or an answer of more than 15,938,354 bytes is cut behind its last whole character.

    Raises
    ------
    ValueError
        For a person, a chat or a node whose name is longer than 255 characters.
    """
    HistoryDAO(session).add_all(entries)


def get(
    session: Session, app_id: int, flow_id: int, uid: str, chat_id: str, node_max_token: NodeMaxToken
) -> dict[str, list[Message]]:
    """Return what each node is told of a conversation, by node id; one query.

    Parameters
    ----------
    node_max_token
        The nodes' `maxTokens`, None for one that states none. Of other nodes nothing is read.

    Returns
    -------
    The messages of a node, the oldest first and a user's before its answer; a node that is told nothing is left out.
    """
    if not node_max_token:
        return {}
    dao, nodes = HistoryDAO(session), sorted(node_max_token)
    found = dao.get_history(app_id, flow_id, uid, node_max_token, chat_id, nodes=nodes)
    return {node["nodeID"]: node["chat_history"] for node in found}
