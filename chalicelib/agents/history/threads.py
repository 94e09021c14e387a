"""Threads and their messages as the API shows them, and how a thread is deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, literal, select, union_all
from sqlalchemy.orm import Session

from chalicelib.agents import rendering
from chalicelib.agents.history.place import Place, held, of_app, required, thread_index
from chalicelib.core import audit, paging
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import NotFound, Unavailable
from chalicelib.core.housekeeping import BATCH
from chalicelib.core.paging import Page, list_page

# Entries of the index that one statement looks at: many short threads come at once, and of a long one only its end.
BLOCK = 32
# Of a deletion that answers within the time of a request: 150,000 messages.
MOST_BATCHES = 300


def _not_found() -> NotFound:
    return NotFound("There is no such thread.", code="agent.thread_not_found")


def list_threads(
    session: Session, place: Place | None, app_id: int, agent_name: str, page: Page
) -> dict[str, Any]:
    """Return a page of an app's threads with an agent, by descending id: ids of ours begin with their time.

    It seeks from thread to thread through the index instead of reading their messages. In one statement that cannot
    be done: MariaDB carries out the correlated step of a recursive query by reading all entries of the app.

    Raises
    ------
    errors.NotFound
        `agent.no_history`.
    errors.BadRequest
        A tampered, foreign or malformed cursor.
    """
    model = required(place).live
    position = page.position(1)
    below = None if position is None else str(position[0])
    found: dict[str, datetime] = {}
    while len(found) <= page.limit:
        entries = _below(session, model, of_app(model, app_id, agent_name), below)
        for thread_id, at in entries:
            # The first entry of a thread is that of its newest message.
            found.setdefault(thread_id, at)
        if len(entries) < BLOCK:
            break
        below = entries[-1][0]
    shown = list(found)[: page.limit]
    began = _first_messages(session, model, of_app(model, app_id, agent_name), shown)
    return {
        # A thread that was deleted meanwhile has no first message any more.
        "items": [
            rendering.thread(thread_id, began[thread_id], found[thread_id])
            for thread_id in shown
            if began[thread_id] is not None
        ],
        "nextCursor": page.encode([shown[-1]]) if len(found) > page.limit else None,
    }


def _below(session: Session, model: Any, own: list[Any], below: str | None) -> list[tuple[str, datetime]]:
    query = select(model.thread_id, model.created_at).where(*own)
    if below is not None:
        query = query.where(model.thread_id < below)
    index = thread_index(model)
    if index is not None:
        query = paging.through(query, model, index)
    ordered = query.order_by(model.thread_id.desc(), model.created_at.desc(), model.id.desc())
    return [(row.thread_id, row.created_at) for row in session.execute(ordered.limit(BLOCK))]


def _first_messages(session: Session, model: Any, own: list[Any], threads: list[str]) -> dict[str, Any]:
    """Return when each thread began: one seek each, because no grouping is left to the server."""
    if not threads:
        return {}
    parts = [
        select(literal(number).label("number"), func.min(model.created_at).label("at"))
        .where(*own, model.thread_id == thread_id)
        .select_from(model)
        for number, thread_id in enumerate(threads)
    ]
    return {threads[row.number]: row.at for row in session.execute(union_all(*parts))}


def list_messages(
    session: Session, place: Place | None, app_id: int, agent_name: str, thread_id: str, page: Page
) -> dict[str, Any]:
    """Return a page of a thread's messages, newest first.

    Raises
    ------
    errors.NotFound
        `agent.no_history`, `agent.thread_not_found`.
    errors.BadRequest
        A tampered, foreign or malformed cursor.
    """
    model = required(place).live
    query = select(model).where(*of_app(model, app_id, agent_name), model.thread_id == thread_id)
    index = thread_index(model)
    if index is not None:
        query = paging.through(query, model, index)
    found = list_page(session, query, page, (model.created_at, model.id), rendering.message, large=True)
    if not found["items"] and page.cursor is None:
        raise _not_found()
    return found


# -- deleting --------------------------------------------------------------------------------------------------------


def shorten_thread(
    database: DatabaseService, place: Place | None, app_id: int, agent_name: str, thread_id: str
) -> None:
    """Delete the oldest messages of a thread, a unit a batch, until `delete_thread` can delete the rest in one.

    Called before the unit that answers the request. What it did stays done if that never comes.

    Raises
    ------
    errors.NotFound
        `agent.no_history`.
    errors.Unavailable
        `agent.thread_too_long` where time does not suffice; the next request goes on.
    """
    known = required(place)
    for _ in range(MOST_BATCHES):
        if not database.run(lambda session: _shorten(session, known, app_id, agent_name, thread_id)):
            return
    raise Unavailable(
        "The thread has more messages than one request deletes; try again for the rest.",
        code="agent.thread_too_long",
        retry_after=1,
    )


def delete_thread(
    session: Unit, caller: Caller, place: Place | None, agent_name: str, thread_id: str
) -> None:
    """Delete the last messages of the caller's thread, and with them the thread, in the caller's unit.

    Raises
    ------
    errors.NotFound
        `agent.no_history`, `agent.thread_not_found`.
    errors.Unavailable
        `agent.thread_too_long`: it was not shortened, or it has grown since.
    """
    known = held(session, agent_name, required(place))
    keys = _oldest(session, known, caller.app_id, agent_name, thread_id)
    if not keys:
        raise _not_found()
    if len(keys) > BATCH:
        raise Unavailable(
            "The thread grows while it is deleted; try again.", code="agent.thread_too_long", retry_after=1
        )
    _delete(session, known, caller.app_id, agent_name, keys)
    audit.record(session, caller, "agent.thread_delete", "agent", agent_name, before={"threadId": thread_id})


def _shorten(session: Unit, place: Place, app_id: int, agent_name: str, thread_id: str) -> bool:
    known = held(session, agent_name, place)
    keys = _oldest(session, known, app_id, agent_name, thread_id)
    if len(keys) <= BATCH:
        return False
    _delete(session, known, app_id, agent_name, keys[:BATCH])
    return True


def _oldest(session: Session, place: Place, app_id: int, agent_name: str, thread_id: str) -> list[int]:
    model = place.live
    query = select(model.id).where(*of_app(model, app_id, agent_name), model.thread_id == thread_id)
    index = thread_index(model)
    if index is not None:
        query = paging.through(query, model, index)
    return list(session.scalars(query.order_by(model.created_at, model.id).limit(BATCH + 1)))


def _delete(session: Unit, place: Place, app_id: int, agent_name: str, keys: list[int]) -> None:
    """Delete messages from both tables that the agent has, moving or not: what a finished move keeps for a while
    holds deleted threads too, and would bring them back if the agent moved back."""
    for model in place.known:
        gone = delete(model).where(model.id.in_(keys), *of_app(model, app_id, agent_name))
        session.execute(gone, execution_options={"synchronize_session": False})
