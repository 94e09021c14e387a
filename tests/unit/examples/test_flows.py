"""Every example of a flow is sound, shows what it says it shows, and is run in both ways with the same result."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.params import PARAMS
from chalicelib.flows.engine.outcome import Outcome
from tests import flow_examples, flow_runs
from tests.flow_examples import Fakes
from tests.flow_runs import Told

EXAMPLES = flow_examples.names()
KNOWN = {
    "about", "flow", "parameters", "expected", "fakes", "earlier", "variables", "answers", "subflows", "person",
}  # fmt: skip


def types_of(example: dict[str, Any]) -> set[str]:
    return {node["id"].partition("::")[0] for node in example["flow"]["nodes"]}


def asks(example: dict[str, Any]) -> bool:
    return "question-answer" in types_of(example)


def test_there_are_a_dozen_and_they_show_every_node_type() -> None:
    assert len(EXAMPLES) >= 12
    shown = set().union(*(types_of(flow_examples.read(name)) for name in EXAMPLES))
    assert shown == set(PARAMS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_sound(name: str) -> None:
    example = flow_examples.read(name)
    assert example.keys() <= KNOWN
    checked = check_flow(example["flow"])
    assert (checked.violations, checked.warnings) == ((), ())
    aliases = [node["data"]["nodeMeta"]["aliasName"] for node in example["flow"]["nodes"]]
    assert all(0 < len(alias) <= 30 for alias in aliases)
    assert set(Counter(aliases).values()) == {1}


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not asks(flow_examples.read(name))])
def test_an_example_is_run_express(name: str) -> None:
    example = flow_examples.read(name)
    fakes = Fakes(example)
    outcome, told = flow_runs.express(
        example["flow"], example["parameters"], fakes.kinds(), subflows=subflows(example)
    )
    check(example, fakes, outcome, told)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_run_durable(name: str) -> None:
    example = flow_examples.read(name)
    fakes = Fakes(example)
    outcome, told = flow_runs.durable(
        example["flow"],
        example["parameters"],
        fakes.kinds(),
        subflows=subflows(example),
        answers=fakes.answer,
    )
    check(example, fakes, outcome, told)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if asks(flow_examples.read(name))])
def test_an_example_that_asks_is_no_express_run(name: str) -> None:
    example = flow_examples.read(name)
    outcome, _ = flow_runs.express(example["flow"], example["parameters"], Fakes(example).kinds())
    assert (outcome.state, outcome.error and outcome.error.code) == ("failed", 22302)


def subflows(example: dict[str, Any]) -> dict[str, Any]:
    return {
        flow_id: flow_examples.read(name)["flow"] for flow_id, name in example.get("subflows", {}).items()
    }


def check(example: dict[str, Any], fakes: Fakes, outcome: Outcome, told: Told) -> None:
    expected = example["expected"]
    assert (outcome.state, outcome.error) == ("succeeded", None)
    assert (outcome.content, dict(outcome.outputs)) == (expected["content"], expected["outputs"])
    assert fakes.variables == expected.get("variables", {})
    remembered = [[node_id, one.question, one.answer] for node_id, one in told.exchanges]
    assert remembered == expected.get("remembered", [])
    # Nothing stands in an example that its run does not need.
    assert set(fakes.used) == {*example.get("fakes", {}), *example.get("answers", {})}
