"""Flows: what the engine adds to the nodes, validating a large graph, finding what is published, durable nodes."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from bench.clock import interleaved, seconds
from bench.figure import Figure, compared, plain
from bench.machine import silence
from chalicelib.core.database import DatabaseService
from chalicelib.flows.dao import FlowDAO
from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.engine.attempts import attempts_of
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import chain as handlers
from chalicelib.flows.engine.express import ExpressSteps
from chalicelib.flows.engine.interpreter import Interpreter
from chalicelib.flows.engine.plan import Plan
from chalicelib.flows.models import Flow
from chalicelib.flows.nodes.pure import PURE
from tests import databases, flow_runs
from tests.conftest import create_schema
from tests.flow_builders import code, end, flow, ref, start, text_joiner
from tests.plugin_rows import OWNER

AREA = "flows"
NODES, LARGE = 50, 10_000
FEW, MANY = 10, 10_000
ROUNDS = 40
FIRST_FLOW = 1_000_000


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with silence():
        return [*_engine(), _validation(), _latest(), *_durable()]


# -- the engine ----------------------------------------------------------------------------------------------------


def _chain(count: int, kind: Callable[[int], Any]) -> Any:
    nodes = [start(), *(kind(number) for number in range(count)), end()]
    return flow(nodes)


def _coded(number: int) -> Any:
    """A node that is run in a thread, with the value of the one before it."""
    before = ("node-start::1", "query") if number == 0 else (f"code::{number - 1}", "result")
    return code(f"code::{number}", inputs=[ref("result", *before)])


def _joined(number: int) -> Any:
    """A node that the interpreter computes itself."""
    before = ("node-start::1", "query") if number == 0 else (f"text-joiner::{number - 1}", "output")
    return text_joiner(f"text-joiner::{number}", "{{q}}", ref("q", *before))


def _work(call: Call) -> Result:
    return Result({"result": call.inputs["result"]})


def _run(plan: Plan) -> None:
    told = flow_runs.Told()
    steps = ExpressSteps(
        attempts_of({"code": _work}), handlers(), "bench", deadline=time.monotonic() + 20, tick=lambda: None
    )
    interpreter = Interpreter(
        plan, flow_runs.SCOPE, steps, told, pure=PURE, open_subflow=flow_runs.opener({}), handlers=handlers()
    )
    try:
        outcome = interpreter.run({"query": "x"})
    finally:
        steps.close()
    if outcome.state != "succeeded" or len(told.records) != NODES + 2:
        raise RuntimeError(f"the run did not do what it is measured for: {outcome}")


def _threads() -> None:
    """The floor: as many threads, one after the other, each of which hands its value to the next."""
    value: Any = "x"
    for _ in range(NODES):
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=lambda given=value, to=answer: to.put(given), daemon=True).start()
        value = answer.get(timeout=5)


def _engine() -> Iterator[Figure]:
    threaded, pure = flow_runs.plan(_chain(NODES, _coded)), flow_runs.plan(_chain(NODES, _joined))
    readings = interleaved(
        {
            "run": lambda: seconds(lambda: _run(threaded)),
            "pure": lambda: seconds(lambda: _run(pure)),
            "floor": lambda: seconds(_threads),
        },
        ROUNDS,
        warm_up=3,
    )
    yield compared(
        f"express run of {NODES} trivial nodes in a row / as many threads in a row",
        AREA, readings["run"], readings["floor"], "ms", 4, scale=1000,
    )  # fmt: skip
    yield plain(
        f"express run of {NODES} texts in a row, a node",
        AREA,
        sorted(readings["pure"])[ROUNDS // 2] / NODES * 1e6,
        "µs",
    )


# -- validation ----------------------------------------------------------------------------------------------------


def _validation() -> Figure:
    data = _chain(LARGE - 2, _joined)
    text = json.dumps(data)
    if check_flow(data).violations:
        raise RuntimeError("the flow is to be a valid one")
    readings = interleaved(
        {
            "check": lambda: seconds(lambda: check_flow(data)),
            "floor": lambda: seconds(lambda: json.loads(text)),
        },
        5,
    )
    return compared(
        f"validate a flow of {LARGE:,} nodes / json.loads of its {len(text) / 2**20:.1f} MB",
        AREA, readings["check"], readings["floor"], "s", 10,
    )  # fmt: skip


# -- what is published ---------------------------------------------------------------------------------------------


def _latest() -> Figure:
    with ExitStack() as stack:
        database = create_schema(stack.enter_context(databases.new_database()))
        stack.callback(database.close)
        for number, count in enumerate((FEW, MANY)):
            _put_versions(database, FIRST_FLOW + number, count)
        readings = interleaved(
            {
                "many": lambda: seconds(lambda: _look(database, FIRST_FLOW + 1, MANY), 10),
                "few": lambda: seconds(lambda: _look(database, FIRST_FLOW, FEW), 10),
            },
            ROUNDS,
            warm_up=3,
        )
    return compared(
        f"the newest of {MANY:,} published versions / of {FEW}",
        AREA, readings["many"], readings["few"], "ms", 1.2, scale=1000,
    )  # fmt: skip


def _look(database: DatabaseService, flow_id: int, count: int) -> None:
    with database.reads() as session:
        found = FlowDAO(session).get_latest_published_flow_by(flow_id)
    if found is None or found.version != f"v{count}":
        raise RuntimeError("that is not the newest version")


def _put_versions(database: DatabaseService, flow_id: int, count: int) -> None:
    now = datetime.now(UTC)
    data = json.dumps(_chain(3, _joined))
    common = {
        "group_id": flow_id, "app_id": str(OWNER), "name": "Flow", "checksum": "ab" * 32, "create_at": now,
        "update_at": now,
    }  # fmt: skip
    draft = {**common, "id": flow_id, "version": "", "version_key": "", "data": data}
    database.run(lambda session: session.execute(insert(Flow), [draft]))
    for begin in range(1, count + 1, 500):
        rows = [
            {
                **common, "id": flow_id * 100_000 + number, "version": f"v{number}", "release_status": 1,
                "version_key": version_key(f"v{number}"), "release_data": data, "status": 1,
            }
            for number in range(begin, min(begin + 500, count + 1))
        ]  # fmt: skip
        database.run(lambda session, rows=rows: session.execute(insert(Flow), rows))  # type: ignore[misc]


# -- durable -------------------------------------------------------------------------------------------------------


def _durable() -> Iterator[Figure]:
    few, many = _chain(5, _coded), _chain(25, _coded)
    kinds = {"code": _work}
    readings = interleaved(
        {
            "durable": lambda: seconds(lambda: flow_runs.durable(many, {"query": "x"}, kinds)),
            "short": lambda: seconds(lambda: flow_runs.durable(few, {"query": "x"}, kinds)),
            "express": lambda: seconds(lambda: flow_runs.express(many, {"query": "x"}, kinds)),
            "short express": lambda: seconds(lambda: flow_runs.express(few, {"query": "x"}, kinds)),
        },
        8,
    )
    # What starting takes falls out of the difference.
    nodes = 20
    durable, express = (
        [(long - short) / nodes for long, short in zip(readings[one], readings[other], strict=True)]
        for one, other in (("durable", "short"), ("express", "short express"))
    )
    yield compared(
        "a node of a durable run, on the official local runner / of an express run",
        AREA, durable, express, "ms", None, scale=1000,
    )  # fmt: skip
