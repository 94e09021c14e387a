"""Dependencies are loaded first, and otherwise the order of the folders is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.agents.loading.order import in_order
from tests.agent_folders import AGENT, AgentFolders

NAMES = "abcdefg"


@pytest.mark.parametrize(
    ("dependencies", "ordered", "circular"),
    [
        ({}, "", ""),
        ({"a": "", "b": "", "c": ""}, "abc", ""),
        ({"a": "c", "b": "", "c": ""}, "bca", ""),
        ({"a": "x", "b": ""}, "ab", ""),
        ({"a": "a", "b": ""}, "b", "a"),
        ({"a": "b", "b": "c", "c": "b", "d": "a"}, "ad", "bc"),
    ],
)
def test_the_order(dependencies: dict[str, str], ordered: str, circular: str) -> None:
    assert in_order(dependencies) == (list(ordered), list(circular))


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)))
def test_each_comes_once_and_after_what_it_needs(dependencies: dict[str, list[str]]) -> None:
    ordered, circular = in_order(dependencies)
    assert sorted(ordered + circular) == sorted(dependencies)
    for place, name in enumerate(ordered):
        assert all(
            needed in ordered[:place]
            for needed in dependencies[name]
            if needed in dependencies and needed not in circular
        )


def test_dependencies_that_are_missing_broken_disabled_or_circular(folders: AgentFolders) -> None:
    folders.add("a_needs_z", extra="dependencies: [z]\n")
    folders.add("b_needs_broken", extra="dependencies: [broken]\n")
    folders.add("broken", agent="raise OSError")
    folders.add("c_needs_nobody", extra="dependencies: [z, nobody]\n")
    folders.add("d_needs_off", extra="dependencies: [idle]\n")
    folders.add("e_one", extra="dependencies: [f_two]\n")
    folders.add("f_two", extra="dependencies: [e_one]\n")
    folders.add("g_needs_circle", extra="dependencies: [e_one]\n")
    folders.add("h_needs_b", extra="dependencies: [b_needs_broken]\n")
    folders.add("idle", extra="enabled: false\n")
    folders.add("z")
    told = {one.name: one.error.detail for one in folders.load().all() if one.error}
    assert told == {
        "b_needs_broken": "It depends on broken, which could not be loaded.",
        "broken": "OSError at agent.py:1",
        "c_needs_nobody": "It depends on nobody, which is not there.",
        "d_needs_off": "It depends on idle, which is disabled.",
        "e_one": "Its dependencies lead back to itself.",
        "f_two": "Its dependencies lead back to itself.",
        "g_needs_circle": "It depends on e_one, which could not be loaded.",
        "h_needs_b": "It depends on b_needs_broken, which could not be loaded.",
    }


def test_a_dependency_s_package_may_be_imported_and_another_s_may_not(folders: AgentFolders) -> None:
    folders.add("a_good", extra="dependencies: [z]\n", agent=f"import {folders.package}.z.agent\n" + AGENT)
    folders.add("b_bad", agent=f"import {folders.package}.y.agent\n" + AGENT)
    folders.add("y")
    folders.add("z")
    registry = folders.load()
    assert [one.name for one in registry.all() if one.error] == ["b_bad"]
    bad = registry.get("b_bad")
    assert bad is not None and bad.error is not None and bad.error.code == "agent.dependency"
