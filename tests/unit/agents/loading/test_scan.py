"""Which folders are agents, and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent_folders import AgentFolders


def errors(folders: AgentFolders) -> dict[str, str | None]:
    return {one.name: one.error.code if one.error else None for one in folders.load().all()}


def test_only_a_folder_with_an_agent_yaml_is_an_agent(folders: AgentFolders) -> None:
    folders.add("one")
    (folders.directory / "other").mkdir()
    (folders.directory / "agent.yaml").write_text("name: root")
    folders.add("two", folder="one/deep")
    assert errors(folders) == {"one": None}


def test_a_folder_may_have_another_name(folders: AgentFolders) -> None:
    folders.add_history("common_qa", "CommonQA", folder="faq")
    loaded = folders.load_one()
    assert loaded.spec is not None
    assert (loaded.name, loaded.spec.folder.name) == ("common_qa", "faq")
    assert [table.name for table in loaded.tables] == ["agentflow_common_qa_history"]


@pytest.mark.parametrize("agent", [None, "raise OSError"])
def test_of_two_with_one_name_the_first_folder_has_it(agent: str | None, folders: AgentFolders) -> None:
    # Also where the first cannot be loaded: otherwise its failure would decide who it is.
    folders.add("qa", folder="b_first", agent=agent)
    folders.add("qa", folder="c_copy")
    assert errors(folders) == {"qa": "agent.import" if agent else None, "c_copy": "agent.duplicate_name"}


def test_a_copy_takes_no_other_agent_s_name(folders: AgentFolders) -> None:
    # GIVEN a copy whose folder has the name of a third
    folders.add("qa", folder="a")
    folders.add("qa", folder="third")
    folders.add("third", folder="z")
    assert errors(folders) == {"qa": None, "third": None, "third_2": "agent.duplicate_name"}


def test_a_disabled_one_claims_no_name(folders: AgentFolders) -> None:
    folders.add("qa", folder="a_old", extra="enabled: false\n")
    folders.add("qa", folder="b_new")
    assert errors(folders) == {"qa": None, "a_old": None}


def test_a_refused_description_is_told_under_its_name_where_that_is_free(folders: AgentFolders) -> None:
    folders.add("qa", folder="a", yaml="name: qa\n")
    folders.add("good", folder="b")
    folders.add("good", folder="c", yaml="name: good\n")
    folders.add("x", folder="d", yaml="name: Not A Name\n")
    folders.add("x", folder="e", yaml="{")
    assert errors(folders) == {
        "qa": "agent.yaml", "good": None, "c": "agent.yaml", "d": "agent.yaml", "e": "agent.yaml",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "folder"),
    [("shared", "mine"), ("tables", "mine"), ("shared_x", "mine"), ("mine", "shared"), ("mine", "tables")],
)
def test_reserved_names_are_refused(name: str, folder: str, folders: AgentFolders) -> None:
    folders.add(name, folder=folder, agent="raise SystemExit")
    assert list(errors(folders).values()) == ["agent.reserved_name"]
    assert "shared" not in folders.load().names() or folder == "shared"


def test_sharedness_is_no_reserved_word(folders: AgentFolders) -> None:
    folders.add("sharedness")
    assert errors(folders) == {"sharedness": None}


def test_a_name_that_the_class_does_not_bear_is_an_error(folders: AgentFolders) -> None:
    folders.add("qa", agent=(Path(folders.add("other") / "agent.py")).read_text())
    loaded = folders.load().get("qa")
    assert loaded is not None and loaded.error is not None
    assert loaded.error.code == "agent.name_mismatch"
    assert "'other'" in loaded.error.detail and "'qa'" in loaded.error.detail


def test_a_folder_that_python_cannot_import_is_told(folders: AgentFolders) -> None:
    folders.add("qa", folder="my-agent")
    folders.add("bare")
    (folders.directory / "bare" / "__init__.py").unlink()
    assert errors(folders) == {"qa": "agent.import", "bare": "agent.import"}
