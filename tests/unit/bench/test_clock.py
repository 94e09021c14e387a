from __future__ import annotations

from collections.abc import Callable

from bench.clock import interleaved, seconds


def test_measures_take_turns_and_the_first_of_a_round_changes() -> None:
    order: list[str] = []

    def measure(name: str) -> Callable[[], float]:
        def read() -> float:
            order.append(name)
            return float(len(order))

        return read

    readings = interleaved({"a": measure("a"), "b": measure("b")}, 2, warm_up=1)

    assert order == ["a", "b", "b", "a", "a", "b"]
    # The warm-up's readings are dropped; the rounds stay side by side.
    assert readings == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


def test_seconds_calls_as_often_as_it_says() -> None:
    calls: list[int] = []
    assert seconds(lambda: calls.append(1), 5) >= 0
    assert len(calls) == 5
