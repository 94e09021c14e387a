"""Moves of an agent's history between the shared table and its own: begun, looked at, called off.

From the moment a move begins every message is stored in both tables; the job (`job.py`) brings over what was there
before, compares the two, and then makes the agent read the other one. Until then nothing that is read has changed, so a
move can be called off, or fail, without a loss.

Between moves the table that an agent does not read holds nothing of it but what an earlier move has left there: a move
begins only then, and therefore may make the target equal to the source, whatever of this agent it finds in it.

Locks are taken in one order: the agent's row, then the move's.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chalicelib.agents import rendering
from chalicelib.agents.history.place import Place, held_alone, is_shared, of_agent, required
from chalicelib.agents.models import CANCELLED, COPYING, VERIFYING, AgentMove, AgentRow
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import Base, Unit
from chalicelib.core.errors import Conflict, Invalid, NotFound
from chalicelib.core.jobs import utc_now
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.representation import check_if_match

ACTIVE = (COPYING, VERIFYING)
KEEP_DAYS, MOST_KEEP_DAYS = 7, 365
# A request counts no table of any size; the job counts the rest.
COUNTED = 100_000


def begin(
    session: Unit,
    caller: Caller,
    agent_name: str,
    place: Place | None,
    target: str,
    keep_days: int = KEEP_DAYS,
) -> dict[str, Any]:
    """Begin to move an agent's history, in the caller's unit, and return the move.

    It waits for the writers that do not know of the move yet; those after it store everything twice.

    Parameters
    ----------
    target
        `shared` or `independent`.
    keep_days
        Days that the source's rows are kept after the move, 0..365.

    Raises
    ------
    errors.NotFound
        `agent.no_history`.
    errors.Conflict
        `agent.move_impossible` without a model of that mode, with one that has other columns, or before the agent was
        migrated; `agent.move_active`; `agent.move_pointless` where the history is there already;
        `agent.move_conflict` where the target holds rows of the agent that no move has put there.
    errors.Invalid
        `agent.move_keep_days`.
    """
    if not 0 <= keep_days <= MOST_KEEP_DAYS:
        raise Invalid(f"keepDays is between 0 and {MOST_KEEP_DAYS}.", code="agent.move_keep_days")
    known = required(place)
    if target not in known.models:
        raise _impossible(f"The agent declares no {target} model of its history.")
    row = held_alone(session, agent_name)
    if row is None:
        raise _impossible("The agent was not migrated yet.")
    if row.moving_to is not None:
        raise Conflict("The history of this agent is being moved already.", code="agent.move_active")
    here = replace(known, mode=row.history_mode or known.mode)
    if target == here.mode:
        raise Conflict(f"The history of this agent is {target} already.", code="agent.move_pointless")
    source_model, target_model = here.live, here.model(target)
    _check_columns(source_model, target_model)
    _take_over(session, agent_name, target_model)
    made = AgentMove(
        agent_name=agent_name,
        target=target,
        source_table=source_model.__tablename__,
        target_table=target_model.__tablename__,
        keep_days=keep_days,
        total=_count(session, source_model, agent_name, COUNTED),
        created_by=caller.credential_id,
    )
    # Said by the row from now on: a version that is deployed meanwhile and names another model must not change it.
    row.history_mode, row.moving_to = here.mode, target
    session.add(made)
    session.flush()
    shown = rendering.move(made)
    audit.record(session, caller, "agent.move", "agent", agent_name, after=shown)
    return shown


def cancel(session: Unit, caller: Caller, agent_name: str, move_id: str, if_match: str | None = None) -> None:
    """Call a move off, in the caller's unit; one that was called off already stays so. The job removes the copies.

    Raises
    ------
    errors.NotFound
        `agent.move_not_found`.
    errors.PreconditionFailed
    errors.Conflict
        `agent.move_finished`.
    """
    row = held_alone(session, agent_name)
    found = held_move(session, move_id)
    if found is None or found.agent_name != agent_name:
        raise _not_found()
    check_if_match(if_match, rendering.move(found))
    if found.state == CANCELLED:
        return
    if found.state not in ACTIVE:
        raise Conflict(f"The move is {found.state}; it cannot be called off.", code="agent.move_finished")
    before = rendering.move(found)
    end(row, found, CANCELLED, utc_now())
    audit.record(
        session, caller, "agent.move_cancel", "agent", agent_name, before=before, after=rendering.move(found)
    )


def list_moves(session: Session, agent_name: str, page: Page) -> dict[str, Any]:
    """Return a page of an agent's moves, newest first."""
    query = select(AgentMove).where(AgentMove.agent_name == agent_name)
    query = through(query, AgentMove, "ix_agent_move_agent")
    return list_page(session, query, page, (AgentMove.id,), rendering.move)


def get_move(session: Session, agent_name: str, move_id: str) -> dict[str, Any]:
    """Return one move.

    Raises
    ------
    errors.NotFound
        `agent.move_not_found`.
    """
    found = session.get(AgentMove, move_id)
    if found is None or found.agent_name != agent_name:
        raise _not_found()
    return rendering.move(found)


# -- also for the job ------------------------------------------------------------------------------------------------


def held_move(session: Session, move_id: str) -> AgentMove | None:
    """Hold a move's row until the unit ends and return it as it is now; the agent's row is held before it."""
    query = select(AgentMove).where(AgentMove.id == move_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def end(row: AgentRow | None, move: AgentMove, state: str, now: datetime) -> None:
    """Bring a move to an end that leads nowhere: what it copied goes with the job's next run."""
    if row is not None:
        row.moving_to = None
    move.state = state
    move.finished_at = now
    move.keep_until = now


def finish(row: AgentRow, move: AgentMove, now: datetime) -> None:
    """Bring a move to its end: the agent reads the target from now on, in every warm function."""
    row.history_mode, row.moving_to = move.target, None
    move.finished_at = now
    move.keep_until = now + timedelta(days=move.keep_days)


def count_all(session: Session, model: Any, agent_name: str) -> int:
    """Count an agent's rows in a table, in an index."""
    return session.scalar(select(func.count()).select_from(model).where(*of_agent(model, agent_name))) or 0


# --------------------------------------------------------------------------------------------------------------------


def _count(session: Session, model: Any, agent_name: str, most: int) -> int:
    some = select(model.id).where(*of_agent(model, agent_name)).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def _take_over(session: Unit, agent_name: str, target_model: type[Base]) -> None:
    """Make sure that what the target holds of the agent is an earlier move's, and make it this one's to deal with.

    An earlier move's rows are those of the table that the agent does not read: the very target, whichever way it went.
    """
    query = select(AgentMove).where(AgentMove.agent_name == agent_name, AgentMove.keep_until.is_not(None))
    earlier = session.scalars(query.with_for_update()).all()
    if not earlier and _count(session, target_model, agent_name, 1):
        raise Conflict(
            f"The table {target_model.__tablename__} holds rows of this agent that no move has put there.",
            code="agent.move_conflict",
        )
    for move in earlier:
        move.keep_until = None


def _check_columns(source: Any, target: Any) -> None:
    if is_shared(source) == is_shared(target):
        raise _impossible("Of the two models one has to be shared.")
    first, second = (
        {
            (column.name, repr(column.type), column.nullable)
            for column in model.__table__.c
            if column.name != "agent_name"
        }
        for model in (source, target)
    )
    if first != second:
        # What fits one table must fit the other, or what is stored twice could not be stored at all.
        names = ", ".join(sorted({name for name, *_ in first ^ second}))
        raise _impossible(f"The two models do not declare the same of the columns {names}.")


def _impossible(detail: str) -> Conflict:
    return Conflict(detail, code="agent.move_impossible")


def _not_found() -> NotFound:
    return NotFound("There is no such move.", code="agent.move_not_found")
