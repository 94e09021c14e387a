"""The jobs of moves: a batch of rows a unit, resumed from the move's row wherever a run was killed.

Why nothing is lost and nothing is there twice:

* A move begins with the agent's row held alone: whoever stored without knowing of it has committed, and is copied;
  whoever stores after it writes to both tables. It does not matter in which order their ids were made, or that a late
  writer's id lies behind the place that the copy has reached: its row is in both tables already.
* A batch is copied with the agent's row held alone, so no message is stored or deleted between reading the source and
  writing the target. A thread that was deleted before is not in the source, one that is deleted after goes from both.
* What is copied and how far are one commit. A second runner waits for the row and then goes on from there.
* Batches are compared without a lock, which can only find too much: what differs is looked at again with the lock.
* The last batch, the counts and the change of the mode are one unit with the lock: all that was stored until then is in
  both tables, and whoever stores next reads the new mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.agents.history.place import Place, held, held_alone
from chalicelib.agents.models import COPYING, DONE, FAILED, VERIFYING, AgentMove, AgentRow
from chalicelib.agents.moves import service, tables
from chalicelib.agents.moves.tables import EVERYTHING, Foreign, Pair, Range
from chalicelib.core import telemetry
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Unavailable
from chalicelib.core.housekeeping import HOUR_S
from chalicelib.core.jobs import Action, Clock, Job, Plan, utc_now
from chalicelib.core.steps import declare, step

STEPS = declare("agent_move", ("count", "copy", "verify", "settle", "purge"))
# Of moves in one run.
MOST_MOVES = 100

# Where an agent keeps its history, None for one that is not loaded here or keeps none.
Places = Callable[[str], Place | None]


def move_jobs(database: DatabaseService, places: Places, now: Clock = utc_now) -> tuple[Job, ...]:
    """Return the jobs of moves."""
    mover = _Mover(database, places, now)
    return (
        Job("move_agents", "Move histories between shared and independent tables", 60, mover.plan_moves),
        Job(
            "purge_moved",
            "Delete what moves have left behind, once it was kept long enough",
            HOUR_S,
            mover.plan_purges,
        ),
    )


class _Mover:
    def __init__(self, database: DatabaseService, places: Places, now: Clock) -> None:
        self._database = database
        self._places = places
        self._now = now

    def plan_moves(self, _state: Any) -> Plan:
        going_on = select(AgentMove).where(AgentMove.state.in_(service.ACTIVE)).order_by(AgentMove.id)
        return self._plan("move", going_on, lambda move: max(move.total - move.copied, 0), self.advance)

    def plan_purges(self, _state: Any) -> Plan:
        due = select(AgentMove).where(AgentMove.keep_until <= self._now()).order_by(AgentMove.keep_until)
        return self._plan("purge", due, lambda move: move.copied, self.purge)

    def _plan(
        self, what: str, query: Any, count: Callable[[AgentMove], int], work: Callable[[str], bool]
    ) -> Plan:
        with self._database.reads() as session:
            moves = session.scalars(query.limit(MOST_MOVES)).all()
        actions = (
            Action(what, f"{move.agent_name} {move.id}", partial(work, move.id), count(move))
            for move in moves
        )
        return Plan(tuple(actions), more=len(moves) == MOST_MOVES)

    # -- moving ------------------------------------------------------------------------------------------------------

    def advance(self, move_id: str) -> bool:
        """Do one batch of a move; False once it has come to an end."""
        with self._database.reads() as session:
            move = session.get(AgentMove, move_id)
            if move is None or move.state not in service.ACTIVE:
                return False
            pair = self._pair(move)
            if move.state == VERIFYING:
                compared = _compare(session, pair, move.verified_through)
        if move.state == COPYING:
            self._count(move, pair)
            step("agent_move", "copy")
            return self._database.run(lambda session: self._copy(session, move_id, pair))
        if compared.equal and not compared.part.last:
            step("agent_move", "verify")
            return self._database.run(lambda session: _note(session, move_id, compared))
        step("agent_move", "settle")
        return self._database.run(lambda session: self._settle(session, move_id, pair))

    def _pair(self, move: AgentMove) -> Pair:
        place = self._place(move)
        return Pair(_by_table(place, move.source_table), _by_table(place, move.target_table), move.agent_name)

    def _place(self, move: AgentMove) -> Place:
        place = self._places(move.agent_name)
        if place is None:
            raise Unavailable(
                f"The agent {move.agent_name} is not loaded; its history can neither be moved nor purged.",
                code="agent.not_loaded",
            )
        return place

    def _count(self, move: AgentMove, pair: Pair) -> None:
        """Count what `begin` stopped counting; for the progress, so it holds nobody up."""
        if move.total < service.COUNTED or move.copied_through >= 0:
            return
        with self._database.reads() as session:
            total = service.count_all(session, pair.source, pair.agent_name)

        def work(session: Unit) -> None:
            held_now = service.held_move(session, move.id)
            if held_now is not None:
                held_now.total = total

        step("agent_move", "count")
        self._database.run(work)

    def _copy(self, session: Unit, move_id: str, pair: Pair) -> bool:
        row, move = _held_both(session, move_id, pair.agent_name)
        if move.state != COPYING:
            return move.state in service.ACTIVE
        part = tables.next_range(session, pair, move.copied_through)
        try:
            aligned = tables.align(session, pair, part)
        except Foreign:
            return self._fail(row, move, "agent.move_conflict")
        if aligned:
            move.copied += part.count
            move.copied_through = part.end
            if part.last:
                move.state = VERIFYING
        return True

    def _settle(self, session: Unit, move_id: str, pair: Pair) -> bool:
        """Compare a batch with the agent's row held alone, copy it once more if it differs, and end with the last."""
        row, move = _held_both(session, move_id, pair.agent_name)
        if move.state != VERIFYING:
            return move.state in service.ACTIVE
        compared = _compare(session, pair, move.verified_through)
        if not compared.equal:
            telemetry.event("agent.move.recopied", agent=move.agent_name, move=move.id)
            try:
                differing = _differing(session, pair, compared.part)
                if not tables.align(session, pair, compared.part, differing):
                    return True
            except Foreign:
                return self._fail(row, move, "agent.move_conflict")
            compared = _compare(session, pair, move.verified_through)
            if not compared.equal:
                return self._fail(row, move, "agent.move_mismatch")
        _advance(move, compared)
        if not compared.part.last:
            return True
        counts = {service.count_all(session, model, pair.agent_name) for model in (pair.source, pair.target)}
        if len(counts) > 1:
            return self._fail(row, move, "agent.move_mismatch")
        move.state = DONE
        service.finish(row, move, self._now())
        telemetry.event("agent.move.done", agent=move.agent_name, move=move.id, rows=counts.pop())
        return False

    def _fail(self, row: AgentRow, move: AgentMove, code: str) -> bool:
        service.end(row, move, FAILED, self._now())
        move.error_code = code
        telemetry.event("agent.move.failed", agent=move.agent_name, move=move.id, code=code)
        return False

    # -- what is left ------------------------------------------------------------------------------------------------

    def purge(self, move_id: str) -> bool:
        """Delete a batch of what a move has left in the table that the agent does not read."""
        with self._database.reads() as session:
            move = session.get(AgentMove, move_id)
        if move is None:
            return False
        place = self._place(move)
        step("agent_move", "purge")
        return self._database.run(lambda session: self._purge(session, move_id, move.agent_name, place))

    def _purge(self, session: Unit, move_id: str, agent_name: str, place: Place) -> bool:
        # Held shared: no move begins meanwhile, and those who store go on.
        here = held(session, agent_name, place)
        move = service.held_move(session, move_id)
        if move is None or move.keep_until is None or move.keep_until > self._now():
            return False
        # After a move the source is left, without what came to it later; after one that failed the target, and all.
        finished = move.state == DONE
        left = _by_table(here, move.source_table if finished else move.target_table)
        if left in here.written:
            # The agent has moved back: these rows are its history.
            move.keep_until = None
            return False
        through = move.verified_through if finished else EVERYTHING
        gone = tables.purge(session, left, agent_name, through)
        if gone < tables.BATCH:
            move.keep_until = None
        return gone == tables.BATCH


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    """A batch of both tables: the rows and their digest in each."""

    part: Range
    source: tuple[int, str]
    target: tuple[int, str]

    @property
    def equal(self) -> bool:
        """True where both sides have the same rows, and those that the range was cut by."""
        return self.source == self.target and self.source[0] == self.part.count


def _compare(session: Session, pair: Pair, after: int) -> _Compared:
    part = tables.next_range(session, pair, after)
    source = tables.batch_digest(session, pair.source, pair.agent_name, part)
    return _Compared(part, source, tables.batch_digest(session, pair.target, pair.agent_name, part))


def _differing(session: Session, pair: Pair, part: Range) -> list[int]:
    """Return the ids that both sides have, but not with the same values."""
    there = dict(tables.row_digests(session, pair.target, pair.agent_name, part))
    source = tables.row_digests(session, pair.source, pair.agent_name, part)
    return [row_id for row_id, digest in source if there.get(row_id, digest) != digest]


def _note(session: Unit, move_id: str, compared: _Compared) -> bool:
    """Store that a batch was found equal, unless another runner did meanwhile."""
    move = service.held_move(session, move_id)
    if move is not None and move.state == VERIFYING and move.verified_through == compared.part.after:
        _advance(move, compared)
    return True


def _advance(move: AgentMove, compared: _Compared) -> None:
    move.verified += compared.part.count
    move.verified_through = compared.part.end
    move.source_digest = tables.chained(move.source_digest, compared.source[1])
    move.target_digest = tables.chained(move.target_digest, compared.target[1])


def _held_both(session: Unit, move_id: str, agent_name: str) -> tuple[AgentRow, AgentMove]:
    """Hold the agent's row alone, then the move's; neither is ever deleted."""
    row, move = held_alone(session, agent_name), service.held_move(session, move_id)
    if row is None or move is None:
        raise LookupError(f"the move {move_id} of {agent_name} has lost its rows")
    return row, move


def _by_table(place: Place, table: str) -> Any:
    for model in place.known:
        if model.__tablename__ == table:
            return model
    raise Unavailable(
        f"The agent declares no model of the table {table} any more.", code="agent.history_missing"
    )
