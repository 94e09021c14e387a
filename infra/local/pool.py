"""The environments of one function: started on demand, taken in turn, ended when idle, replaced after a crash."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from infra.functions import Function
from infra.local.environment import Environment, Host, InitFailed, State
from infra.local.invocation import Invocation, InvocationRefused, Outcome, failure

# An invocation of a durable execution that is throttled counts as one that failed, and some of those in a row end the
# execution: here it waits for its turn instead.
DURABLE_WAIT_S = 600


@dataclass(frozen=True)
class Scaling:
    """How many processes a function may have.

    Parameters
    ----------
    minimum
        Kept warm. Only for functions without tenants.
    maximum
        At once.
    wait_s
        How long an invocation waits for a free environment at the maximum before it is throttled. Lambda would have
        started another one; a single machine has to share.
    idle_s
        After so many seconds without work an environment above the minimum is ended.
    """

    minimum: int = 0
    maximum: int = 4
    wait_s: float = 20
    idle_s: float = 300


def default_scaling(function: Function, api_processes: int, *, per_endpoint: bool) -> Scaling:
    """Return how many processes a function of this kind gets; `api_processes` are kept warm for `api`."""
    if function.kind == "api" and not per_endpoint:
        return Scaling(minimum=api_processes, maximum=max(api_processes, 4))
    if function.kind == "api":
        return Scaling(maximum=max(api_processes, 2), idle_s=120)
    if function.kind == "schedule":
        return Scaling(maximum=1, idle_s=75)
    if function.per_tenant:
        return Scaling(maximum=8)
    if function.durable:
        return Scaling(maximum=4, wait_s=DURABLE_WAIT_S)
    # Migration runs once; nothing else calls it.
    return Scaling(maximum=max(4, function.concurrency or 0), idle_s=5 if function.name == "migrate" else 300)


@dataclass(frozen=True)
class EnvironmentInfo:
    """What can be seen of an environment from outside."""

    pid: int
    state: State
    tenant: str | None
    served: int


@dataclass(frozen=True, eq=False)
class _Waiter:
    tenant: str | None
    found: asyncio.Future[Environment | Outcome]


class Pool:
    """All environments of one function.

    Free environments are taken in turn, the one that has rested longest first: with several warm processes each gets
    its share, so that what must hold between processes is exercised and not only promised. (Lambda leaves the order
    open.)
    """

    def __init__(
        self, function: Function, scaling: Scaling, host: Host, log_file: Path, make_room: Callable[[], None]
    ) -> None:
        self.function = function
        self.scaling = scaling
        self.environments: set[Environment] = set()
        self._host = host
        self._make_room = make_room
        self._output = log_file.open("ab", buffering=0)
        self._idle: defaultdict[str | None, deque[Environment]] = defaultdict(deque)
        self._starting: Counter[str | None] = Counter()
        self._waiters: deque[_Waiter] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Run the function once.

        Raises
        ------
        InvocationRefused
            429 when no environment came free in time.
        """
        while True:
            found = await self._acquire(invocation.tenant)
            if isinstance(found, Outcome):
                return Outcome(invocation.request_id, found.payload, found.error)
            if found.state != "ended":
                return await found.invoke(invocation)
            # It died between being chosen and being used: nothing ran, another one may.

    async def warm(self) -> None:
        """Start environments up to the minimum and wait for them.

        Raises
        ------
        InitFailed
        """
        missing = self.scaling.minimum - len(self.environments)
        if missing > 0 and not self.function.per_tenant and not self._closing:
            results = await asyncio.gather(
                *(self._start(None) for _ in range(missing)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    def end_idle(self, now: float | None = None) -> None:
        """End what has rested too long."""
        limit = (time.monotonic() if now is None else now) - self.scaling.idle_s
        for environment in self._resting():
            if environment.idle_since < limit and len(self.environments) > self.scaling.minimum:
                self._end(environment)

    def oldest_idle(self) -> Environment | None:
        """Return the environment above the minimum that has rested longest, if any."""
        if len(self.environments) <= self.scaling.minimum:
            return None
        return min(self._resting(), key=lambda environment: environment.idle_since, default=None)

    def end_one(self, environment: Environment) -> None:
        """End a free environment to make room for one of another function."""
        self._end(environment)

    def infos(self) -> list[EnvironmentInfo]:
        """Return what runs now."""
        return [EnvironmentInfo(e.pid, e.state, e.tenant, e.served) for e in self.environments if e.pid]

    def busy(self) -> bool:
        """Return whether an invocation runs or waits."""
        return bool(self._waiters) or any(environment.state == "busy" for environment in self.environments)

    async def close(self) -> None:
        """End every environment."""
        self._closing = True
        for waiter in self._waiters:
            waiter.found.set_result(failure("", "Runtime.ExitError", "The stack is stopping"))
        self._waiters.clear()
        for environment in list(self.environments):
            self._end(environment)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._output.close()

    async def _acquire(self, tenant: str | None) -> Environment | Outcome:
        waiter = _Waiter(tenant, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._dispatch()
        deadline = time.monotonic() + self.scaling.wait_s
        while not waiter.found.done():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                place = [w for w in self._waiters if w.tenant == tenant].index(waiter)
                if place >= self._coming(tenant):
                    self._waiters.remove(waiter)
                    raise InvocationRefused(
                        429,
                        "TooManyRequestsException",
                        "Rate Exceeded.",
                        Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
                    )
                remaining = 0.2  # one is coming for this waiter: its init phase has a limit of its own
            await asyncio.wait({waiter.found}, timeout=remaining)
        return waiter.found.result()

    def _dispatch(self) -> None:
        for waiter in list(self._waiters):
            if waiter.found.cancelled():
                self._waiters.remove(waiter)
            elif free := self._idle.get(waiter.tenant):
                environment = free.popleft()
                # From here on it is not free, although its invocation begins in the waiter's own task.
                environment.state = "busy"
                self._waiters.remove(waiter)
                waiter.found.set_result(environment)
        if self._closing:
            return
        for tenant, waiting in Counter(waiter.tenant for waiter in self._waiters).items():
            while self._coming(tenant) < waiting and self._has_room():
                self._make_room()
                self._starting[tenant] += 1
                self._background(self._start_for_waiter(tenant))

    def _coming(self, tenant: str | None) -> int:
        """Return how many environments come free by themselves: those that start, and those that have answered and
        are about to ask for more work."""
        returning = sum(e.returning and e.tenant == tenant for e in self.environments)
        return self._starting[tenant] + returning

    def _has_room(self) -> bool:
        if len(self.environments) + self._unborn() < self.scaling.maximum:
            return True
        # Free environments that are left now belong to other tenants; one gives way.
        oldest = min(self._resting(), key=lambda environment: environment.idle_since, default=None)
        if oldest is None:
            return False
        self._end(oldest)
        return True

    def _unborn(self) -> int:
        born = sum(environment.state == "starting" for environment in self.environments)
        return max(0, self._starting.total() - born)

    async def _start_for_waiter(self, tenant: str | None) -> None:
        try:
            await self._start(tenant, counted=True)
        except InitFailed as error:
            waiter = next((w for w in self._waiters if w.tenant == tenant), None)
            if waiter is not None:
                self._waiters.remove(waiter)
                waiter.found.set_result(error.outcome)
            self._dispatch()

    async def _start(self, tenant: str | None, *, counted: bool = False) -> None:
        environment = Environment(
            self.function, tenant, self._host, self._output, on_idle=self._released, on_end=self._ended
        )
        self.environments.add(environment)
        if not counted:
            self._starting[tenant] += 1
        try:
            await environment.start()
        except InitFailed:
            self._end(environment)
            raise
        finally:
            self._starting[tenant] -= 1
            if not self._starting[tenant]:
                del self._starting[tenant]
        self._released(environment)

    def _released(self, environment: Environment) -> None:
        if self._closing:
            return
        self._idle[environment.tenant].append(environment)
        self._dispatch()

    def _ended(self, environment: Environment) -> None:
        self._forget(environment)
        self._dispatch()
        crashed = environment.served > 0
        if crashed and not self._closing and len(self.environments) < self.scaling.minimum:
            self._background(self._replace())

    async def _replace(self) -> None:
        try:
            await self.warm()
        except InitFailed as error:
            self._host.log.error("%s does not start: %s", self.function.name, error)

    def _end(self, environment: Environment) -> None:
        self._forget(environment)
        environment.end()
        self._background(environment.wait_ended())

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, environment: Environment) -> None:
        self.environments.discard(environment)
        free = self._idle.get(environment.tenant)
        if free is not None:
            if environment in free:
                free.remove(environment)
            if not free:
                del self._idle[environment.tenant]

    def _resting(self) -> list[Environment]:
        return [environment for free in self._idle.values() for environment in free]
