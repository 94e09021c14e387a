"""The rule "no network call inside a transaction", enforced where the call is made.

A unit of work holds row locks; a call that waits thirty seconds for a stranger's server while it is open
stops every other writer. The database opens `unit()`, each outbound client calls `forbid_in_unit()`.

The state belongs to the context (`contextvars`), so units of concurrent threads do not see one another. A
thread that is started inside a unit begins with a fresh context and is not covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_open: ContextVar[bool] = ContextVar("hotplug_unit_open", default=False)


class NetworkInsideUnit(RuntimeError):
    """A programming error: something slow was about to be done while a unit of work holds its locks."""


@contextmanager
def unit() -> Iterator[None]:
    """Mark a unit of work as open. Units nest; the outermost one ends the mark."""
    previous = _open.get()
    _open.set(True)
    try:
        yield
    finally:
        # Not reset(token): a generator that is finalised in another context would raise ValueError there.
        _open.set(previous)


def unit_open() -> bool:
    """Return whether a unit of work is open in this context."""
    return _open.get()


def forbid_in_unit(what: str) -> None:
    """Refuse `what` ("http", "a second connection") while a unit of work is open.

    Raises
    ------
    NetworkInsideUnit
        When one is open.
    """
    if _open.get():
        raise NetworkInsideUnit(f"{what} inside an open unit of work")
