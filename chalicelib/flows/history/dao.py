"""The history of nodes in the database: added to in batches, read with one query however many nodes there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, Table, case, func, insert, literal, select, update
from sqlalchemy.orm import Session

from chalicelib.core.ids import new_id
from chalicelib.core.paging import through
from chalicelib.flows.dsl.limits import MAX_ID_LENGTH
from chalicelib.flows.history.budget import NodeMaxToken, budget_of, within
from chalicelib.flows.history.chat import Chat as Chat
from chalicelib.flows.history.clipping import clipped, pieces
from chalicelib.flows.history.models import MAX_PERSON, NodeHistory
from chalicelib.flows.history.octets import octets

MOST_TURNS = 10
"""Of one node: the newest, as far as its budget goes."""
# Of one text in a statement, of which there are two in an INSERT. Escaped, which may double them, they are half of the
# smallest default of `max_allowed_packet` (16 MiB), beyond which the server hangs up.
MAX_PIECE_BYTES = 2 * 1024 * 1024

# For reading: the first use of any model configures all of them.
_HISTORY = cast(Table, NodeHistory.__table__)
_INDEX = "ix_workflow_node_history_chat"


@dataclass(frozen=True)
class Entry:
    """One turn of a node that is to be kept.

    Parameters
    ----------
    app_id
        The app that runs the flow.
    uid, chat_id
        As the run names them, at most 255 characters; '' where it names none.
    """

    app_id: int
    flow_id: int
    node_id: str
    uid: str
    chat_id: str
    question: str
    answer: str


class HistoryDAO:
    """The history of nodes.

    Parameters
    ----------
    session
        Of a unit of work; for reading alone, of a read.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def add_history(
        self, app_id: int, flow_id: int, node_id: str, uid: str, question: str, answer: str, chat_id: str = ""
    ) -> None:
        """Keep one turn; see `add_all`."""
        self.add_all([Entry(app_id, flow_id, node_id, uid, chat_id, question, answer)])

    def add_all(self, entries: Iterable[Entry]) -> None:
        """Keep the turns of one run, in their order, by one INSERT; by more where they are more than a megabyte, at
        which the driver divides them.

        A question or an answer of more than `clipping.MAX_VALUE_BYTES` is cut.

        Raises
        ------
        ValueError
            For a person, a chat or a node whose name the table does not hold.
        """
        now = datetime.now(UTC)
        rows = [_row(entry, now) for entry in entries]
        if rows:
            self._session.execute(insert(_HISTORY), [row.values for row in rows])
        for row in rows:
            self._append(row)

    def _append(self, row: _Row) -> None:
        """Add what did not fit the INSERT to the texts of a row."""
        for column, further in row.further:
            for piece in further:
                longer = update(_HISTORY).where(_HISTORY.c.id == row.values["id"])
                self._session.execute(longer.values({column: column.concat(piece)}))

    def get_history(
        self,
        app_id: int,
        flow_id: int,
        uid: str,
        node_max_token: NodeMaxToken,
        chat_id: str = "",
        *,
        nodes: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return what the nodes of a flow are told of a conversation, by one query.

        Parameters
        ----------
        node_max_token
            The nodes' `maxTokens`; one that is None or missing has the budget of `budget.TOKEN_LIMIT`.
        nodes
            The only ones to be read; None for all that have a history.

        Returns
        -------
        `[{"nodeID": ..., "chat_history": [{"role": ..., "content": ...}, ...]}]` by node id, the oldest turn first; a
        node that is told nothing is left out.
        """
        rows = self._session.execute(
            history_query(Chat(app_id, flow_id, uid, chat_id), node_max_token, nodes)
        )
        found = []
        for node_id, turns in groupby(rows, key=lambda row: row.node_id):
            budget = budget_of(node_max_token.get(node_id))
            told = within([(turn.raw_question, turn.raw_answer) for turn in turns], budget)
            if told:
                found.append({"nodeID": node_id, "chat_history": told})
        return found

    def nodes_of(self, chat: Chat, after: str | None, most: int) -> list[str]:
        """Return nodes that have a history in a conversation, by their ids, beginning behind `after`."""
        query = select(_HISTORY.c.node_id).distinct().where(*chat.conditions(_HISTORY))
        if after is not None:
            query = query.where(_HISTORY.c.node_id > after)
        query = through(query, _HISTORY, _INDEX)
        return list(self._session.scalars(query.order_by(_HISTORY.c.node_id).limit(most)))


def history_query(
    chat: Chat, node_max_token: NodeMaxToken, nodes: Sequence[str] | None = None
) -> Select[Any]:
    """The statement of `get_history`: the newest turns of every node, as far as they can fit the node's budget.

    Turns are numbered without a look at their texts. Of the newest ten the lengths are added up, and only what may fit
    is sent: a turn of megabytes ends its node's walk on the server.
    """
    wanted = (
        chat.conditions(_HISTORY)
        if nodes is None
        else [*chat.conditions(_HISTORY), _HISTORY.c.node_id.in_(nodes)]
    )
    entries = select(_HISTORY.c.id, _number().label("number")).where(*wanted)
    numbered = through(entries, _HISTORY, _INDEX).subquery("numbered")
    sized, told = _HISTORY.alias("sized"), _HISTORY.alias("told")
    length = octets(sized.c.raw_question) + octets(sized.c.raw_answer)
    running = func.sum(length).over(partition_by=sized.c.node_id, order_by=sized.c.id.desc())
    newest = (
        select(sized.c.id, running.label("octets"))
        .join_from(numbered, sized, sized.c.id == numbered.c.id)
        .where(numbered.c.number <= MOST_TURNS)
        .subquery("newest")
    )
    return (
        select(told.c.node_id, told.c.raw_question, told.c.raw_answer)
        .join_from(newest, told, told.c.id == newest.c.id)
        .where(newest.c.octets <= _most_octets(told.c.node_id, node_max_token, nodes))
        .order_by(told.c.node_id, told.c.id.desc())
    )


def _number() -> ColumnElement[int]:
    return func.row_number().over(partition_by=_HISTORY.c.node_id, order_by=_HISTORY.c.id.desc())


def _most_octets(
    node_id: ColumnElement[str], node_max_token: NodeMaxToken, nodes: Sequence[str] | None
) -> ColumnElement[Any]:
    """Return more octets than a node's budget can hold, by its id.

    Rounded up to a power of two: thousands of nodes that state a number each of their own make twenty cases. What is
    sent is twice the budget at most, and counted exactly where it arrives.
    """
    bounds: dict[int, list[str]] = defaultdict(list)
    for name in node_max_token if nodes is None else nodes:
        bounds[_rounded(budget_of(node_max_token.get(name)))].append(name)
    others = _rounded(budget_of(None))
    if nodes:
        # There are no others, so what most nodes have need not name them.
        others = max(bounds, key=lambda bound: len(bounds[bound]))
    cases = [(node_id.in_(names), bound) for bound, names in sorted(bounds.items()) if bound != others]
    return case(*cases, else_=others) if cases else literal(others)


def _rounded(budget: float) -> int:
    return 1 << int(budget).bit_length()


@dataclass(frozen=True)
class _Row:
    """A row as its INSERT carries it, and what is to be appended to its texts."""

    values: dict[str, Any]
    further: list[tuple[ColumnElement[str], Iterator[str]]]


def _row(entry: Entry, now: datetime) -> _Row:
    named = ((entry.uid, MAX_PERSON), (entry.chat_id, MAX_PERSON), (entry.node_id, MAX_ID_LENGTH))
    if any(len(name) > most for name, most in named):
        raise ValueError("a person, a chat or a node has a longer name than the history holds")
    question = pieces(clipped(entry.question), MAX_PIECE_BYTES)
    answer = pieces(clipped(entry.answer), MAX_PIECE_BYTES)
    values = {
        "id": new_id(),
        "app_id": entry.app_id,
        "flow_id": str(entry.flow_id),
        "node_id": entry.node_id,
        "uid": entry.uid,
        "chat_id": entry.chat_id,
        "raw_question": next(question),
        "raw_answer": next(answer),
        "create_time": now,
    }
    return _Row(values, [(_HISTORY.c.raw_question, question), (_HISTORY.c.raw_answer, answer)])
