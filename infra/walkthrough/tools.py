"""Tools: an HTTP API by its OpenAPI document, its versions, both directions of MCP."""

from __future__ import annotations

from typing import Any

from examples.tools.handbook import Handbook
from examples.tools.helpdesk import DESK_KEY, Helpdesk, document
from infra.walkthrough.steps import API_PROCESSES, PROBES, Plan, expect
from infra.walkthrough.tenant import Tenant

MCP_VERSION = "2025-11-25"


class ToolSteps:
    """The steps with tools, at the helpdesk and the handbook of examples/tools."""

    def __init__(self, tenant: Tenant, helpdesk: Helpdesk, handbook: Handbook) -> None:
        self._tenant = tenant
        self._helpdesk = helpdesk
        self._handbook = handbook
        self.tool_id = ""

    def plan(self) -> Plan:
        """From an OpenAPI document to MCP."""
        return (
            ("register a tool from its OpenAPI document", self._register),
            ("store its key, call one of its operations", self._call),
            (f"publish version 2: all {API_PROCESSES} warm processes call it", self._publish),
            ("speak MCP: list and call the plugin's action and the tool's operation", self._speak_mcp),
            ("register an MCP server, call a tool of it", self._call_server),
        )

    def _register(self) -> str:
        body = {"name": "Helpdesk", "openapi": document(self._helpdesk.url)}
        tool = self._tenant.client.call("POST", "/tools", 201, json=body).json()
        self.tool_id = tool["toolId"]
        operations = [operation["operationId"] for operation in tool["operations"]]
        return f"{self.tool_id} {tool['version']} with {', '.join(operations)}"

    def _run(self, expected: int = 200) -> dict[str, Any]:
        body = {
            "operationId": "listTickets",
            "path": {"queue": "billing"},
            "query": {"status": ["open", "waiting"], "labels": ["vip", "urgent"]},
            "header": {"X-Department": "sales"},
        }
        path = f"/tools/{self.tool_id}/run"
        return dict(self._tenant.client.call("POST", path, expected, json=body).json())

    def _call(self) -> str:
        refused = self._run(expected=409)
        expect(refused["code"] == "tool.credentials_missing", f"answered {refused}")
        credentials = {"deskKey": {"value": DESK_KEY}}
        stored = self._tenant.client.call(
            "PUT", f"/tools/{self.tool_id}/credentials", 200, json=credentials
        ).json()
        expect(DESK_KEY not in str(stored), "the key was shown")
        answer = self._run()
        [ticket] = answer["body"]["tickets"]
        expect("internalNote" not in ticket, "a hidden member was shown")
        return f"status {answer['status']}, {ticket['subject']!r} by {ticket['reporter']}"

    def _publish(self) -> str:
        text = document(self._helpdesk.url).replace("x-display: true", "x-display: false")
        body = {"version": "V2.0", "openapi": text}
        self._tenant.client.call("POST", f"/tools/{self.tool_id}/versions", 201, json=body)
        answers = [self._run() for _ in range(PROBES)]
        stale = [
            answer
            for answer in answers
            if answer["version"] != "V2.0" or "reporter" in answer["body"]["tickets"][0]
        ]
        expect(not stale, f"{len(stale)} answers of version 1")
        seen = self._tenant.environments(runtime=False)
        expect(len(seen) >= API_PROCESSES, f"only {len(seen)} API processes were seen")
        return f"{len(answers)} calls from {len(seen)} processes, all of V2.0, none shows the reporter"

    def _rpc(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        headers = {"MCP-Protocol-Version": MCP_VERSION}
        answer = self._tenant.client.call("POST", "/mcp", 200, json=message, headers=headers).json()
        expect("result" in answer, f"{method}: {answer}")
        return dict(answer["result"])

    def _speak_mcp(self) -> str:
        names = [tool["name"] for tool in self._rpc("tools/list", {})["tools"]]
        counted = self._rpc(
            "tools/call", {"name": "plugin_word-count_count", "arguments": {"text": "one two three"}}
        )
        expect(counted.get("structuredContent") == {"words": 3}, f"answered {counted}")
        found = self._rpc(
            "tools/call",
            {
                "name": "tool_Helpdesk_listTickets",
                "arguments": {"path": {"queue": "billing"}, "query": {"status": ["open"]}},
                # What the model does not know: the business adds it.
                "_meta": {"hotplug/arguments": {"header": {"X-Department": "sales"}}},
            },
        )
        expect(not found["isError"], f"answered {found}")
        tickets = found["structuredContent"]["tickets"]
        return f"{len(names)} tools; {counted['structuredContent']}; {tickets[0]['subject']!r}"

    def _call_server(self) -> str:
        client = self._tenant.client
        server = client.call(
            "POST", "/mcp/servers", 201, json={"name": "Handbook", "url": self._handbook.url}
        ).json()
        path = f"/mcp/servers/{server['serverId']}/tools"
        names = [tool["name"] for tool in client.call("GET", path, 200).json()["items"]]
        answer = client.call(
            "POST", f"{path}/read_page/call", 200, json={"arguments": {"title": "refunds"}}
        ).json()
        text = answer["result"]["content"][0]["text"]
        return f"{server['serverId']} speaks {server['protocolVersion']}, has {', '.join(names)}: {text!r}"
