from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aws_durable_execution_sdk_python.lambda_service import (
    ErrorObject,
    Operation,
    OperationAction,
    OperationStatus,
    OperationType,
    OperationUpdate,
)
from aws_durable_execution_sdk_python_testing.exceptions import (
    InvalidParameterValueException,
    ResourceNotFoundException,
)
from aws_durable_execution_sdk_python_testing.execution import Execution
from aws_durable_execution_sdk_python_testing.model import StartDurableExecutionInput
from aws_durable_execution_sdk_python_testing.worker.registry import ExecutionRegistry

from infra.local import durable_runner
from infra.local.durable_executor import MAX_CALLBACK_RESULT, MAX_OPERATIONS, MAX_PAYLOAD, DurableExecutor
from infra.local.durable_runner import CachedStore, forget_ended


def execution(name: str = "name") -> Execution:
    made = Execution.new(
        StartDurableExecutionInput("000000000000", "run", "$LATEST", name, 60, 1, invocation_id=name)
    )
    made.start()
    return made


@pytest.fixture
def store(tmp_path: Path) -> CachedStore:
    return CachedStore.create_and_initialize(tmp_path / "executions.db")


@pytest.fixture
def executor(store: CachedStore) -> Iterator[DurableExecutor]:
    registry = ExecutionRegistry(store, scheduler=None)
    yield DurableExecutor(
        store=store, scheduler=None, invoker=None, checkpoint_processor=None, registry=registry
    )
    registry.shutdown()


class Timers:
    """A scheduler that only notes for how long it was to wait."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, work: Any, delay: float = 0, **_: Any) -> None:
        self.delays.append(delay)


def step(identity: str, payload: str | None = None) -> OperationUpdate:
    return OperationUpdate(identity, OperationType.STEP, OperationAction.SUCCEED, payload=payload)


def test_an_execution_has_no_more_operations_than_on_lambda(
    store: CachedStore, executor: DurableExecutor
) -> None:
    full = execution()
    full.operations += [
        Operation(f"s{number}", OperationType.STEP, OperationStatus.SUCCEEDED)
        for number in range(MAX_OPERATIONS - 1)
    ]
    store.save(full)
    arn = full.durable_execution_arn
    with pytest.raises(InvalidParameterValueException, match="at most 3000 operations"):
        executor.checkpoint_execution(arn, "token", [step("new")])
    # What it has already may still be changed: refused only because no invocation has this token.
    with pytest.raises(InvalidParameterValueException, match="Invalid checkpoint token"):
        executor.checkpoint_execution(arn, "token", [step("s1")])


def test_a_payload_is_no_larger_than_on_lambda(store: CachedStore, executor: DurableExecutor) -> None:
    running = execution()
    store.save(running)
    arn = running.durable_execution_arn
    with pytest.raises(InvalidParameterValueException, match="at most 262144 bytes"):
        executor.checkpoint_execution(arn, "token", [step("s", "ä" * (MAX_PAYLOAD // 2) + "x")])
    with pytest.raises(InvalidParameterValueException, match="Invalid checkpoint token"):
        executor.checkpoint_execution(arn, "token", [step("s", "ä" * (MAX_PAYLOAD // 2))])
    with pytest.raises(InvalidParameterValueException, match="at most 1048576 bytes"):
        executor.send_callback_success("any", b"x" * (MAX_CALLBACK_RESULT + 1))


def test_the_pauses_between_failed_invocations_grow_to_half_a_minute(store: CachedStore) -> None:
    scheduler = Timers()
    registry = ExecutionRegistry(store, scheduler)
    executor = DurableExecutor(
        store=store, scheduler=scheduler, invoker=None, checkpoint_processor=None, registry=registry
    )
    running = execution()
    store.save(running)
    for _ in range(10):
        executor._retry_invocation(running, ErrorObject.from_message("away"))
    assert scheduler.delays == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert store.load(running.durable_execution_arn).current_status().value == "FAILED"


def test_what_is_saved_is_written_at_once_and_only_what_goes_on_stays_in_memory(
    store: CachedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_runner, "CACHED_EXECUTIONS", 2)
    running = execution("running")
    store.save(running)
    arn = running.durable_execution_arn
    assert store.load(arn) is running
    running.needs_reinvoke = True
    store.update(running)
    assert CachedStore(store.db_path).load(arn).needs_reinvoke

    for other in ("one", "two"):
        store.save(execution(other))
    reread = store.load(arn)
    assert reread is not running and reread.needs_reinvoke and store.load(arn) is reread

    reread.complete_success("1")
    store.update(reread)
    assert store.load(arn) is not reread
    assert store.load(arn).is_complete


def test_what_has_ended_is_forgotten_after_its_retention(store: CachedStore) -> None:
    ended, running = execution("ended"), execution("running")
    ended.complete_success("1")
    for each in (ended, running):
        store.save(each)
    with closing(sqlite3.connect(store.db_path)) as connection:
        forget_ended(connection, retention_days=1)
        assert store.load(ended.durable_execution_arn).is_complete
        forget_ended(connection, retention_days=-1)
    with pytest.raises(ResourceNotFoundException):
        store.load(ended.durable_execution_arn)
    assert not store.load(running.durable_execution_arn).is_complete
