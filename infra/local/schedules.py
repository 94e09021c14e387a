"""EventBridge schedules: each function fires at its rate, one firing after the other."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from infra.functions import Function
from infra.local.environment import ACCOUNT, REGION
from infra.local.invocation import Invocation, InvocationRefused
from infra.local.service import LambdaService

# The first firing comes soon after the start, so that it repairs what a kill left behind; one by one, because each is
# a cold start of its own.
FIRST_FIRING_S = 3.0

_RATE = re.compile(r"rate\((?P<value>[1-9][0-9]*) (?P<unit>minute|hour|day)s?\)")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class Schedules:
    """Fires all scheduled functions. Raises ValueError for an expression that is not a rate."""

    def __init__(self, functions: Iterable[Function], service: LambdaService, log: logging.Logger) -> None:
        self._periods = [(function, rate_seconds(function.schedule or "")) for function in functions]
        self._service = service
        self._log = log
        self._turn = asyncio.Semaphore(1)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        # The most frequent ones matter most after a start.
        for function, period in sorted(self._periods, key=lambda pair: pair[1]):
            self._tasks.append(asyncio.create_task(self._repeat(function, period)))

    async def close(self) -> None:
        """Fire no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, function: Function, period: float) -> None:
        due = time.monotonic() + FIRST_FIRING_S
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            async with self._turn:
                await self._fire(function)
            # A firing that took longer than the period is followed by the next one at once, not by a pile of them.
            due = max(due + period, time.monotonic())

    async def _fire(self, function: Function) -> None:
        event = json.dumps(scheduled_event(function.name)).encode()
        try:
            outcome = await self._service.invoke(function.name, Invocation(event))
        except InvocationRefused as refusal:
            self._log.warning("%s did not fire: %s", function.name, refusal.message)
            return
        if outcome.error is not None:
            self._log.error("%s failed: %s", function.name, outcome.payload[:2000].decode(errors="replace"))


def rate_seconds(expression: str) -> float:
    """Return the period of `rate(5 minutes)` in seconds.

    Raises
    ------
    ValueError
    """
    match = _RATE.fullmatch(expression)
    if match is None:
        raise ValueError(f"{expression!r}: the local stack fires rates only, `rate(5 minutes)`")
    return float(int(match["value"]) * _SECONDS[match["unit"]])


def scheduled_event(name: str) -> dict[str, Any]:
    """Return the event that EventBridge sends for a rule's schedule."""
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"],
        "detail": {},
    }
