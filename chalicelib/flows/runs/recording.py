"""What a run tells of itself, on its way into the database: kept for a moment, written many at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from chalicelib.core.database import Unit
from chalicelib.core.representation import timestamp
from chalicelib.flows.engine.call import Exchange
from chalicelib.flows.engine.outcome import Outcome, RunError
from chalicelib.flows.engine.trace import NodeRecord
from chalicelib.flows.runs.models import FlowRunEvent, FlowRunNode

MAX_VALUE = 256 * 1024
"""Characters of a node's inputs, or of its outputs, as JSON, that the trace keeps."""
MAX_TRACE = 32 * 1024 * 1024
"""Characters of inputs and outputs that the trace of one run keeps: a large value may be the input of ten thousand
passes, and takes no more memory for that, but its space in each of their rows."""
MAX_FRAME_CONTENT = 64 * 1024
"""Characters of content that one frame carries."""
ROWS_A_STATEMENT = 500


class Recorder:
    """The `Trace` of a run that is stored.

    What is told is a function of the run's flow and its checkpoints, so when a durable run is replayed the same frames
    come again, under the same numbers: what is stored already is left out.

    Parameters
    ----------
    stored_frames, stored_nodes
        How many of them are in the database.
    """

    def __init__(self, run_id: str, stored_frames: int = 0, stored_nodes: int = 0) -> None:
        self.run_id = run_id
        self.progress = 0.0
        self.exchanges: list[tuple[str, int, Exchange]] = []
        self._stored_frames, self._stored_nodes = stored_frames, stored_nodes
        self._seq = 0
        self._room = MAX_TRACE
        self._frames: list[dict[str, Any]] = []
        self._nodes: list[dict[str, Any]] = []

    # -- the trace ---------------------------------------------------------------------------------------------

    def started(self, key: str, node_id: str) -> None:
        self.tell("node.started", nodeId=node_id, nodeKey=key)

    def ended(self, record: NodeRecord, content: str | None, progress: float) -> None:
        self.progress = progress
        # Of what is stored already too: a run that is replayed has the room left that it had before.
        values = {"inputs": self._kept(record.inputs), "outputs": self._kept(record.outputs)}
        if record.position >= self._stored_nodes:
            self._nodes.append({**_row(self.run_id, record), **values})
        error = _error(record.error_code, record.error_message)
        about: dict[str, Any] = {"nodeId": record.node_id, "nodeKey": record.key}
        if content is not None:
            about["content"] = content[:MAX_FRAME_CONTENT]
        if error is not None:
            about["error"] = error
        self.tell(f"node.{record.state}", **about)

    def _kept(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the trace keeps of a node's inputs or outputs; nothing once there is no room."""
        if self._room <= 0:
            return {"omitted": True}
        kept, characters = _bounded(values)
        self._room -= characters
        return kept

    def remember(self, node_id: str, flow_id: int, exchange: Exchange) -> None:
        self.exchanges.append((node_id, flow_id, exchange))

    def tell(self, kind: str, **about: Any) -> None:
        """Add a frame."""
        self._seq += 1
        if self._seq > self._stored_frames:
            frame = {"seq": self._seq, "at": timestamp(datetime.now(UTC)), "type": kind, **about}
            self._frames.append({**frame, "progress": round(self.progress, 4)})

    def end(self, outcome: Outcome) -> None:
        """Add the terminal frame."""
        if outcome.state == "succeeded":
            self.progress = 1.0
        # A run that is ended from outside may tell less when it is replayed than it told before.
        self._seq = max(self._seq, self._stored_frames)
        about = {} if outcome.error is None else {"error": error_of(outcome.error)}
        self.tell(f"run.{outcome.state}", **about)

    # -- the database ------------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether something is not stored yet."""
        return bool(self._frames or self._nodes)

    def write(self, session: Unit) -> None:
        """Store what is not stored yet; `written` says that it is, once the unit has been committed."""
        for model, rows in (
            (FlowRunNode, self._nodes),
            (
                FlowRunEvent,
                [{"run_id": self.run_id, "seq": one["seq"], "frame": one} for one in self._frames],
            ),
        ):
            for begin in range(0, len(rows), ROWS_A_STATEMENT):
                session.execute(insert(model), rows[begin : begin + ROWS_A_STATEMENT])

    def written(self) -> None:
        """Forget what was stored."""
        self._stored_frames = max(self._stored_frames, self._seq)
        self._stored_nodes += len(self._nodes)
        self._frames.clear()
        self._nodes.clear()


def stored(session: Session, run_id: str) -> tuple[int, int]:
    """Return how many frames and nodes of a run are in the database."""
    frames = session.scalar(select(func.max(FlowRunEvent.seq)).where(FlowRunEvent.run_id == run_id))
    nodes = session.scalar(select(func.max(FlowRunNode.position)).where(FlowRunNode.run_id == run_id))
    return frames or 0, 0 if nodes is None else nodes + 1


def error_of(error: RunError) -> dict[str, Any]:
    """Return a run's error as it is stored and shown."""
    return {"code": error.code, "message": error.message, "nodeId": error.node_id}


def _error(code: int, message: str) -> dict[str, Any] | None:
    return {"code": code, "message": message} if code else None


def _row(run_id: str, record: NodeRecord) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "position": record.position,
        "node_key": record.key,
        "node_id": record.node_id,
        "node_type": record.node_type,
        "alias_name": record.alias_name[:255],
        "attempt": record.attempt,
        "state": record.state,
        "error": _error(record.error_code, record.error_message),
        "usage": record.usage.as_dict() if record.usage.calls else None,
        "started_at": None if record.started_at is None else datetime.fromisoformat(record.started_at),
        "duration_us": round(record.duration_ms * 1000),
    }


def _bounded(values: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Values as they are kept, and about how many characters those are: values that make the whole too large are
    replaced by how large they are."""
    kept = dict(values)
    whole = len(json.dumps(kept, ensure_ascii=False))
    if whole <= MAX_VALUE:
        return kept, whole
    sizes = {name: len(json.dumps(value, ensure_ascii=False)) for name, value in kept.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=lambda one: -sizes[one]):
        kept[name] = {"omitted": True, "characters": sizes[name]}
        total -= sizes[name]
        if total <= MAX_VALUE // 2:
            break
    return kept, total
