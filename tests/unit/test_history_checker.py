"""The checker of histories: hand-made ones that hold and that do not, and random ones against a brute force."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.history.checker import (
    FUTURE,
    NEVER,
    ORDER,
    STALE,
    Observation,
    absent,
    check,
    executed,
    holds,
    lists,
    refused,
    shows,
)
from tests.e2e.history.model import (
    Configured,
    Line,
    Moment,
    Registered,
    State,
    Timeline,
    Write,
    default_value,
    timeline,
)

ID = "plugin_x_aaaaaa"


def made(
    action: str,
    at: float,
    generation: int,
    version: str,
    status: str,
    *,
    wanted: str | None = None,
    grants: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
) -> Write:
    """A write that took from `at` to `at` + 1 and was stamped in between; `wanted` is the version it asked for."""
    seen = Registered(generation, version, status, grants)
    at_stamp = stamp(at + 0.5)
    return Write(action, at, at + 1, at_stamp, registered=seen, version=wanted or version, hosts=hosts)


def configured(at: float, value: str, is_default: bool = True) -> Write:
    return Write("config", at, at + 1, stamp(at + 0.5), configured=Configured(value, is_default))


def stamp(at: float) -> str:
    return f"2026-01-01T00:00:{at + 10:09.6f}Z"


# Installed at 0, configured at 2, enabled at 4, updated at 6, disabled at 8, gone at 10.
LIFE = [
    made("install", 0, 1, "1.0.0", "disabled"),
    configured(2, "a"),
    made("enable", 4, 2, "1.0.0", "enabled"),
    made("update", 6, 3, "2.0.0", "enabled"),
    made("disable", 8, 4, "2.0.0", "disabled"),
    Write("uninstall", 10, 11),
]


def judged(*observations: Observation, writes: list[Write] | None = None) -> list[str]:
    order = timeline(LIFE if writes is None else writes, [])
    assert order.problems == []
    return [one.kind for one in check(ID, order, observations)]


def seen(began: float, ended: float, fits: object) -> Observation:
    return Observation("read", began, ended, fits)  # type: ignore[arg-type]


GENERATION_2 = shows(Registered(2, "1.0.0", "enabled"))
GENERATION_3 = shows(Registered(3, "2.0.0", "enabled"))


@pytest.mark.parametrize(
    ("began", "ended", "fits", "verdict"),
    [
        # Quiet moments show the one state there is.
        (5.5, 5.6, GENERATION_2, []),
        (5.5, 5.6, executed("1.0.0", "a"), []),
        (5.5, 5.6, lists(2, "1.0.0", "enabled"), []),
        (3.5, 3.6, holds(Configured("a", True)), []),
        (1.5, 1.6, refused, []),
        (12.0, 12.1, absent, []),
        # While the update runs, before and after are both right.
        (6.1, 6.9, GENERATION_2, []),
        (6.1, 6.9, GENERATION_3, []),
        (6.1, 6.9, executed("2.0.0", "a"), []),
        # A read that began before the acknowledgement may still show what was before, however late it ends.
        (6.9, 9.0, GENERATION_2, []),
        # After the acknowledgement it may not: no old version, no old status, no plugin that is gone.
        (7.1, 7.2, GENERATION_2, [STALE]),
        (7.1, 7.2, executed("1.0.0", "a"), [STALE]),
        (9.1, 9.2, executed("2.0.0", "a"), [STALE]),
        (11.1, 11.2, refused, [STALE]),
        (3.1, 3.2, executed("1.0.0", default_value("1.0.0")), [NEVER]),  # it was not enabled by then
        # Nothing is shown before anybody asked for it.
        (5.1, 5.9, GENERATION_3, [FUTURE]),
        # Each half was true, but never together.
        (7.1, 7.2, executed("2.0.0", "b"), [NEVER]),
        (7.1, 7.2, shows(Registered(2, "2.0.0", "enabled")), [NEVER]),
    ],
)
def test_one_read(began: float, ended: float, fits: object, verdict: list[str]) -> None:
    assert judged(seen(began, ended, fits)) == verdict


def test_what_one_reader_has_seen_no_later_reader_may_miss() -> None:
    """The update is on its way for both, but it was committed when the first read ended."""
    new, old = seen(6.1, 6.2, GENERATION_3), seen(6.3, 6.4, GENERATION_2)
    assert judged(old, new) == [STALE]
    assert judged(seen(6.1, 6.4, GENERATION_3), seen(6.3, 6.5, GENERATION_2)) == []


def test_a_stale_config_is_found_by_execution_and_by_reading() -> None:
    writes = [*LIFE[:3], configured(6, "b")]
    after = [seen(7.1, 7.2, executed("1.0.0", "a")), seen(7.3, 7.4, holds(Configured("a", True)))]
    assert judged(*after, writes=writes) == [STALE, STALE]
    assert judged(seen(7.1, 7.2, executed("1.0.0", "b")), writes=writes) == []


def test_a_config_that_is_no_default_leaves_the_versions_own_in_force() -> None:
    writes = [*LIFE[:4], configured(8, "b", is_default=False)]
    assert judged(seen(9.5, 9.6, executed("2.0.0", default_value("2.0.0"))), writes=writes) == []
    assert judged(seen(9.5, 9.6, executed("2.0.0", "b")), writes=writes) == [NEVER]
    assert judged(seen(9.5, 9.6, executed("2.0.0", "a")), writes=writes) == [STALE]


def test_an_unknown_plugin_is_absent_from_the_beginning() -> None:
    assert judged(seen(-2, -1, absent)) == []
    assert judged(seen(1.5, 1.6, absent)) == [STALE]


# -- the order of the writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writes", "problem"),
    [
        ([LIFE[0], made("enable", 4, 3, "1.0.0", "enabled")], "nobody asked for generation 2"),
        ([LIFE[0], made("enable", 4, 2, "1.0.0", "disabled")], "enable made"),
        ([LIFE[0], made("update", 4, 2, "1.0.0", "disabled", wanted="2.0.0")], "update made"),
        ([LIFE[0], LIFE[2], made("disable", 6, 2, "1.0.0", "disabled")], "generation 2 was shown as"),
        ([LIFE[0], LIFE[5], LIFE[5]], "uninstalled twice"),
        ([LIFE[0], made("enable", -4, 2, "1.0.0", "enabled")], "update times do not rise"),
        ([LIFE[0], Write("update", 4, 5, version="2.0.0")], "is in no history"),
    ],
)
def test_writes_that_no_order_explains(writes: list[Write], problem: str) -> None:
    found = timeline(writes, [])
    assert problem in " ".join(found.problems)
    assert check(ID, found, [])[0].kind == ORDER


def test_a_lost_update_is_a_problem() -> None:
    """Two writers of one generation: one of them changed nothing that lasted."""
    writes = [
        LIFE[0],
        made("grant", 4, 2, "1.0.0", "disabled", grants=("a",), hosts=("a",)),
        made("grant", 4, 2, "1.0.0", "disabled", grants=("b",), hosts=("b",)),
    ]
    assert "generation 2 was shown as" in timeline(writes, []).problems[0]


def test_a_grant_that_takes_away_what_is_asked_for_disables() -> None:
    first = made("grant", 2, 2, "1.0.0", "disabled", grants=("a",), hosts=("a",))
    enabled = made("enable", 4, 3, "1.0.0", "enabled", grants=("a",))
    taken = made("grant", 6, 4, "1.0.0", "disabled", hosts=())
    assert timeline([LIFE[0], first, enabled, taken], [], ("a",)).problems == []
    assert timeline([LIFE[0], first, enabled, taken], []).problems != []


def test_doing_nothing_is_no_write() -> None:
    again = made("enable", 5.5, 2, "1.0.0", "enabled")
    other = Write(**{**again.__dict__, "stamp": LIFE[2].stamp})
    order = timeline([*LIFE[:3], other], [])
    assert (order.problems, len(order.moments)) == ([], 4)


LINES = [
    Line("install", "1.0.0", stamp(0.5)),
    Line("enable", "1.0.0", stamp(4.5)),
    Line("update", "2.0.0", stamp(6.5)),
]


def test_an_update_by_way_of_the_queue_is_placed_by_the_history() -> None:
    queued = Write("update", 6, 7, version="2.0.0")
    order = timeline([*LIFE[:3], queued, LIFE[4]], LINES)
    assert order.problems == []
    assert [moment.state.registered for moment in order.moments if moment.state.registered] == [
        Registered(1, "1.0.0", "disabled"),
        Registered(1, "1.0.0", "disabled"),
        Registered(2, "1.0.0", "enabled"),
        Registered(3, "2.0.0", "enabled"),
        Registered(4, "2.0.0", "disabled"),
    ]
    assert judged(seen(7.5, 7.6, GENERATION_2)) == [STALE]


def test_a_history_that_contradicts_the_answers_is_a_problem() -> None:
    lines = [LINES[0], Line("enable", "9.9.9", stamp(4.5))]
    assert "the history says" in timeline(LIFE[:3], lines).problems[0]


def test_the_uninstall_comes_last() -> None:
    assert timeline(LIFE, []).moments[-1] == Moment(State(None), 10, 11)


# -- against a brute force -------------------------------------------------------------------------------------------


@st.composite
def registers(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[float, float, int]]]:
    """Intervals of writes 1..n in an order that exists, and reads that show any value 0..n."""
    count = draw(st.integers(1, 4))
    points = sorted(draw(st.lists(st.integers(0, 40), min_size=count, max_size=count, unique=True)))
    writes = [(p - draw(st.integers(0, 6)) - 0.1, p + draw(st.integers(0, 6)) + 0.1) for p in points]
    reads = []
    for _ in range(draw(st.integers(1, 4))):
        began = draw(st.integers(-8, 48)) + draw(st.sampled_from([0.03, 0.07]))
        reads.append((began, began + draw(st.integers(0, 10)) + 0.01, draw(st.integers(0, count))))
    return writes, reads


def explainable(writes: list[tuple[float, float]], reads: list[tuple[float, float, int]]) -> bool:
    """Whether the operations have an order that respects time and in which each read shows the last write."""
    operations = [(*write, "w", number) for number, write in enumerate(writes, start=1)]
    operations += [(began, ended, "r", value) for began, ended, value in reads]

    def search(left: list[tuple[float, float, str, int]], value: int) -> bool:
        if not left:
            return True
        first_end = min(one[1] for one in left)
        for index, (began, _, kind, number) in enumerate(left):
            if began > first_end:
                continue
            if kind == "w" and number != value + 1:
                continue  # the writes' own order is known
            if kind == "r" and number != value:
                continue
            if search(left[:index] + left[index + 1 :], number):
                return True
        return False

    return search(operations, 0)


@given(registers())
def test_it_finds_what_a_search_of_all_orders_finds(
    case: tuple[list[tuple[float, float]], list[tuple[float, float, int]]],
) -> None:
    writes, reads = case
    states = [State(Registered(number, "1.0.0", "enabled")) for number in range(len(writes) + 1)]
    froms = [float("-inf")]
    for began, _ in writes:
        froms.append(max(froms[-1], began))
    assert all(one <= other for one, other in pairwise(froms))
    ends = [float("-inf"), *(ended for _, ended in writes)]
    moments = [Moment(*one) for one in zip(states, froms, ends, strict=True)]
    observations = [Observation("read", b, e, lambda s, v=states[value]: s == v) for b, e, value in reads]
    order = Timeline(moments)
    assert (check(ID, order, observations) == []) == explainable(writes, reads)
