"""The registry: each name once, and a change is seen whole."""

from __future__ import annotations

import threading

import pytest

from chalicelib.agents.loading.registry import AgentRegistry, agent_tables
from chalicelib.agents.spec import LoadedAgent, OwnedTable
from chalicelib.core.database import Base


def loaded(name: str, *tables: OwnedTable) -> LoadedAgent:
    return LoadedAgent(name, None, None, tables=tables)


def table(name: str, owner: str) -> OwnedTable:
    return OwnedTable(name, owner, "shared" if owner == "shared" else "independent", Base)


def test_agents_are_listed_by_name() -> None:
    registry = AgentRegistry()
    for name in ("b", "c", "a"):
        registry.register(loaded(name))
    assert registry.names() == ["a", "b", "c"]
    assert [one.name for one in registry.all()] == ["a", "b", "c"]
    assert registry.get("b") is registry.all()[1]
    assert registry.get("d") is None


def test_a_name_is_registered_once() -> None:
    registry = AgentRegistry()
    first = loaded("a")
    registry.register(first)
    with pytest.raises(ValueError, match="registered already"):
        registry.register(loaded("a"))
    assert registry.get("a") is first


def test_only_what_is_there_is_replaced() -> None:
    registry = AgentRegistry()
    registry.register(loaded("a"))
    second = loaded("a")
    registry.replace(second)
    assert registry.get("a") is second
    with pytest.raises(KeyError):
        registry.replace(loaded("b"))
    assert registry.names() == ["a"]


def test_of_many_writers_of_one_name_exactly_one_wins() -> None:
    registry = AgentRegistry()
    start = threading.Barrier(8)
    lost: list[int] = []

    def register(number: int) -> None:
        start.wait()
        for name in range(50):
            try:
                registry.register(loaded(f"n{name}"))
            except ValueError:
                lost.append(number)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(registry.names()), len(lost)) == (50, 350)


def test_tables_are_listed_once_the_shared_ones_first() -> None:
    shared = [table("agentflow_shared_z", "shared"), table("agentflow_shared_a", "shared")]
    registry = AgentRegistry(shared)
    registry.register(loaded("b", table("agentflow_b_x", "b"), shared[0]))
    registry.register(
        loaded("a", table("agentflow_a_y", "a"), table("agentflow_a_x", "a"), shared[0], shared[1])
    )
    assert [one.name for one in agent_tables(registry)] == [
        "agentflow_shared_a", "agentflow_shared_z", "agentflow_a_x", "agentflow_a_y", "agentflow_b_x",
    ]  # fmt: skip
