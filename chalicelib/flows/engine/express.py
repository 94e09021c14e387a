"""Works in threads of the function that was invoked; nothing of them outlives the invocation."""

from __future__ import annotations

import contextvars
import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

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

THREADS = 16
TICK_S = 0.5
"""How often a run that waits looks whether it was cancelled."""


@dataclass
class _Task:
    work: Work
    attempt: int = 0
    started_at: str = ""
    began: float = 0.0
    deadline: float = 0.0
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def join(self) -> None:
        """Wait until its thread is gone: it has a few instructions left when it is done."""
        if self.thread is not None:
            self.thread.join()


class ExpressSteps:
    """`Steps` over threads.

    A node's time counts from when its thread begins; a thread that takes longer is waited for no more, but keeps its
    place until it ends, and `close` waits for it: it would thaw in the next invocation otherwise.

    Parameters
    ----------
    attempt
        What a thread does.
    deadline
        When the run must have ended, by `time.monotonic`.
    tick
        Called about twice a second while the run waits, by the run's own thread; raises Interrupt to end it.
    """

    def __init__(
        self,
        attempt: Attempt,
        handlers: ErrorHandler,
        run_id: str,
        *,
        deadline: float,
        tick: Callable[[], None],
        threads: int = THREADS,
    ) -> None:
        self._attempt, self._handlers, self._context = attempt, handlers, ErrorContext(run_id)
        self._deadline, self._tick, self._room = deadline, tick, threads
        self._pending: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._later: list[tuple[float, int, _Task]] = []
        self._ended: queue.SimpleQueue[tuple[_Task, Result | None, BaseException | None]] = (
            queue.SimpleQueue()
        )
        self._numbers = count()
        self._ticked = time.monotonic()

    def start(self, work: Work) -> None:
        self._pending.append(_Task(work))
        self._fill()

    def wait(self) -> list[Ended]:
        while True:
            self._look()
            self._fill()
            ended = [one for one in map(self._timed_out, list(self._running)) if one is not None]
            if ended:
                return ended
            try:
                task, result, error = self._ended.get(timeout=self._pause())
            except queue.Empty:
                continue
            found = self._finished(task, result, error)
            if found is not None:
                return [found]

    def ask(self, question: Question) -> Answer:
        raise Interrupt(NODE_FAILED, "Only a durable run can ask questions.")

    def check(self) -> None:
        self._look()

    def close(self) -> None:
        """Wait for every thread; each of their calls has a time limit of its own."""
        for task in self._running:
            task.join()
        self._running.clear()

    # -- the run's thread --------------------------------------------------------------------------------------

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._deadline:
            raise Interrupt(NODE_FAILED, "The run's time is over; a durable run has no such limit.")
        if now - self._ticked >= TICK_S:
            self._ticked = now
            self._tick()

    def _fill(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._pending.append(heapq.heappop(self._later)[2])
        for task in [one for one in self._running if one.abandoned and one.done.is_set()]:
            self._remove(task)
        while self._pending and len(self._running) < self._room:
            self._launch(self._pending.popleft())

    def _launch(self, task: _Task) -> None:
        now = time.monotonic()
        if task.attempt == 0:
            task.began, task.started_at = time.perf_counter(), datetime.now(UTC).isoformat()
        task.attempt += 1
        task.deadline = min(now + task.work.node.retry.timeout_s, self._deadline)
        task.done.clear()
        context = contextvars.copy_context()
        task.thread = threading.Thread(
            target=context.run, args=(self._work, task), name=f"node-{task.work.key[:40]}", daemon=True
        )
        self._running.append(task)
        try:
            task.thread.start()
        except RuntimeError as error:
            # There are no more threads: the attempt has failed, and nobody need wait for it.
            task.thread = None
            task.done.set()
            self._ended.put((task, None, error))

    def _pause(self) -> float:
        """Seconds until something other than the end of a work has to be done."""
        now = time.monotonic()
        nearest = min([task.deadline for task in self._running if not task.abandoned], default=now + TICK_S)
        if self._later:
            nearest = min(nearest, self._later[0][0])
        return max(0.001, min(nearest - now, TICK_S))

    def _finished(self, task: _Task, result: Result | None, error: BaseException | None) -> Ended | None:
        if task.abandoned:
            return None
        self._remove(task)
        if result is not None:
            return self._end(task, result, None)
        if error is None:
            raise AssertionError("an attempt ended with nothing")
        return self._failed(task, error)

    def _remove(self, task: _Task) -> None:
        task.join()
        self._running = [one for one in self._running if one is not task]

    def _timed_out(self, task: _Task) -> Ended | None:
        if task.abandoned or task.done.is_set() or time.monotonic() < task.deadline:
            return None
        task.abandoned = True
        again = _Task(task.work, task.attempt, task.started_at, task.began)
        return self._failed(again, TimeoutError())

    def _failed(self, task: _Task, error: BaseException) -> Ended | None:
        decision = self._handlers.handle(error, task.work.node, self._context, task.attempt)
        if decision.verdict is not Verdict.RETRY:
            return self._end(task, None, decision)
        heapq.heappush(self._later, (time.monotonic() + decision.delay_s, next(self._numbers), task))
        return None

    def _end(self, task: _Task, result: Result | None, decision: Decision | None) -> Ended:
        duration_ms = (time.perf_counter() - task.began) * 1000
        return Ended(task.work, result, decision, task.attempt, task.started_at, duration_ms)

    # -- a node's thread ---------------------------------------------------------------------------------------

    def _work(self, task: _Task) -> None:
        result: Result | None = None
        error: BaseException | None = None
        try:
            result = self._attempt(task.work, task.attempt, task.deadline)
        except BaseException as raised:  # noqa: BLE001 - it is decided upon in the run's own thread
            error = raised
        task.done.set()
        self._ended.put((task, result, error))
