"""What holds of every layout: nothing overlaps, arrows lead forward, bodies lie within their boxes."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.flows.diagram import arrangement
from chalicelib.flows.diagram.arrangement import Link
from chalicelib.flows.diagram.layers import layers, turned
from chalicelib.flows.diagram.layout import FLOW, HEADER, Box, Layout, Route, lay_out
from chalicelib.flows.diagram.limits import MAX_PASSES, MAX_SWEEPS

Bodies = dict[str, list[str]]
Links = dict[str, list[Link]]
Pairs = list[tuple[int, int]]


def graph(count: int, pairs: Pairs) -> tuple[Bodies, Links]:
    """A flow without bodies."""
    links = [Link(f"n{source}", f"n{target}", key=number) for number, (source, target) in enumerate(pairs)]
    return {FLOW: [f"n{number}" for number in range(count)]}, {FLOW: links}


@st.composite
def flows(draw: st.DrawFn) -> tuple[Bodies, Links]:
    """Boxes, some of them within others, and any links between those that stand side by side."""
    bodies: Bodies = {FLOW: []}
    names: list[str] = []
    for number in range(draw(st.integers(0, 22))):
        inside = draw(st.sampled_from([FLOW, FLOW, *names]))
        name = f"n{number}"
        names.append(name)
        bodies.setdefault(inside, []).append(name)
    links: Links = {}
    for owner, inner in bodies.items():
        if not inner:
            continue
        ends = st.sampled_from(inner)
        link = st.builds(
            Link,
            ends,
            ends,
            st.sampled_from(["", "a", "b", "c"]),
            st.integers(0, 3),
            st.sampled_from([0, 0, 30, 110]),
        )
        links[owner] = draw(st.lists(link, max_size=3 * len(inner)))
    return bodies, links


@given(flows())
def test_it_is_a_layout(found: tuple[Bodies, Links]) -> None:
    bodies, links = found
    layout = lay_out(bodies, links)
    check(bodies, layout)
    assert layout.boxes.keys() == {name for names in bodies.values() for name in names}
    assert sorted(map(repr, (route.link for route in layout.routes))) == sorted(
        repr(link) for some in links.values() for link in some
    )
    assert lay_out(bodies, links) == layout


def check(bodies: Bodies, layout: Layout, *, lanes: bool = True) -> None:
    """Hold a layout against every rule.

    Parameters
    ----------
    lanes
        Whether every link has its lanes, so that none runs behind a box.
    """
    owner_of = {name: owner for owner, names in bodies.items() for name in names}
    for owner, names in bodies.items():
        inner = sorted((layout.boxes[name] for name in names), key=lambda box: (box.x, box.y))
        for one, other in combinations(inner, 2) if len(inner) < 100 else pairwise(inner):
            assert apart(one, other), (one, other)
        for box in inner:
            assert within(box, layout.boxes[owner]) if owner else on_paper(box, layout)
    for route in layout.routes:
        source, target = layout.boxes[route.link.source], layout.boxes[route.link.target]
        siblings = [layout.boxes[name] for name in bodies[owner_of[route.link.source]]]
        if route.link.source != route.link.target:
            check_route(route, source, target, siblings if lanes else [])


def apart(one: Box, other: Box) -> bool:
    beside = one.x + one.width < other.x or other.x + other.width < one.x
    return beside or one.y + one.height < other.y or other.y + other.height < one.y


def within(box: Box, around: Box) -> bool:
    across = around.x < box.x and box.x + box.width < around.x + around.width
    return across and around.y + HEADER <= box.y and box.y + box.height < around.y + around.height


def on_paper(box: Box, layout: Layout) -> bool:
    return (
        min(box.x, box.y) >= 0 and box.x + box.width <= layout.width and box.y + box.height <= layout.height
    )


def check_route(route: Route, source: Box, target: Box, siblings: list[Box]) -> None:
    first, last = (target, source) if route.turned else (source, target)
    (x, y), (end, end_y) = route.points[0], route.points[-1]
    assert (x, end) == (first.x + first.width, last.x)
    assert first.y < y < first.y + first.height
    assert last.y < end_y < last.y + last.height
    assert all(left <= right for (left, _), (right, _) in pairwise(route.points))
    assert x < end
    for (left, top), (right, bottom) in pairwise(route.points):
        low, high = min(top, bottom), max(top, bottom)
        for box in siblings:
            crosses = left < box.x + box.width and box.x < right and low < box.y + box.height and box.y < high
            level = (
                low == high
                and left < box.x + box.width
                and box.x < right
                and box.y <= low <= box.y + box.height
            )
            assert not crosses, (route, box)
            assert not level, (route, box)


def test_what_leads_back_is_turned_and_nothing_else() -> None:
    bodies, links = graph(4, [(0, 1), (1, 2), (2, 0), (2, 3)])
    layout = lay_out(bodies, links)
    assert [route.link.key for route in layout.routes if route.turned] == [2]
    check(bodies, layout)


@given(st.integers(1, 12), st.data())
def test_only_cycles_are_broken(count: int, data: st.DataObject) -> None:
    ends = st.integers(0, count - 1)
    pairs = [pair for pair in data.draw(st.lists(st.tuples(ends, ends), max_size=40)) if pair[0] != pair[1]]
    back = turned(count, pairs)
    straight = [pair[::-1] if turn else pair for pair, turn in zip(pairs, back, strict=True)]
    found = layers(count, straight)
    assert all(found[source] < found[target] for source, target in straight)
    forward = [(min(pair), max(pair)) for pair in pairs]
    assert not any(turned(count, forward))


def test_a_chain_that_joins_late_does_not_begin_early() -> None:
    # 0 → 1 → 2 → 3, and 4 which only leads to 3 and 2.
    assert layers(5, [(0, 1), (1, 2), (2, 3), (4, 3), (4, 2)]) == [0, 1, 2, 3, 1]


def test_a_chain_is_straight_and_branches_stand_around_their_node() -> None:
    bodies, links = graph(8, [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5), (5, 6), (6, 7)])
    boxes = lay_out(bodies, links).boxes
    middles = [boxes[f"n{number}"].y + boxes[f"n{number}"].height // 2 for number in range(8)]
    assert len({middles[number] for number in (0, 1, 3, 5, 6, 7)}) == 1
    assert middles[2] < middles[3] < middles[4]
    assert middles[3] - middles[2] == middles[4] - middles[3]


def test_crossings_that_need_not_be_are_not() -> None:
    # Written so that every link would cross every other.
    bodies, links = graph(12, [(number, 11 - number) for number in range(6)])
    layout = lay_out(bodies, links)
    assert all(route.points[0][1] == route.points[-1][1] for route in layout.routes)


def test_links_of_one_port_leave_at_one_place_and_others_apart() -> None:
    links = [Link("a", "b", "x"), Link("a", "c", "x"), Link("a", "d", "y", rank=1)]
    layout = lay_out({FLOW: list("abcd")}, {FLOW: links})
    first, second, third = (route.points[0][1] for route in layout.routes)
    assert first == second
    assert abs(first - third) >= arrangement.PORT_GAP


CHAIN: Pairs = [(number, number + 1) for number in range(9_999)]
PARALLEL: Pairs = [(0, number) for number in range(1, 2_001)] + [
    (number, 2_001) for number in range(1, 2_001)
]
FULL: Pairs = [
    (2 * layer + one, 2 * layer + 2 + other) for layer in range(15) for one in (0, 1) for other in (0, 1)
]
DENSE: Pairs = list(combinations(range(300), 2))


@pytest.mark.parametrize(
    ("count", "pairs", "lanes"),
    [(10_000, CHAIN, True), (2_002, PARALLEL, True), (32, FULL, True), (300, DENSE[:20_000], False)],
    ids=["chain", "parallel", "full layers", "dense"],
)
def test_what_a_flow_may_be_is_laid_out_at_a_bounded_cost(count: int, pairs: Pairs, lanes: bool) -> None:
    bodies, links = graph(count, pairs)
    layout = lay_out(bodies, links)
    if lanes:
        small = Layout(layout.boxes, layout.routes[:200], layout.width, layout.height)
        check(bodies, small)
    else:
        check(bodies, layout, lanes=False)
    # Two budgets, one look at each beyond them, and lanes, which are at most 10,000.
    assert layout.work < 1_000_000 + 8 * (2 * len(pairs) + count + 20_000)


def full(count: int) -> tuple[Bodies, Links]:
    """Layers of two boxes, each of which leads to both of the next: 2 ** count ways."""
    ends = [(one, other) for one in (0, 1) for other in (0, 1)]
    return graph(
        2 * count,
        [(2 * layer + one, 2 * layer + 2 + other) for layer in range(count - 1) for one, other in ends],
    )


def test_the_cost_grows_as_the_flow_does() -> None:
    costs = [lay_out(*full(count)).work for count in (50, 100, 200, 400)]
    assert all(1.9 < more / less < 2.1 for less, more in pairwise(costs)), costs


@pytest.mark.parametrize("steps", [100, 400, 1_600])
def test_everything_is_looked_at_a_bounded_number_of_times(steps: int) -> None:
    chance = random.Random(steps)
    pairs = sorted({(number, number + chance.randint(1, 4)) for number in range(steps) for _ in range(2)})
    work = lay_out(*graph(steps + 5, pairs)).work
    # A link over four layers has three lanes and four pieces.
    assert work < (MAX_SWEEPS + 2 * MAX_PASSES + 4) * (steps + 5 + 7 * len(pairs))


def test_deep_nesting_does_not_recurse() -> None:
    names = [f"n{number}" for number in range(1_500)]
    bodies = {FLOW: [names[0]], **{outer: [inner] for outer, inner in pairwise(names)}}
    layout = lay_out(bodies, {})
    assert within(layout.boxes["n1499"], layout.boxes["n1498"])
    assert within(layout.boxes["n1"], layout.boxes["n0"])


def test_the_shortest_links_get_the_lanes_that_there_are() -> None:
    bodies, links = graph(4, [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)])
    made = arrangement.arrange(bodies[FLOW], [(100, 50)] * 4, links[FLOW], 1)
    assert made.lanes == 1
    assert {way.link.key: len(way.points) for way in made.ways} == {0: 3, 1: 3, 2: 3, 3: 3, 4: 5}
