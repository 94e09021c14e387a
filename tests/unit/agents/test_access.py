"""What an agent's agent.yaml does not name is refused before anything is looked up."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.agents.access import PluginAccess, ToolAccess
from chalicelib.core.errors import Forbidden, Invalid
from tests.plugin_rows import caller


class Untouched:
    """Services that nobody may use."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def tools(*allowed: str) -> ToolAccess:
    return ToolAccess(Untouched(), caller(), frozenset(allowed))  # type: ignore[arg-type]


def plugins(*allowed: str) -> PluginAccess:
    return PluginAccess(Untouched(), Untouched(), caller(), frozenset(allowed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ((), "cmdb"),
        (("cmdb",), "tool@2abc"),
        (("tool@2abc",), "cmdb"),
        (("cmdb",), "CMDB"),
        (("cmdb",), "cmdb "),
        (("cmdb",), "cmd"),
        (("cmdb",), ""),
        (("cmdb",), "x" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_named_is_not_looked_up(allowed: tuple[str, ...], asked: str) -> None:
    with pytest.raises(Forbidden) as refused:
        tools(*allowed).call(asked, "getPet")
    assert refused.value.code == "agent.tool_not_allowed"
    assert len(refused.value.detail) < 200
    with pytest.raises(Forbidden) as refused:
        plugins(*allowed).execute(asked)
    assert refused.value.code == "agent.plugin_not_allowed"
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        ({"petId": 7}, [("/petId", "argument.unknown")]),
        ({"path": {"petId": 7}, "Query": {}}, [("/Query", "argument.unknown")]),
        ({"a/b": 1, 7: 2}, [("/a~1b", "argument.unknown"), ("/7", "argument.unknown")]),
        ({"path": [7], "query": None}, [("/path", "schema.type"), ("/query", "schema.type")]),
    ],
    ids=str,
)
def test_arguments_stand_in_their_groups(arguments: Any, places: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid) as refused:
        tools("Pets").call("Pets", "getPet", arguments)
    assert refused.value.code == "tool.invalid_arguments"
    assert [(one.pointer, one.rule) for one in refused.value.errors] == places


def test_a_thousand_wrong_groups_are_told_by_a_hundred() -> None:
    with pytest.raises(Invalid) as refused:
        tools("Pets").call("Pets", "getPet", {f"group{number}": {} for number in range(1000)})
    assert len(refused.value.errors) == 100
