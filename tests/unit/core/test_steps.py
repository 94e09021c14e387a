from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.core import steps


@pytest.fixture
def seen() -> Iterator[list[tuple[str, str]]]:
    calls: list[tuple[str, str]] = []
    before = steps.observe(lambda operation, name: calls.append((operation, name)))
    yield calls
    steps.observe(before)


def test_an_observer_sees_each_step_before_its_side_effect(seen: list[tuple[str, str]]) -> None:
    steps.declare("test.order", ("first", "second"))
    steps.step("test.order", "first")
    assert seen == [("test.order", "first")]
    steps.step("test.order", "second")
    assert seen == [("test.order", "first"), ("test.order", "second")]


def test_what_the_observer_raises_stops_the_operation() -> None:
    steps.declare("test.stop", ("only",))

    def stop(_operation: str, _name: str) -> None:
        raise KeyboardInterrupt

    before = steps.observe(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            steps.step("test.stop", "only")
    finally:
        assert steps.observe(before) is stop


def test_without_an_observer_a_step_does_nothing() -> None:
    before = steps.observe(None)
    try:
        steps.declare("test.quiet", ("only",))
        steps.step("test.quiet", "only")
    finally:
        steps.observe(before)


@pytest.mark.parametrize(("operation", "name"), [("test.known", "other"), ("test.unknown", "only")])
def test_a_step_that_was_not_declared_is_refused(operation: str, name: str) -> None:
    steps.declare("test.known", ("only",))
    with pytest.raises(ValueError, match=f"{operation} has no step {name}"):
        steps.step(operation, name)


def test_the_same_declaration_twice_is_one() -> None:
    assert steps.declare("test.twice", ("a", "b")) == ("a", "b")
    assert steps.declare("test.twice", ("a", "b")) == ("a", "b")
    assert steps.declared()["test.twice"] == ("a", "b")


@pytest.mark.parametrize("names", [("b", "a"), ("a",), ("a", "b", "c")])
def test_another_declaration_is_refused(names: tuple[str, ...]) -> None:
    steps.declare("test.fixed", ("a", "b"))
    with pytest.raises(ValueError, match="other steps"):
        steps.declare("test.fixed", names)


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_steps_are_named_once_each(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="once each"):
        steps.declare("test.bad", names)
