"""The order of loading, its log lines, and what one broken agent does to the others: nothing."""

from __future__ import annotations

from tests.agent_folders import AgentFolders


def test_agents_are_loaded_in_the_contract_s_order(folders: AgentFolders, lines) -> None:
    folders.add_history("common_qa", "CommonQA")
    folders.add("cmdb")
    registry = folders.load()
    assert [one.error for one in registry.all()] == [None, None]
    assert [line["message"] for line in lines()] == [
        "services.ready",
        "core.models.loading",
        "core.models.scanning",
        *["shared.model.found"] * 3,
        "shared.models.registered",
        "agents.scanning",
        *["agent.loading", "agent.models.registered", "agent.loaded"],
        *["agent.loading", "agent.models.imported", "agent.model.found"],
        *["agent.models.registered", "agent.loaded"],
        "agents.ready",
    ]
