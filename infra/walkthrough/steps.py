"""One step after the other, timed and recorded, over the public API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

API_PROCESSES = 4
# Enough requests for the front to reach every warm process several times.
PROBES = 24

# The name of a step, and what it does; returns what it found.
Plan = Sequence[tuple[str, Callable[[], str]]]


@dataclass(frozen=True)
class Step:
    """One step of the walkthrough, as `.local/demo.json` records it; `ms` in milliseconds."""

    name: str
    ok: bool
    ms: float
    detail: str


class Failed(AssertionError):
    """A step did not hold; the message says what was seen."""


def expect(held: bool, message: str) -> None:
    """Fail the step unless `held`."""
    if not held:
        raise Failed(message)


def walk(plan: Plan, steps: list[Step]) -> bool:
    """Go through a plan until a step fails, printing and recording each in `steps`; True where every one held."""
    for name, work in plan:
        began = time.perf_counter()
        try:
            detail, ok = work(), True
        except (Failed, httpx.HTTPError, KeyError) as error:
            detail, ok = f"{type(error).__name__}: {error}", False
        step = Step(name, ok, round((time.perf_counter() - began) * 1000, 1), detail)
        steps.append(step)
        print(
            f"{'ok  ' if ok else 'FAIL'} {step.ms:9.1f} ms  {name}\n                   {detail}", flush=True
        )
        if not ok:
            return False
    return True


class Client:
    """The public API with one credential."""

    def __init__(self, base_url: str, credential: str) -> None:
        self._http = httpx.Client(
            base_url=f"{base_url}/api/v1", headers={"Authorization": f"Bearer {credential}"}, timeout=35
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, method: str, path: str, expected: int, **options: Any) -> httpx.Response:
        """Return the answer; a status other than the expected one fails the step with the problem's text."""
        response = self._http.request(method, path, **options)
        expect(
            response.status_code == expected,
            f"{method} {path}: {response.status_code} instead of {expected}: {response.text[:500]}",
        )
        return response
