"""The agents of this process: loaded once, without the database, and again when the process forgets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from chalicelib.agents.loading.process import DIRECTORY, registry_of_process
from chalicelib.agents.loading.registry import AgentRegistry, agent_tables
from chalicelib.core import process


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Nobody listens there: whoever asks the database fails.
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", "mysql+pymysql://nobody@127.0.0.1:9/none")
    process.forget()
    yield
    process.forget()


def test_the_folders_of_this_deployment_are_loaded_with_the_database_away() -> None:
    registry = registry_of_process()
    assert len(registry.names()) == len(list(DIRECTORY.glob("*/agent.yaml")))
    assert [table.owner for table in agent_tables(registry)][:3] == ["shared"] * 3
    assert process.database.cache_info().currsize == 0


def test_many_threads_load_once() -> None:
    found: list[AgentRegistry] = []
    threads = [threading.Thread(target=lambda: found.append(registry_of_process())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(registry) for registry in found}) == 1
    assert registry_of_process() is found[0]


def test_after_forgetting_they_are_loaded_anew_from_the_same_classes() -> None:
    first = registry_of_process()
    process.forget()
    second = registry_of_process()
    assert second is not first
    assert agent_tables(second) == agent_tables(first)
    assert [one.error for one in second.all()] == [one.error for one in first.all()]
