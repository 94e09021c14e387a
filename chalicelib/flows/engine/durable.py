"""Works as the steps of a durable execution: each is kept once it has ended, and never run again.

An execution is run from its beginning whenever it is resumed, and gets what its steps gave before. Its operations are
known by the order in which they are asked for, so that order must not depend on time: works that are ready together are
one round, begun together in the order of the flow, and the next round begins when all of them have ended.
"""

from __future__ import annotations

import contextvars
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chalicelib.flows.engine.call import Result
from chalicelib.flows.engine.errors import (
    NODE_FAILED,
    Decision,
    ErrorContext,
    ErrorHandler,
    Interrupt,
    Verdict,
)
from chalicelib.flows.engine.steps import Answer, Attempt, Ended, Question, Work

if TYPE_CHECKING:
    from aws_durable_execution_sdk_python import DurableContext
    from aws_durable_execution_sdk_python.types import StepContext

CONCURRENCY = 16
MAX_OPERATIONS = 2_900
"""The service ends an execution at 3,000 operations. Its own, of which we do not know, need room."""
MAX_NAME = 200
LOOK_S = 1.0

Asked = Callable[[Question, str], None]
"""Gets a question with the id of its callback."""


class Values:
    """How what a step gave is kept: as JSON in the checkpoint. A store of large values overrides it."""

    def kept(self, text: str) -> str:
        """Return what stands for a text in the checkpoint."""
        return text

    def found(self, kept: str) -> str:
        """Return the text again."""
        return kept


class _Again(Exception):
    """Tells the SDK to make another attempt, after `delay_s`; its text is stored by the service."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"error {decision.code}")
        self.delay_s = decision.delay_s


class DurableSteps:
    """`Steps` over the context of a durable execution.

    Parameters
    ----------
    check
        Raises Interrupt to end the run; called before each round, and about once a second while the run computes.
    asking, asked, answered
        Called whenever a question comes up, when it has to wait for its answer, and when it has one; each with the
        question and the id of its callback.
    """

    def __init__(
        self,
        context: DurableContext,
        attempt: Attempt,
        handlers: ErrorHandler,
        run_id: str,
        *,
        check: Callable[[], None] = lambda: None,
        asking: Asked = lambda question, callback_id: None,
        asked: Asked = lambda question, callback_id: None,
        answered: Asked = lambda question, callback_id: None,
        values: Values | None = None,
        most: int = MAX_OPERATIONS,
    ) -> None:
        self._context, self._attempt, self._handlers = context, attempt, handlers
        self._decisions = ErrorContext(run_id)
        self._before_round, self._asked, self._answered = check, asked, answered
        self._looked_at = time.monotonic()
        self._asking = asking
        self._values = values or Values()
        self._most = most
        self._operations = 0
        self._round: list[Work] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Work) -> None:
        self._round.append(work)

    def wait(self) -> list[Ended]:
        from aws_durable_execution_sdk_python.config import (
            CompletionConfig,
            NestingType,
            ParallelBranch,
            ParallelConfig,
        )

        self._look()
        works, self._round = self._round, []
        self._count(len(works) + (len(works) > 1))
        if len(works) == 1:
            return [self._ended(works[0], self._step(self._context, works[0]))]
        config = ParallelConfig(
            max_concurrency=CONCURRENCY,
            completion_config=CompletionConfig(tolerated_failure_percentage=100),
            nesting_type=NestingType.FLAT,
        )
        branches: list[Any] = [
            ParallelBranch(func=lambda context, work=work: self._step(context, work), name=_name(work.key))
            for work in works
        ]
        found: Any = self._context.parallel(functions=branches, name="round", config=config)
        found.throw_if_error()
        kept = found.get_results()
        return [self._ended(work, one) for work, one in zip(works, kept, strict=True)]

    def ask(self, question: Question) -> Answer:
        from aws_durable_execution_sdk_python.config import CallbackConfig, Duration
        from aws_durable_execution_sdk_python.exceptions import CallbackError, SuspendExecution

        self._look()
        self._count(1)
        timeout = Duration.from_seconds(max(1, math.ceil(question.timeout_s)))
        callback: Any = self._context.create_callback(
            name=_name(question.key), config=CallbackConfig(timeout=timeout)
        )
        self._asking(question, callback.callback_id)
        try:
            told = callback.result()
        except CallbackError:
            self._answered(question, callback.callback_id)
            return Answer("expired")
        except SuspendExecution:
            self._asked(question, callback.callback_id)
            raise
        self._answered(question, callback.callback_id)
        given = json.loads(told)
        return Answer(given["action"], given.get("content"))

    def check(self) -> None:
        """Do now and then what is done before each round. A run may compute for minutes without one: what it told would
        fill the memory meanwhile, and nobody could end it."""
        if time.monotonic() - self._looked_at >= LOOK_S:
            self._look()

    def _look(self) -> None:
        self._before_round()
        self._looked_at = time.monotonic()

    def close(self) -> None:
        """Wait for the threads of attempts that took too long; each of their calls has a time limit of its own."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _count(self, operations: int) -> None:
        self._operations += operations
        if self._operations > self._most:
            raise Interrupt(NODE_FAILED, f"The run takes more than {self._most} durable operations.")

    # -- one work, on a thread of the SDK ----------------------------------------------------------------------

    def _step(self, context: DurableContext, work: Work) -> str:
        from aws_durable_execution_sdk_python.config import StepConfig
        from aws_durable_execution_sdk_python.serdes import PassThroughSerDes

        config = StepConfig(retry_strategy=_when_again, serdes=PassThroughSerDes())
        kept: str = context.step(lambda step: self._try(step, work), name=_name(work.key), config=config)
        return kept

    def _try(self, step: StepContext, work: Work) -> str:
        number = step.attempt or 1
        started_at, began = datetime.now(UTC).isoformat(), time.perf_counter()
        result: Result | None = None
        decision: Decision | None = None
        try:
            result = self._within(work, number, work.node.retry.timeout_s)
        except Exception as error:
            decision = self._handlers.handle(error, work.node, self._decisions, number)
            if decision.verdict is Verdict.RETRY:
                raise _Again(decision) from error
        told = {
            "result": None if result is None else result.as_dict(),
            "decision": None if decision is None else _decision(decision),
            "attempts": number,
            "startedAt": started_at,
            "durationMs": (time.perf_counter() - began) * 1000,
        }
        return self._values.kept(json.dumps(told, ensure_ascii=False, separators=(",", ":")))

    def _within(self, work: Work, number: int, seconds: float) -> Result:
        """Make an attempt in a thread that is waited for no longer than `seconds`."""
        answer: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        deadline = time.monotonic() + seconds

        def attempt() -> None:
            try:
                answer.put((self._attempt(work, number, deadline), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                answer.put((None, error))

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(attempt,), daemon=True)
        thread.start()
        try:
            result, error = answer.get(timeout=seconds)
        except queue.Empty:
            self._threads.append(thread)
            raise TimeoutError from None
        if error is not None:
            raise error
        if result is None:
            raise AssertionError("an attempt ended with nothing")
        return result

    def _ended(self, work: Work, kept: str) -> Ended:
        told: Mapping[str, Any] = json.loads(self._values.found(kept))
        result, decision = told["result"], told["decision"]
        return Ended(
            work,
            None if result is None else Result.of(result),
            None if decision is None else Decision(Verdict(decision.pop("verdict")), **decision),
            told["attempts"],
            told["startedAt"],
            told["durationMs"],
        )


def _when_again(error: Exception, _attempt: int) -> Any:
    from aws_durable_execution_sdk_python.config import Duration
    from aws_durable_execution_sdk_python.retries import RetryDecision

    if not isinstance(error, _Again):
        return RetryDecision.no_retry()
    return RetryDecision.retry(Duration.from_seconds(max(1, math.ceil(error.delay_s))))


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict.value,
        "code": decision.code,
        "message": decision.message,
        "interrupts": decision.interrupts,
        "cancelled": decision.cancelled,
    }


def _name(key: str) -> str:
    """A key as the name of an operation, which the service bounds."""
    return key if len(key) <= MAX_NAME else f"…{key[-MAX_NAME + 1 :]}"
