"""A reload makes a new instance of what is imported already; fifty of them change nothing else."""

from __future__ import annotations

import gc
import logging
import sys
import tracemalloc
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import configure_mappers

from chalicelib.core.database import DatabaseService
from tests.agent_folders import AgentFolders, mapped, tables


@pytest.fixture
def silent() -> Iterator[None]:
    # pytest keeps every line that is logged.
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


MOST_GROWN = 50_000


def _grown_by_fifty(folders: AgentFolders) -> int:
    """Return how many bytes more there are after as many reloads."""
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    for _ in range(50):
        folders.reload("qa")
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - held


def test_fifty_reloads_keep_the_classes_and_the_memory(
    folders: AgentFolders, sqlite_url: str, silent: None
) -> None:
    # GIVEN a loaded agent with a table, reloaded as often, so that every cache is filled
    folders.add_history("qa", "QA", extra="config: {tone: '${TONE:-kind}'}\n")
    registry = folders.load()
    first = registry.get("qa")
    assert first is not None and first.agent is not None
    before = mapped(), tables(), {name: sys.modules[name] for name in sys.modules if folders.package in name}
    for _ in range(20):
        folders.reload("qa")
    gc.collect()
    tracemalloc.start()
    try:
        folders.reload("qa")
        # WHEN it is reloaded fifty times
        grown = [_grown_by_fifty(folders)]
        while grown[-1] >= MOST_GROWN and len(grown) < 3:
            # Whatever else this process does, as filling a cache, is counted too, once; what a reload leaves is left
            # each time.
            grown.append(_grown_by_fifty(folders))
    finally:
        tracemalloc.stop()

    # THEN nothing is left of the fifty, each of which weighs two kilobytes and more
    assert min(grown) < MOST_GROWN
    last = registry.get("qa")
    assert last is not None and last.agent is not None and last.agent is not first.agent
    instances = [one for one in gc.get_objects() if type(one) is type(first.agent)]
    assert sorted(map(id, instances)) == sorted((id(first.agent), id(last.agent)))
    # AND the classes, tables and modules are the ones of the first load
    assert (last.tables, last.history_models) == (first.tables, first.history_models)
    assert (mapped(), tables()) == before[:2]
    assert all(sys.modules[name] is module for name, module in before[2].items())
    configure_mappers()
    # AND they work
    model = last.tables[0].model
    database = DatabaseService(sqlite_url)
    database.create_db_and_tables([model])
    with database.session_getter() as session:
        session.add(model(app_id=1, thread_id="t", role="user", content="x"))
    with database.reads() as reads:
        assert reads.query(model).count() == 1
    database.close()


def test_what_the_files_say_now_counts(folders: AgentFolders) -> None:
    folders.environment["TONE"] = "kind"
    folders.add("qa", extra="config: {tone: '${TONE}'}\n")
    folders.load()
    folders.environment["TONE"] = "rude"
    again = folders.reload("qa")
    assert again.agent is not None and again.agent.config == {"tone": "rude"}
    folders.add("qa", extra="author: Ann\nconfig: {}\n")
    again = folders.reload("qa")
    assert again.agent is not None and again.spec is not None
    assert (again.agent.config, again.spec.author) == ({}, "Ann")


def test_a_reload_that_fails_keeps_the_tables_and_can_be_mended(folders: AgentFolders) -> None:
    folders.add_history("qa", "QA", extra="config: {tone: '${TONE:-kind}'}\n")
    registry = folders.load()
    first = registry.get("qa")
    assert first is not None
    before = mapped()
    folders.add_history("qa", "QA", extra="config: {tone: '${TONE}'}\n")
    failed = folders.reload("qa")
    assert failed.error is not None and failed.error.code == "agent.config"
    assert (registry.get("qa"), failed.agent, failed.tables) == (failed, None, first.tables)
    (folders.directory / "qa" / "agent.yaml").unlink()
    failed = folders.reload("qa")
    assert failed.error is not None and failed.error.code == "agent.yaml"
    assert failed.tables == first.tables
    folders.add_history("qa", "QA")
    mended = folders.reload("qa")
    assert mended.agent is not None and mended.tables == first.tables
    assert mapped() == before


def test_it_is_disabled_and_enabled_by_its_file(folders: AgentFolders) -> None:
    folders.add("qa")
    folders.load()
    folders.add("qa", extra="enabled: false\n")
    off = folders.reload("qa")
    assert (off.agent, off.error) == (None, None)
    folders.add("qa")
    assert folders.reload("qa").agent is not None


def test_a_name_does_not_change_by_a_reload(folders: AgentFolders) -> None:
    folders.add("qa")
    registry = folders.load()
    folders.add("other", folder="qa")
    failed = folders.reload("qa")
    assert failed.name == "qa"
    assert failed.error is not None and failed.error.code == "agent.name_mismatch"
    assert registry.names() == ["qa"]


def test_the_generation_that_asked_is_kept(folders: AgentFolders) -> None:
    folders.add("qa")
    folders.load()
    assert folders.loader is not None
    assert folders.loader.reload("qa", generation=7).generation == 7
    assert folders.reload("qa").generation is None


def test_who_is_not_there_cannot_be_reloaded(folders: AgentFolders) -> None:
    folders.load()
    with pytest.raises(KeyError):
        folders.reload("nobody")


def test_a_second_load_of_the_process_imports_nothing_again(folders: AgentFolders) -> None:
    folders.add_history("qa", "QA")
    first = folders.load().get("qa")
    second = folders.load().get("qa")
    assert first is not None and second is not None and second.error is None
    assert second.tables == first.tables
    assert second.agent is not first.agent
