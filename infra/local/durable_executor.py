"""AWS's local runner's executor, with what it lacks to stand in for the service and to outlive a restart.

- Starting the same name with the same input again returns the execution that there is; its ARN has AWS's form.
- After a restart every execution that had not ended goes on: timers, callback timeouts and chained invokes, which the
  runner keeps in memory, are armed again from what the store holds, and the handler is invoked, because the store
  does not tell whether an invocation was cut off.
- Lambda's quotas for operations and payloads hold.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from aws_durable_execution_sdk_python.lambda_service import (
    ErrorObject,
    Operation,
    OperationAction,
    OperationStatus,
    OperationType,
    OperationUpdate,
)
from aws_durable_execution_sdk_python_testing.exceptions import (
    CallbackTimeoutException,
    IllegalStateException,
    InvalidParameterValueException,
    ResourceNotFoundException,
)
from aws_durable_execution_sdk_python_testing.execution import Execution
from aws_durable_execution_sdk_python_testing.executor import Executor
from aws_durable_execution_sdk_python_testing.model import (
    CheckpointDurableExecutionResponse,
    SendDurableExecutionCallbackFailureResponse,
    SendDurableExecutionCallbackSuccessResponse,
    StartDurableExecutionInput,
    StartDurableExecutionOutput,
)
from aws_durable_execution_sdk_python_testing.token import CallbackToken

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_OPERATIONS = 3_000
MAX_PAYLOAD = 256 * 1024  # of a step's or a context's result
MAX_CALLBACK_RESULT = 1024 * 1024
PAGE = 100


class DurableExecutor(Executor):
    """The runner's executor, with idempotent starts and with recovery."""

    # A handler whose invocation failed (a crash, a timeout, a database that is away) is invoked again after 1, 2, 4 …
    # seconds. The runner's own five attempts, five seconds apart, make whoever watches a crash wait, and a run fail
    # whose database was away for half a minute.
    RETRY_BACKOFF_SECONDS = 1
    MAX_BACKOFF_SECONDS = 30
    MAX_CONSECUTIVE_FAILED_ATTEMPTS = 10

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._starting = threading.Lock()

    def start_execution(self, input: StartDurableExecutionInput) -> StartDurableExecutionOutput:
        """Start an execution, or return the one that has this name and this input.

        Raises
        ------
        IllegalStateException
            The name is taken by an execution with another input.
        """
        with self._starting:
            arn = _arn(input, self.region, _identity(input))
            try:
                known = self._store.load(arn)
            except ResourceNotFoundException:
                return super().start_execution(input)
            if known.start_input.input != input.input:
                raise IllegalStateException(f"{input.execution_name} was started with another payload")
            return StartDurableExecutionOutput(execution_arn=arn)

    def checkpoint_execution(
        self,
        execution_arn: str,
        checkpoint_token: str,
        updates: list[OperationUpdate] | None = None,
        client_token: str | None = None,
    ) -> CheckpointDurableExecutionResponse:
        """Apply a checkpoint, within the quotas that Lambda has and the runner has not.

        Raises
        ------
        InvalidParameterValueException
        """
        for update in updates or ():
            if update.payload and update.operation_type in (OperationType.STEP, OperationType.CONTEXT):
                _check_size(update.payload.encode(), MAX_PAYLOAD)
        if updates:
            known = {operation.operation_id for operation in self._store.load(execution_arn).operations}
            if len(known | {update.operation_id for update in updates}) > MAX_OPERATIONS:
                raise InvalidParameterValueException(f"An execution has at most {MAX_OPERATIONS} operations.")
        return super().checkpoint_execution(execution_arn, checkpoint_token, updates, client_token)

    def send_callback_success(
        self, callback_id: str, result: bytes | None = None
    ) -> SendDurableExecutionCallbackSuccessResponse:
        """Answer a callback; one that is closed is refused as AWS does."""
        _check_size(result or b"", MAX_CALLBACK_RESULT)
        self._refuse_closed(callback_id)
        return super().send_callback_success(callback_id, result)

    def send_callback_failure(
        self, callback_id: str, error: ErrorObject | None = None
    ) -> SendDurableExecutionCallbackFailureResponse:
        """Answer a callback with an error; one that is closed is refused as AWS does."""
        self._refuse_closed(callback_id)
        return super().send_callback_failure(callback_id, error)

    def recover(self) -> None:
        """Go on with every execution that had not ended when the last process did."""
        for arn in list(self._running_arns()):
            execution = self._store.load(arn)
            # Attempts that failed because the stack was going down say nothing against the handler.
            execution.consecutive_failed_invocation_attempts = 0
            self._store.update(execution)
            started = execution.get_operation_execution_started().start_timestamp
            timeout_s = execution.start_input.execution_timeout_seconds
            for update, operation in _unfinished(execution):
                self._resume(arn, update, operation, execution.chained_invoke_children)
            self._launch_execution(execution, self._remaining_s(started, timeout_s))

    def _invoke_execution(self, execution_arn: str, delay: float = 0) -> None:
        if delay > 0:  # only a retry has one
            failed = self._store.load(execution_arn).consecutive_failed_invocation_attempts
            delay = min(delay * 2 ** (failed - 1), self.MAX_BACKOFF_SECONDS)
        super()._invoke_execution(execution_arn, delay)

    def _create_execution(
        self,
        input: StartDurableExecutionInput,
        parent_execution_arn: str | None = None,
    ) -> Execution:
        # A chained execution has no name of its own that must be unique.
        identity = _identity(input) if parent_execution_arn is None else str(uuid.uuid4())
        execution = Execution.new(input=replace(input, invocation_id=identity))
        execution.durable_execution_arn = _arn(input, self.region, identity)
        execution.region = self.region
        execution.parent_execution_arn = parent_execution_arn
        execution.start(now=self._clock.now())
        self._store.save(execution)
        return execution

    def _running_arns(self) -> Iterator[str]:
        offset = 0
        while True:
            page, more = self._store.query(status_filter="RUNNING", limit=PAGE, offset=offset)
            yield from (execution.durable_execution_arn for execution in page)
            if more is None:
                return
            offset = int(more)

    def _resume(
        self, arn: str, update: OperationUpdate, operation: Operation, children: Mapping[str, str]
    ) -> None:
        if operation.operation_type is OperationType.CALLBACK and update.callback_options is not None:
            options = update.callback_options
            if options.timeout_seconds > 0:
                left = self._remaining_s(operation.start_timestamp, options.timeout_seconds)
                options = replace(options, timeout_seconds=left)
            token = CallbackToken(arn, operation.operation_id)
            self._schedule_callback_timeouts(arn, options, token.to_str())
        elif (
            operation.operation_type is OperationType.CHAINED_INVOKE
            and update.chained_invoke_options is not None
        ):
            child = children.get(operation.operation_id)
            if child is None:
                target = update.chained_invoke_options
                self.on_chained_invoke_started(
                    arn, operation.operation_id, target.function_name, target.tenant_id, update.payload
                )
            elif self._store.load(child).is_complete:
                self._notify_parent_of_terminal_child(child)

    def _remaining_s(self, since: datetime | None, total_s: int) -> int:
        spent_s = (self._clock.now() - since).total_seconds() if since else 0
        return max(1, int(total_s - spent_s))  # 0 would mean no limit

    def _refuse_closed(self, callback_id: str) -> None:
        try:
            token = CallbackToken.from_str(callback_id)
            execution = self._store.load(token.execution_arn)
            _, operation = execution.find_callback_operation(callback_id)
        except Exception as error:
            # A forged or garbled id fails in as many ways as there are layers of encoding.
            raise ResourceNotFoundException("Callback does not exist") from error
        if execution.is_complete or operation.status is not OperationStatus.STARTED:
            raise CallbackTimeoutException("The callback has already been closed.")


def _check_size(payload: bytes, limit: int) -> None:
    if len(payload) > limit:
        raise InvalidParameterValueException(f"This payload has at most {limit} bytes.")


def _unfinished(execution: Execution) -> Iterator[tuple[OperationUpdate, Operation]]:
    """Yield the operations that wait for something outside, each with the update that started it."""
    waiting = {
        operation.operation_id: operation
        for operation in execution.operations
        if operation.status is OperationStatus.STARTED
    }
    for update in execution.updates:
        if update.action is OperationAction.START and update.operation_id in waiting:
            yield update, waiting.pop(update.operation_id)


def _identity(start: StartDurableExecutionInput) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{start.function_name}/{start.execution_name}"))


def _arn(start: StartDurableExecutionInput, region: str, identity: str) -> str:
    function = f"arn:aws:lambda:{region}:{start.account_id}:function:{start.function_name}:$LATEST"
    return f"{function}/durable-execution/{start.execution_name}/{identity}"
