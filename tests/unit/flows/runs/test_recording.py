"""What the trace of one run keeps, however often its nodes hand on the same large value."""

from __future__ import annotations

import json
from typing import Any

from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.trace import NodeRecord
from chalicelib.flows.runs.recording import MAX_TRACE, MAX_VALUE, Recorder

LARGE = "x" * (MAX_VALUE - 100)
ENOUGH = MAX_TRACE // len(LARGE) + 20


def record(position: int, inputs: dict[str, Any]) -> NodeRecord:
    return NodeRecord(
        key=f"n[{position}]", node_id="n::1", node_type="n", alias_name="", position=position, attempt=1,
        state="succeeded", inputs=inputs, outputs={"o": 1}, error_code=0, error_message="", started_at=None,
        duration_ms=0.0, usage=Usage(),
    )  # fmt: skip


def told(recorder: Recorder, count: int) -> list[dict[str, Any]]:
    for position in range(count):
        recorder.ended(record(position, {"i": LARGE}), None, 0.5)
    return recorder._nodes


def test_the_trace_of_one_run_has_a_bound() -> None:
    rows = told(Recorder("r"), ENOUGH)
    assert len(rows) == ENOUGH
    kept = sum(len(json.dumps([row["inputs"], row["outputs"]])) for row in rows)
    assert MAX_TRACE - MAX_VALUE < kept < MAX_TRACE + 2 * MAX_VALUE
    # Nodes are still told, each with all that is small.
    assert rows[0]["inputs"] == {"i": LARGE}
    assert (rows[-1]["inputs"], rows[-1]["outputs"]) == ({"omitted": True}, {"omitted": True})
    assert rows[-1]["node_key"] == f"n[{ENOUGH - 1}]"


def test_a_run_that_is_replayed_finds_the_room_that_it_left() -> None:
    at_once = told(Recorder("r"), ENOUGH)
    for stored in (1, ENOUGH // 2, ENOUGH - 1):
        assert told(Recorder("r", 0, stored), ENOUGH) == at_once[stored:]


def test_a_value_that_is_too_large_takes_no_room() -> None:
    recorder = Recorder("r")
    for position in range(ENOUGH):
        recorder.ended(record(position, {"i": LARGE * 2, "j": "small"}), None, 0.5)
    assert recorder._nodes[-1]["inputs"] == {
        "i": {"omitted": True, "characters": 2 * len(LARGE) + 2},
        "j": "small",
    }
