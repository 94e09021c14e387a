"""The picture of a flow: always XML, never more than a picture, and the same for the same flow."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Invalid
from chalicelib.flows.diagram import drawing, limits
from chalicelib.flows.diagram.drawable import drawable
from chalicelib.flows.diagram.drawing import draw
from chalicelib.flows.diagram.palette import KINDS, STATES, kind_of
from chalicelib.flows.diagram.text import clean, cut, fit, width
from chalicelib.flows.dsl.model import Flow
from chalicelib.flows.dsl.params import PARAMS
from tests.flow_builders import (
    END,
    START,
    Data,
    case,
    edge,
    end,
    flow,
    if_else,
    iteration,
    loop,
    message,
    node,
    ref,
    start,
    text_joiner,
    with_body,
)
from tests.unit.flows.diagram.example import ANSWER, INTENT, NAME, PLUGIN, QUESTION, example, named

PICTURE = Path(__file__).resolve().parents[4] / "docs" / "images" / "flow.svg"
SVG = "{http://www.w3.org/2000/svg}"


def drawn(data: Any, name: str = "Flow", **options: Any) -> ET.Element:
    found = drawable(data)
    return parsed(draw(found.flow, name=name, violations=found.violations, **options))


def parsed(svg: str) -> ET.Element:
    """Parse it as a browser gets it."""
    root = ET.fromstring(svg.encode("utf-8"))
    assert root.tag == f"{SVG}svg"
    return root


def texts(root: ET.Element, kind: str) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text") if kind in one.get("class", "").split()]


def paths(root: ET.Element) -> list[list[str]]:
    """The classes of the lines."""
    found = (one.get("class", "").split() for one in root.iter(f"{SVG}path"))
    return [classes for classes in found if "p" in classes]


def description(root: ET.Element) -> str:
    return root.findtext(f"{SVG}desc") or ""


# -- what is drawn -------------------------------------------------------------------------------------------------


def test_the_picture_in_the_documentation_is_drawn_like_this() -> None:
    found = drawable(example())
    assert found.violations == 0
    assert PICTURE.read_text(encoding="utf-8") == draw(found.flow, name=NAME)
    assert PICTURE.stat().st_size < 30_000


def test_every_node_has_its_type_and_its_name_and_every_edge_its_line() -> None:
    root = drawn(example(), NAME)
    assert texts(root, "h") == [NAME]
    assert texts(root, "k").count("llm") == 2
    assert {"Start", "Answer", "For each part", "Tidy up"} <= set(texts(root, "a"))
    assert len(paths(root)) == len(example()["edges"])
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "t d"
    assert {one.get("id") for one in root} >= {"t", "d"}
    assert root.findtext(f"{SVG}title") == NAME
    assert description(root) == "A flow of 13 nodes and 15 edges; one node with a body; no rule broken."


def test_branches_are_named_and_failures_are_dashed() -> None:
    root = drawn(example())
    assert sorted(texts(root, "l")) == sorted(
        ["An order", "Several things", "Anything else", "Yes", "No", "on failure"]
    )
    assert sum("fail" in classes for classes in paths(root)) == 1


def test_cases_are_numbered_as_they_are_tried_and_the_default_is_else() -> None:
    cases = [case("x", level=999), case("y"), case("z")]
    handles = ("branch_one_of::x", "branch_one_of::y", "intent_chain|branch_one_of::z")
    branch = if_else(*cases)
    data = flow(
        [start(), branch, end()],
        [edge(START, branch["id"]), *(edge(branch["id"], END, one) for one in handles)],
    )
    assert sorted(texts(drawn(data), "l")) == ["else", "if 1", "if 2"]
    single = flow([start(), if_else(case("y")), end()], [edge("if-else::1", END, "branch_one_of::y")])
    assert texts(drawn(single), "l") == ["if"]


def test_a_long_name_is_cut_and_told_in_full() -> None:
    long = "A name that is much longer than any box " * 4
    root = drawn(flow([named(message(), long)]))
    [shown] = texts(root, "a")
    assert shown.endswith("…")
    assert width(shown, 13) <= 208
    assert long.strip() in [(one.text or "").partition("\n")[0] for one in root.iter(f"{SVG}title")]


def test_each_type_has_a_kind_and_each_kind_its_colours() -> None:
    assert {kind_of(one) for one in PARAMS} | {"odd"} == {kind.name for kind in KINDS}
    assert "odd" not in {kind_of(one) for one in PARAMS}


def test_bodies_stand_within_their_boxes() -> None:
    inner = with_body(loop(ref("x", START, "query"), text_joiner("text-joiner::in"), suffix="7"))
    rectangles = {}
    for group in drawn(inner).iter(f"{SVG}g"):
        rect, title = group.find(f"{SVG}rect"), group.findtext(f"{SVG}title")
        if rect is not None and title:
            rectangles[title.split("\n")[1]] = [
                int(rect.get(name, "")) for name in ("x", "y", "width", "height")
            ]
    x, y, across, down = rectangles["loop::7"]
    for name in ("loop-node-start::7", "text-joiner::in", "loop-node-end::7"):
        left, top, inner_width, height = rectangles[name]
        assert x < left < left + inner_width < x + across
        assert y < top < top + height < y + down
    assert rectangles[START][0] + rectangles[START][2] < x


# -- what a run did ------------------------------------------------------------------------------------------------


def test_states_colour_nodes_and_mark_what_was_taken() -> None:
    states = {
        START: "succeeded",
        INTENT: "succeeded",
        PLUGIN: "failed",
        QUESTION: "waiting",
        ANSWER: "skipped",
    }
    root = drawn(example(), states={**states, "code::split": "</g>", "nowhere": "failed"})
    groups = [set((one.get("class") or "").split()) for one in root.iter(f"{SVG}g")]
    assert {name: sum(name in classes for classes in groups) for name in STATES} == {
        "succeeded": 2, "failed": 1, "running": 0, "waiting": 1, "skipped": 1,
    }  # fmt: skip
    assert "plugin · failed" in texts(root, "k")
    taken = [classes for classes in paths(root) if "taken" in classes]
    # Start → intent → plugin, and from there by failure.
    assert [("fail" in classes) for classes in taken] == [False, False, True]
    assert all(("taken" in classes) != ("idle" in classes) for classes in paths(root))
    assert "succeeded: 2; failed: 1; waiting: 1; skipped: 1." in description(root)


def test_without_a_run_nothing_is_marked() -> None:
    assert not any({"taken", "idle"} & set(classes) for classes in paths(drawn(example())))


# -- what is not valid ---------------------------------------------------------------------------------------------


def test_cycles_are_broken_and_marked() -> None:
    data = flow([start(), message("message::a"), message("message::b"), end()])
    data["edges"] += [edge("message::b", "message::a"), edge("message::b", "message::b")]
    root = drawn(data)
    assert sum("back" in classes for classes in paths(root)) == 2
    assert texts(root, "l") == ["cycle", "cycle"]
    assert "violations: 1" in description(root)


def test_what_is_wrong_is_counted_and_what_can_be_drawn_is() -> None:
    data = flow(
        [start(), {"id": "strange::1"}, {"id": 5}, node("if-else::1", {"cases": "x"}), "node", end()], []
    )
    data["edges"] = [
        edge(START, "if-else::1"), edge("if-else::1", END, "branch_one_of::lost"), edge(START, "nowhere"),
        edge("nowhere", END), {"sourceNodeId": 5}, edge(START, "if-else::1"),
    ]  # fmt: skip
    root = drawn(data)
    assert sorted(texts(root, "k")) == ["if-else", "node-end", "node-start", "strange"]
    assert (len(paths(root)), texts(root, "l")) == (2, ["lost"])
    assert re.search(r"violations: [1-9]", description(root))


def test_an_iteration_that_nothing_leads_to_has_its_body() -> None:
    nodes, edges = iteration(ref("x", START, "query"), text_joiner("text-joiner::in"))
    inside = drawable(flow([start(), end(), *nodes], edges)).flow.bodies
    assert inside[""] == (START, END, "iteration::1")
    assert inside["iteration::1"] == ("iteration-node-start::1", "text-joiner::in", "iteration-node-end::1")


def test_bodies_that_hold_each_other_are_taken_apart() -> None:
    one = node("iteration::1", {"IterationStartNodeId": "iteration-node-start::1"})
    two = node("iteration::2", {"IterationStartNodeId": "iteration-node-start::2"})
    starts = [node(f"iteration-node-start::{number}") for number in (1, 2)]
    edges = [edge("iteration-node-start::1", "iteration::2"), edge("iteration-node-start::2", "iteration::1")]
    found = drawable(flow([one, two, *starts], edges)).flow
    assert sorted(node_id for ids in found.bodies.values() for node_id in ids) == sorted(found.nodes)
    assert found.bodies[""] == ("iteration::1",)
    assert len(drawn(flow([one, two, *starts], edges))) > 1


def test_edges_between_bodies_are_left_out() -> None:
    data = with_body(iteration(ref("x", START, "query"), text_joiner("text-joiner::in")))
    data["edges"].append(edge("text-joiner::in", END))
    assert len(paths(drawn(data))) == len(data["edges"]) - 1


@pytest.mark.parametrize(
    "data", [{}, {"nodes": 5}, {"nodes": []}, [], None, "x", {"nodes": [[]], "edges": {}}], ids=repr
)
def test_what_is_no_flow_is_an_empty_picture(data: Any) -> None:
    root = drawn(data)
    assert "There is nothing to draw." in texts(root, "d")
    assert "0 nodes" in description(root)


# -- what its author would do with it -------------------------------------------------------------------------------

HOSTILE = (
    "</text><script>alert(1)</script>", "]]>", "<!--", "&lol;", "&#0;", "\0", "\x08\x1b", "\ud800", "\ufffe\uffff",
    "'\"><svg onload='x'>", "<!DOCTYPE svg [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>", "\u202edrawkcab", "a\nb\r\nc",
    "javascript:alert(1)", "url(http://example.com/x)", "Z" * 100_000, "\U0001f4a9" * 300, "ڪ" * 50,
    "e" + "\u0301" * 999,
    "{}{{}}%s%n", "\u2028\u2029", "style='x'", "@import 'http://example.com'", "", "   ",
)  # fmt: skip
ELEMENTS = {"svg", "title", "desc", "style", "defs", "marker", "path", "rect", "text", "g"}
ATTRIBUTES = {
    "width", "height", "viewBox", "role", "aria-labelledby", "id", "class", "x", "y", "rx", "d", "text-anchor",
    "transform", "marker-start", "marker-end", "refX", "refY", "markerWidth", "markerHeight", "markerUnits", "orient",
    "stroke-linejoin",
}  # fmt: skip


def hostile(text: str) -> Data:
    """A flow with a text wherever its author may write one."""
    intents = [
        {"id": f"intent-one-of::{number}", "name": text, "intentType": 1 + number} for number in (0, 1)
    ]
    chosen = named(node("decision-making::1", {"intentChains": intents, "template": ""}), text)
    nodes = [
        named(start(), text),
        chosen,
        named(node("x::y"), text),
        {"id": text, "data": {}},
        named(end(), text),
    ]
    edges = [edge(START, "decision-making::1"), edge("decision-making::1", END, "intent-one-of::0")]
    return flow(
        nodes, [*edges, edge("decision-making::1", END, text), edge(text, END, text), edge(text, text, text)]
    )


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:24]))
def test_nothing_that_is_written_becomes_more_than_text(text: str) -> None:
    check_harmless(hostile(text), text)


@given(st.text())
def test_whatever_is_written_is_text(text: str) -> None:
    check_harmless(hostile(text), text)


@given(st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Cn", "Mn", "Zl", "Zp"])))
def test_characters_that_xml_may_not_hold_are_replaced(text: str) -> None:
    check_harmless(hostile(text), text)


def check_harmless(data: Data, name: str) -> None:
    found = drawable(data)
    svg = draw(found.flow, name=name, states={START: name}, violations=found.violations)
    assert len(svg) < 60_000
    root = parsed(svg)
    plain = parsed(draw(drawable(hostile("plain")).flow, name="plain"))
    assert root.find(f"{SVG}style").text == plain.find(f"{SVG}style").text  # type: ignore[union-attr]
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES
        assert all(value.startswith("url(#") for value in element.attrib.values() if "url" in value)


def test_the_style_loads_nothing() -> None:
    style = drawn(example()).findtext(f"{SVG}style") or ""
    assert not re.search(r"url|import|expression|http|@font", style)
    assert "@media(prefers-color-scheme:dark)" in style


def test_texts_are_cut_to_their_room() -> None:
    for text in (
        "plain words that go on",
        "漢字" * 30,
        "WWWWWWWWWWWWWWWW",
        "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii",
    ):
        assert width(fit(text, 13, 100), 13) <= 101
    assert fit("short", 13, 100) == "short"
    assert (cut("abcdef", 4), cut("abcd", 4)) == ("abc…", "abcd")
    assert clean(" a\u202e\n\tb\0c\ud800 ") == "a b\ufffdc\ufffd"


# -- how much ------------------------------------------------------------------------------------------------------


def messages(count: int, pairs: list[tuple[int, int]], name: str = "x") -> Data:
    nodes = [
        {"id": f"message::{number}", "data": {"nodeMeta": {"aliasName": name}}} for number in range(count)
    ]
    return flow(nodes, [edge(f"message::{source}", f"message::{target}") for source, target in pairs])


def test_the_largest_flow_is_drawn_and_fits_into_an_answer() -> None:
    found = drawable(messages(10_000, [(number, number + 1) for number in range(9_999)], "漢字" * 20))
    svg = draw(found.flow, name="Long")
    parsed(svg)
    assert len(json.dumps({"body": svg}, ensure_ascii=True)) < 6 * 1024 * 1024 - 64 * 1024
    assert svg.count("<path class='p'") == 9_999


def test_what_is_larger_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    near = sorted({(one, min(9_999, one + chance.randint(1, 30))) for one in range(9_998) for _ in range(4)})
    found = drawable(messages(10_000, near)).flow
    with pytest.raises(Invalid) as refused:
        draw(found, name="Dense")
    assert (refused.value.status, refused.value.code) == (422, "flow.too_large_to_draw")
    monkeypatch.setattr(drawing, "MAX_NODES", 9_999)
    monkeypatch.setattr(drawing, "lay_out", None)
    with pytest.raises(Invalid, match="at most 9999 nodes"):
        draw(found, name="Many")


def test_above_two_thousand_nodes_the_full_texts_are_left_out() -> None:
    def titles(count: int) -> int:
        found = drawable(messages(count, []))
        return draw(found.flow, name="x").count("<title")

    assert titles(limits.DETAILED_NODES) == limits.DETAILED_NODES + 1
    assert titles(limits.DETAILED_NODES + 1) == 1


@given(st.integers(0, 14), st.data())
def test_any_graph_is_drawn_the_same_each_time(count: int, data: st.DataObject) -> None:
    ends = st.integers(0, max(0, count))
    made = messages(count, data.draw(st.lists(st.tuples(ends, ends), max_size=40)))
    found = drawable(made)
    svg = draw(found.flow, name="x", violations=found.violations)
    parsed(svg)
    again = drawable(json.loads(json.dumps(made)))
    assert draw(again.flow, name="x", violations=again.violations) == svg


def test_a_version_looks_like_the_draft_that_it_was_made_of() -> None:
    valid = drawable(example()).flow
    shuffled = {owner: tuple(reversed(ids)) for owner, ids in valid.bodies.items()}
    other = Flow(valid.nodes, valid.edges, valid.start, shuffled)
    assert draw(valid, name="x") == draw(other, name="x")
