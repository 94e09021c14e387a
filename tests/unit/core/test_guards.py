from __future__ import annotations

import threading

import pytest

from chalicelib.core import guards


def test_nothing_is_forbidden_outside_a_unit() -> None:
    assert not guards.unit_open()
    guards.forbid_in_unit("http")


def test_a_call_inside_a_unit_raises_and_names_what_was_tried() -> None:
    with guards.unit():
        assert guards.unit_open()
        with pytest.raises(guards.NetworkInsideUnit, match=r"^http inside an open unit of work$"):
            guards.forbid_in_unit("http")
    guards.forbid_in_unit("http")


def test_leaving_an_inner_unit_keeps_the_outer_one_open() -> None:
    with guards.unit():
        with guards.unit():
            pass
        assert guards.unit_open()
    assert not guards.unit_open()


def test_a_unit_that_raises_is_closed() -> None:
    with pytest.raises(KeyError), guards.unit():
        raise KeyError("work failed")
    assert not guards.unit_open()


def test_a_unit_of_one_thread_does_not_bind_another() -> None:
    seen: list[bool] = []
    with guards.unit():
        other = threading.Thread(target=lambda: seen.append(guards.unit_open()))
        other.start()
        other.join()
    assert seen == [False]


def test_the_error_is_a_runtime_error_and_no_answer_to_a_caller() -> None:
    assert issubclass(guards.NetworkInsideUnit, RuntimeError)
