"""The enumerated steps of operations with side effects, and the one place where something may watch them.

An operation declares its steps once; its code calls `step` right before each side effect. Telemetry times
the steps, and the crash tests end the process at each of them: what is declared here is what is proved to be
repeatable.
"""

from __future__ import annotations

from collections.abc import Callable

Observer = Callable[[str, str], None]

_declared: dict[str, tuple[str, ...]] = {}
_observer: Observer | None = None


def declare(operation: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Name the steps of an operation in their order and return them.

    Declaring the same steps again is allowed (a module may be imported twice under test), others are not.

    Raises
    ------
    ValueError
        For no steps, a step that is named twice, or an operation that was declared with other steps.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError(f"the steps of {operation} must be named once each")
    if _declared.setdefault(operation, names) != names:
        raise ValueError(f"{operation} was declared with other steps")
    return names


def declared() -> dict[str, tuple[str, ...]]:
    """Return every declared operation with its steps, for the tests that walk them all."""
    return dict(_declared)


def step(operation: str, name: str) -> None:
    """Say that the side effect `name` of `operation` comes next.

    Raises
    ------
    ValueError
        When the step was not declared: a crash test could not have stopped there.
    """
    if name not in _declared.get(operation, ()):
        raise ValueError(f"{operation} has no step {name}")
    if _observer is not None:
        _observer(operation, name)


def observe(observer: Observer | None) -> Observer | None:
    """Let `observer(operation, step)` see every step of this process; None ends it.

    Returns
    -------
    The observer before, so that a test can put it back.
    """
    global _observer
    before, _observer = _observer, observer
    return before
