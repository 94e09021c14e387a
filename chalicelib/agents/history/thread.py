"""`self.history`: the thread that is being answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from chalicelib.agents.base import Message, Reply
from chalicelib.agents.history.place import Place, held, of_app, thread_index
from chalicelib.core import paging
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Invalid, UpstreamFailed
from chalicelib.core.ids import new_id
from chalicelib.core.jobs import Clock, utc_now

USER, ASSISTANT = "user", "assistant"
MOST_RECENT = 200
# What an agent may add to one turn: they are stored in one unit.
MOST_ADDED = 100
MAX_ROLE = 50
# A quarter of what the column holds: escaped, which may double it, it is still within the smallest default of
# `max_allowed_packet` (16 MiB), beyond which the server hangs up.
MAX_CONTENT_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 64 * 1024
_STEP = timedelta(microseconds=1)


@dataclass(frozen=True)
class Turn:
    """What a user said and what the agent answered."""

    message: str
    reply: Reply


@dataclass(frozen=True)
class _Said:
    role: str
    content: str
    metadata: Mapping[str, Any] | None


class ThreadHistory:
    """The history of one thread during one invocation; see `agents.base.History`."""

    def __init__(
        self,
        database: DatabaseService,
        app_id: int,
        agent_name: str,
        thread_id: str,
        place: Place,
        now: Clock = utc_now,
    ) -> None:
        self._database = database
        self._app_id = app_id
        self._agent_name = agent_name
        self._thread_id = thread_id
        self._place = place
        self._now = now
        self._added: list[_Said] = []

    def recent(self, limit: int = 20) -> Sequence[Message]:
        """Return the newest messages, the oldest of them first.

        Parameters
        ----------
        limit
            1..200.

        Raises
        ------
        ValueError
            For another limit.
        """
        if not 1 <= limit <= MOST_RECENT:
            raise ValueError(f"between 1 and {MOST_RECENT} messages can be read at once, not {limit}")
        model = self._place.live
        with self._database.reads() as session:
            rows = session.scalars(_newest_first(self._of_thread(model, model), model).limit(limit)).all()
        return [
            Message(row.id, row.role, row.content, row.created_at, row.extra_metadata)
            for row in reversed(rows)
        ]

    def add(self, role: str, content: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Keep a message to be stored between the user's and the reply.

        Raises
        ------
        ValueError
            For what does not fit its column, or the 101st message of a turn.
        """
        if len(self._added) >= MOST_ADDED:
            raise ValueError(f"a turn has at most {MOST_ADDED} messages beside the user's and the reply")
        said = _Said(role, content, metadata)
        if problem := _problem(said):
            raise ValueError(problem)
        self._added.append(said)

    def exists(self, session: Session) -> bool:
        """True where the thread has messages."""
        return self._newest(session, self._place.live) is not None

    def store(self, session: Unit, turn: Turn) -> bool:
        """Store the turn in the caller's unit: the user's message, what was added, the reply.

        The agent's row is held shared until the unit ends. Run again after a deadlock it stores the same.

        Returns
        -------
        True where the thread had no messages before.

        Raises
        ------
        errors.Invalid
            `agent.message_invalid` for a message of the user that cannot be stored.
        errors.UpstreamFailed
            `agent.reply_invalid` for a reply that cannot be.
        errors.Unavailable
            `agent.history_missing`.
        """
        asked = _Said(USER, turn.message, None)
        answered = _Said(ASSISTANT, turn.reply.text, turn.reply.metadata)
        if problem := _problem(asked):
            raise Invalid(f"The message cannot be stored: {problem}.", code="agent.message_invalid")
        if problem := _problem(answered):
            raise UpstreamFailed(
                f"The agent's reply cannot be stored: {problem}.", code="agent.reply_invalid"
            )
        place = held(session, self._agent_name, self._place)
        newest = self._newest(session, place.live)
        rows = self._rows([asked, *self._added, answered], newest)
        for model in place.written:
            session.execute(insert(model), [self._row_of(model, row) for row in rows])
        return newest is None

    def _rows(self, said: Sequence[_Said], newest: datetime | None) -> list[dict[str, Any]]:
        """One row a message. Clocks of functions differ: a turn that follows another one never sorts before it."""
        at = self._now() if newest is None else max(self._now(), newest + _STEP)
        return [
            {
                "id": new_id(),
                "app_id": self._app_id,
                "thread_id": self._thread_id,
                "role": one.role,
                "content": one.content,
                "extra_metadata": None if one.metadata is None else dict(one.metadata),
                "created_at": at + index * _STEP,
            }
            for index, one in enumerate(said)
        ]

    def _row_of(self, model: Any, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with what only some models have: left to a default it would differ from one table to the other."""
        further = {"agent_name": self._agent_name, "updated_at": row["created_at"]}
        return {**row, **{name: value for name, value in further.items() if name in model.__table__.c}}

    def _newest(self, session: Session, model: Any) -> datetime | None:
        query = _newest_first(self._of_thread(model, model.created_at), model)
        found: datetime | None = session.scalars(query.limit(1)).first()
        return found

    def _of_thread(self, model: Any, what: Any) -> Any:
        own = of_app(model, self._app_id, self._agent_name)
        return select(what).where(*own, model.thread_id == self._thread_id)


def _newest_first(query: Any, model: Any) -> Any:
    index = thread_index(model)
    if index is not None:
        query = paging.through(query, model, index)
    return query.order_by(model.created_at.desc(), model.id.desc())


def _problem(said: _Said) -> str | None:
    """Return why a message cannot be stored, None for one that can."""
    if not isinstance(said.role, str) or not 0 < len(said.role) <= MAX_ROLE:
        return f"a role is a text of 1 to {MAX_ROLE} characters"
    if not isinstance(said.content, str):
        return "the content is no text"
    try:
        # A lone surrogate is no character that the database could keep.
        size = len(said.content.encode()), len(said.role.encode())
        document = None if said.metadata is None else dict(said.metadata)
        metadata = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return "the text is no Unicode or the metadata no JSON object"
    if size[0] > MAX_CONTENT_BYTES:
        return f"the content is longer than {MAX_CONTENT_BYTES} bytes"
    if len(metadata) > MAX_METADATA_BYTES:
        return f"the metadata is longer than {MAX_METADATA_BYTES} bytes"
    return None
