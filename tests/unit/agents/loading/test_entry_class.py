"""The class that agent.yaml names, and its instance."""

from __future__ import annotations

import pytest

from tests.agent_folders import AGENT, AgentFolders

YAML = "name: qa\nversion: 1.0.0\ndescription: Answers.\nentry_class: {}\n"
INNER = AGENT + "class Outer:\n    Inner = Entry\n"
INVOKE = "    def invoke(self, message, thread_id, context):\n        return message\n"
BASE = "from chalicelib.agents.base import AgentBase\nclass Entry(AgentBase):\n"


@pytest.mark.parametrize("named", ["Entry", "agent.Entry", "Outer.Inner", "agent.Outer.Inner"])
def test_a_class_is_found_by_its_name(named: str, folders: AgentFolders) -> None:
    folders.add("qa", yaml=YAML.format(named), agent=INNER)
    agent = folders.load_one().agent
    assert agent is not None and type(agent).__name__ == "Entry"


@pytest.mark.parametrize(
    ("named", "agent", "told"),
    [
        ("Nobody", AGENT, "is no class of agent.py"),
        ("Entry.", AGENT, "is no class of agent.py"),
        ("models.Entry", AGENT, "is no class of agent.py"),
        ("number", AGENT + "number = 3\n", "is no class of agent.py"),
        ("AgentBase", AGENT, "is no subclass of AgentBase"),
        ("int", AGENT + "int = int\n", "is no subclass of AgentBase"),
        ("Entry", BASE + "    pass\n", "has no method invoke"),
        ("Entry", BASE + "    async " + INVOKE.strip() + "\n", "async"),
    ],
)
def test_any_other_class_is_refused(named: str, agent: str, told: str, folders: AgentFolders) -> None:
    folders.add("qa", yaml=YAML.format(named), agent=agent)
    error = folders.load_one().error
    assert error is not None
    assert (error.code, told in error.detail) == ("agent.entry_class", True), error.detail


def test_a_class_without_an_init_is_given_its_description(folders: AgentFolders) -> None:
    folders.add("qa", yaml=YAML.format("Entry"), agent=BASE + INVOKE)
    agent = folders.load_one().agent
    assert agent is not None
    assert (agent.name, agent.description) == ("qa", "Answers.")


def test_an_init_that_wants_more_is_refused(folders: AgentFolders) -> None:
    folders.add(
        "qa", agent=BASE + "    def __init__(self, more):\n        super().__init__('qa', '')\n" + INVOKE
    )
    error = folders.load_one().error
    assert error is not None and error.code == "agent.instance"
