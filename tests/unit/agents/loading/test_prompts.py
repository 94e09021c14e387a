"""Prompts are read inside prompts/ and nowhere else, once per instance."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chalicelib.agents.base import AgentBase
from chalicelib.agents.loading.prompts import MAX_BYTES, read_prompt
from chalicelib.core.errors import HotplugError
from tests.agent_folders import AGENT, AgentFolders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    agent = tmp_path / "agent"
    (agent / "prompts" / "deep").mkdir(parents=True)
    (agent / "prompts" / "system.md").write_text("Grüße")
    (agent / "prompts" / "deep" / "one.md").write_text("one")
    (agent / "agent.yaml").write_text("secret")
    (tmp_path / "outside.md").write_text("secret")
    return agent


def test_a_file_inside_is_read(folder: Path) -> None:
    (folder / "prompts" / "again.md").symlink_to("deep/one.md")
    assert read_prompt(folder, "system.md") == "Grüße"
    assert read_prompt(folder, "deep/one.md") == "one"
    assert read_prompt(folder, "again.md") == "one"


@pytest.mark.parametrize(
    "file",
    [
        "", ".", "..", "../agent.yaml", "deep/../../agent.yaml", "deep/../system.md", "/etc/passwd", "deep//one.md",
        "deep/", "./system.md", "..\\agent.yaml", "system.md\0", "deep", "none.md", "system.md/x", "x" * 300,
    ],
)  # fmt: skip
def test_any_other_path_is_refused(file: str, folder: Path) -> None:
    with pytest.raises(HotplugError) as caught:
        read_prompt(folder, file)
    assert caught.value.code == "agent.prompt"
    assert str(folder) not in caught.value.detail


@pytest.mark.parametrize("target", ["../agent.yaml", "../../outside.md", "/etc/hostname", "link"])
def test_a_link_that_leads_out_is_refused(target: str, folder: Path) -> None:
    (folder / "prompts" / "link").symlink_to(target)
    with pytest.raises(HotplugError, match=r"leads out of prompts|cannot be read"):
        read_prompt(folder, "link")


def test_a_linked_folder_that_leads_out_is_refused(folder: Path) -> None:
    (folder / "prompts" / "up").symlink_to(folder.parent, target_is_directory=True)
    with pytest.raises(HotplugError, match="leads out of prompts"):
        read_prompt(folder, "up/outside.md")


def test_a_named_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "prompts" / "pipe")
    with pytest.raises(HotplugError, match="no regular file"):
        read_prompt(folder, "pipe")


@pytest.mark.parametrize(
    ("content", "told"), [(b"x" * (MAX_BYTES + 1), "has more than 262144 bytes"), (b"\xff", "is not UTF-8")]
)
def test_what_is_too_large_or_no_text_is_refused(content: bytes, told: str, folder: Path) -> None:
    (folder / "prompts" / "system.md").write_bytes(content)
    with pytest.raises(HotplugError, match=told):
        read_prompt(folder, "system.md")


def test_the_largest_prompt_is_read(folder: Path) -> None:
    (folder / "prompts" / "system.md").write_bytes(b"x" * MAX_BYTES)
    assert len(read_prompt(folder, "system.md")) == MAX_BYTES


def test_an_agent_reads_its_prompts_from_its_init_on_and_anew_after_a_reload(folders: AgentFolders) -> None:
    agent = AGENT.replace('An agent of a test.")', 'x")\n        self.system = self.load_prompt("system.md")')
    place = folders.add("a", agent=agent, extra="config: {tone: kind}\n")
    (place / "prompts" / "system.md").write_text("first")
    first = folders.load_one().agent
    assert first is not None and first.system == "first"  # type: ignore[attr-defined]
    (place / "prompts" / "system.md").write_text("second")
    assert first.load_prompt("system.md") == "first"
    second = folders.reload("a").agent
    assert second is not None and second.load_prompt("system.md") == second.system == "second"  # type: ignore[attr-defined]
    assert second.config == {"tone": "kind"}


def test_an_agent_without_a_folder_has_no_prompts() -> None:
    with pytest.raises(HotplugError, match="was not loaded from a folder") as caught:
        AgentBase("a", "by hand").load_prompt("system.md")
    assert caught.value.code == "agent.prompt"
