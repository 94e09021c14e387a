"""Agents: a conversation, a tool of the calling app, a decision that reaches every process."""

from __future__ import annotations

from typing import Any

from examples.agents.cmdb import Cmdb, document
from infra.walkthrough.steps import API_PROCESSES, PROBES, Plan, expect
from infra.walkthrough.tenant import Tenant


class AgentSteps:
    """The steps with the two agents of chalicelib/agents, at the configuration database of examples/agents."""

    def __init__(self, tenant: Tenant, cmdb: Cmdb) -> None:
        self._tenant = tenant
        self._cmdb = cmdb

    def plan(self) -> Plan:
        """Talk to both, then disable one everywhere."""
        return (
            ("talk to an agent, and go on with the conversation", self._talk),
            ("talk to an agent that calls a tool of this app", self._call_tool),
            (f"disable an agent: all {API_PROCESSES} warm processes refuse it; enable it", self._decide),
        )

    def _ask(self, agent: str, message: str, expected: int = 200, **more: Any) -> dict[str, Any]:
        body = {"message": message, **more}
        return dict(self._tenant.client.call("POST", f"/agents/{agent}/invoke", expected, json=body).json())

    def _talk(self) -> str:
        first = self._ask("common_qa", "What is a plugin?")
        expect(first["isNewConversation"], f"answered {first}")
        second = self._ask("common_qa", "And a tool?", threadId=first["threadId"])
        expect(not second["isNewConversation"], f"answered {second}")
        path = f"/agents/common_qa/threads/{first['threadId']}/messages"
        messages = self._tenant.client.call("GET", path, 200).json()["items"]
        expect(len(messages) == 4, f"{len(messages)} messages are stored")
        return f"{second['message']!r}; {len(messages)} messages in thread {first['threadId']}"

    def _call_tool(self) -> str:
        question = "which hosts run nginx in prod?"
        without = self._ask("cmdb", question)
        expect(without["metadata"].get("error") == "agent.tool_not_found", f"answered {without}")
        body = {"name": "cmdb", "openapi": document(self._cmdb.url)}
        self._tenant.client.call("POST", "/tools", 201, json=body)
        answer = self._ask("cmdb", question)
        names = [host["name"] for host in answer["metadata"]["hosts"]]
        expect(names == ["web-1", "web-2"] and self._cmdb.asked == 1, f"answered {answer}")
        again = self._ask("cmdb", question)
        expect(again["metadata"]["cached"] and self._cmdb.asked == 1, "the database was asked twice")
        return f"{', '.join(names)}; asked once for two questions"

    def _decide(self) -> str:
        decide = self._tenant.client.call
        decide("POST", "/agents/common_qa/disable", 200)
        refused = [self._ask("common_qa", "What is a plugin?", 409)["code"] for _ in range(PROBES)]
        expect(set(refused) == {"agent.disabled"}, f"answered {set(refused)}")
        decide("POST", "/agents/common_qa/enable", 200)
        seen = self._tenant.environments(runtime=False)
        expect(len(seen) >= API_PROCESSES, f"only {len(seen)} API processes were seen")
        self._ask("common_qa", "What is a plugin?")
        return f"{len(refused)} calls to {len(seen)} processes, all refused; then answered again"
