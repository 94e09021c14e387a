"""Every case of the corpus gives what the contract says, express and durable alike."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.flows.dsl.params import OPERATORS, PARAMS
from tests.flow_cases import CORPUS, Scripted, account, answers_of, cases, differences, flow_of
from tests.flow_runs import durable, express

OPERATOR_ROWS = list(cases("operators"))
CASES = [
    (path.stem, one)
    for path in sorted(CORPUS.glob("*.json"))
    if path.stem != "operators"
    for one in cases(path.stem)
]


def run(given: dict[str, Any], how: Any, **more: Any) -> dict[str, Any]:
    """What a case gives, and whether it is as the case says."""
    script = Scripted(given.get("does", {}))
    subflows = {flow_id: flow_of(one) for flow_id, one in given.get("subflows", {}).items()}
    outcome, told = how(flow_of(given), given.get("parameters"), script.kinds(), subflows=subflows, **more)
    found = account(outcome, told)
    assert differences(given, found) == []
    assert not script.unused, "a script that nothing follows"
    assert {key: one["attempts"] for key, one in found["trace"].items() if key in script.attempts} == dict(
        script.attempts
    )
    return found


@pytest.mark.parametrize("given", [one for _, one in CASES], ids=[f"{s}: {one['name']}" for s, one in CASES])
def test_a_case(given: dict[str, Any]) -> None:
    if "answers" in given:
        run(given, durable, answers=answers_of(given))
        return
    assert run(given, express) == run(given, durable)


def test_the_operators() -> None:
    """All rows in one flow: a chain of branches, each of which says what it found."""
    given = operator_flow()
    found = [run(given, how) for how in (express, durable)]
    assert found[0] == found[1]


def operator_flow() -> dict[str, Any]:
    """For each row a branch that a message follows where the comparison holds."""
    nodes: dict[str, Any] = {"start": {}}
    edges: list[str] = []
    before, content = ["start >"], []
    for number, row in enumerate(OPERATOR_ROWS):
        left, right = row["left"], row.get("right")
        inputs = {"l: object": {"v": left}, "r: object": {"v": right}}
        nodes[f"code::{number}"] = {"in": inputs, "out": ["l: object", "r: object"]}
        has_right = "right" in row
        nodes[f"if-else::{number}"] = {
            "in": {"a": f"$code::{number}.l.v", **({"b": f"$code::{number}.r.v"} if has_right else {})},
            "cases": {"yes": f"a {row['operator']}{' b' if has_right else ''}", "no": "else"},
        }
        nodes[f"message::{number}"] = {"template": f"{number} "}
        edges += [f"{one} code::{number} > if-else::{number} -yes> message::{number}" for one in before]
        before = [f"if-else::{number} -no>", f"message::{number} >"]
        if row["holds"]:
            content.append(f"{number} ")
    nodes["end"] = {"outputMode": 1, "template": ""}
    edges += [f"{one} end" for one in before]
    return {"nodes": nodes, "edges": edges, "state": "succeeded", "content": "".join(content)}


def test_the_corpus_is_whole() -> None:
    """Every operator holds, does not, and cannot be made where it can be so; every type of node and strategy is run."""
    for operator in OPERATORS:
        rows = [row for row in OPERATOR_ROWS if row["operator"] == operator]
        assert {row["holds"] for row in rows} == {True, False}, operator
        always = operator in ("empty", "not_empty", "is", "is_not", "null", "not_null")
        assert always or any(row.get("impossible") for row in rows), operator
    names = [f"{subject}: {one['name']}" for subject, one in CASES]
    assert len(set(names)) == len(names)
    assert len(names) >= 150
    flows = [flow for _, one in CASES for flow in (one, *one.get("subflows", {}).values())]
    types = {made["id"].partition("::")[0] for flow in flows for made in flow_of(flow)["nodes"]}
    assert {*PARAMS, "spark-llm", "ifly-code"} <= types
    strategies = {
        made["data"].get("retryConfig", {}).get("errorStrategy", 0)
        for flow in flows
        for made in flow_of(flow)["nodes"]
    }
    assert strategies == {0, 1, 2}
