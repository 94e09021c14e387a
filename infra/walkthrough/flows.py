"""Flows: one that asks a question, waits without a process, and calls a tool once it has its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infra.functions import ROOT
from infra.walkthrough.steps import Plan, expect
from infra.walkthrough.tenant import Tenant
from infra.walkthrough.tools import ToolSteps

EXAMPLE = Path("examples", "flows", "report.json")
# Stands in the example for the id that the tool gets when it is registered.
TOOL_ID = "tool@helpdesk"


class FlowSteps:
    """The life of a flow of examples/flows, with the helpdesk as its tool."""

    def __init__(self, tenant: Tenant, tools: ToolSteps) -> None:
        self._tenant = tenant
        self._tools = tools
        self._flow_id = ""
        self._run: dict[str, Any] = {}

    def plan(self) -> Plan:
        """From a draft to what its run has left."""
        return (
            ("publish a flow that asks before it calls a tool", self._publish),
            ("run it: it waits for an answer, and no process with it", self._wait),
            ("answer: the run goes on from there, and calls the tool", self._answer),
            ("see what each node did, and the flow drawn", self._look),
        )

    def _publish(self) -> str:
        text = (ROOT / EXAMPLE).read_text().replace(TOOL_ID, self._tools.tool_id)
        data = json.loads(text)["flow"]
        body = {"name": "Report", "data": data}
        flow = self._tenant.client.call("POST", "/flows", 201, json=body).json()
        self._flow_id = flow["flowId"]
        expect(flow["warnings"] == [], f"answered {flow}")
        path = f"/flows/{self._flow_id}/publish"
        version = self._tenant.client.call("POST", path, 200, json={"version": "v1"}).json()
        return f"flow {self._flow_id} {version['version']}, {len(data['nodes'])} nodes"

    def _wait(self) -> str:
        body = {"parameters": {"problem": "Charged twice"}, "uid": "ada"}
        path = f"/flows/{self._flow_id}/runs"
        self._run = self._tenant.client.call("POST", path, 202, json=body).json()
        expect(self._run["state"] == "waiting", f"answered {self._run}")
        event = self._run["event"]
        options = " or ".join(option["name"] for option in event["options"])
        return f"{event['question']} {options}, until {event['expiresAt'][:16]}"

    def _answer(self) -> str:
        path = f"/runs/{self._run['runId']}/resume"
        answer = {"eventId": self._run["event"]["eventId"], "action": "resume", "content": "Yes"}
        run = self._tenant.client.call("POST", path, 200, json={**answer, "waitSeconds": 20}).json()
        expect(run["state"] == "succeeded", f"answered {run}")
        again = self._tenant.client.call("POST", path, 409, json=answer).json()
        expect(again["code"] == "run.not_waiting", f"answered {again}")
        return f"{run['content']} A second answer came too late."

    def _look(self) -> str:
        client = self._tenant.client
        nodes = client.call("GET", f"/runs/{self._run['runId']}/nodes", 200).json()["items"]
        expect(all(node["state"] == "succeeded" for node in nodes), f"answered {nodes}")
        ran = " → ".join(node["aliasName"] for node in nodes)
        picture = client.call("GET", f"/flows/{self._flow_id}/diagram.svg", 200)
        expect(picture.text.startswith("<svg"), f"drawn {picture.text[:100]}")
        return f"{ran}; {len(picture.content)} bytes of SVG"
