"""Whoever runs plugins, calls tools and asks a model for somebody else: agents, MCP clients, and nodes of flows, in
every way in which they are run."""

from __future__ import annotations

from typing import Any

from tests.e2e.tenants import AGENT, Tenant, fresh_name
from tests.flow_builders import Data, chain, end, flow, literal, node, output, ref, start
from tests.least_privilege.drive.plugins import Made
from tests.least_privilege.drive.world import PROBED, PROBER, World

FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"
MCP_VERSION = "2025-11-25"
WAIT_S = 25


def drive(world: World, made: Made) -> None:
    """Let each of them do everything once."""
    (pets,) = PROBED["tools"]
    tool_id = made.tenant.register_tool(pets)["toolId"]
    _agent(made.tenant)
    calling = [
        node("hotplug-plugin::1", {"pluginId": made.compiled, "action": "execute"}),
        node("hotplug-plugin::2", {"pluginId": made.networked, "action": "execute"}),
        node(
            "plugin::1",
            {"pluginId": tool_id, "operationId": "getPet", "version": "V1.0"},
            inputs=[literal("petId", 7, "integer")],
        ),
        _asking_a_model(),
    ]
    _nodes(made.tenant, calling)
    _mcp(made.tenant, *(f"plugin_{name}" for name in PROBED["plugins"]), "flow_probed")
    _questions(world, made.tenant)


def ask_models(tenant: Tenant) -> None:
    """Let everything that may ask the deployment's model ask it."""
    tenant.admin("POST", f"/api/v1/agents/{AGENT}/invoke", 200, json={"message": "What is a plugin?"})
    _nodes(tenant, [_asking_a_model()])
    _mcp(tenant, "flow_probed")


def _asking_a_model() -> Data:
    return node("llm::1", {"template": "Say yes."}, outputs=[output("said")])


def _agent(tenant: Tenant) -> None:
    path = f"/api/v1/agents/{PROBER}/invoke"
    for message in (*(f"plugin {name}" for name in PROBED["plugins"]), f"tool {PROBED['tools'][0]}"):
        tenant.admin("POST", path, 200, json={"message": message})


def _nodes(tenant: Tenant, calling: list[Data]) -> None:
    nodes = [start(), *calling, end(ref("said", "llm::1", "said"))]
    flow_id = made_flow(tenant, "probed", flow(nodes, chain(*nodes)))
    path = f"{FLOWS}/{flow_id}"
    for mode in ("express", "durable"):
        body = {"mode": mode, "waitSeconds": WAIT_S}
        for way in ("runs", "debug-runs"):
            _succeeded(tenant.admin("POST", f"{path}/{way}", 200, json=body).json())
    for one in calling:
        _succeeded(tenant.admin("POST", f"{path}/nodes/{one['id']}/debug", 200, json={}).json())


def _mcp(tenant: Tenant, *tools: str) -> None:
    def rpc(method: str, parameters: Data) -> Data:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        headers = {"MCP-Protocol-Version": MCP_VERSION}
        return dict(tenant.admin("POST", "/api/v1/mcp", 200, json=message, headers=headers).json()["result"])

    offered = [tool["name"] for tool in rpc("tools/list", {})["tools"]]
    for wanted in tools:
        (name,) = [one for one in offered if one.startswith(wanted)]
        answer = rpc("tools/call", {"name": name, "arguments": {}})
        assert not answer["isError"], answer


def _questions(world: World, tenant: Tenant) -> None:
    """A run that makes more than a checkpoint takes, asks, and goes on with both; one that is cancelled while it waits;
    one that is cancelled in the moment in which it begins to."""
    flow_id = asking(tenant)
    path = f"{FLOWS}/{flow_id}/runs"
    run = waiting(tenant, path)
    body = {"eventId": run["event"]["eventId"], "action": "resume", "content": "This", "waitSeconds": WAIT_S}
    _succeeded(tenant.admin("POST", f"{RUNS}/{run['runId']}/resume", 200, json=body).json())
    run = waiting(tenant, path)
    assert tenant.admin("POST", f"{RUNS}/{run['runId']}/cancel", 200).json()["state"] == "cancelled"
    asked = "UPDATE flow_run SET cancel = 1 WHERE run_id = NEW.run_id"
    with world.trigger("AFTER UPDATE OF state ON flow_run WHEN NEW.state = 'waiting'", asked):
        run = tenant.admin("POST", path, 200, json={"waitSeconds": WAIT_S}).json()
    assert run["state"] == "cancelled", run


def asking(tenant: Tenant) -> str:
    """Publish a flow that asks and return its id."""
    writing = node(
        "ifly-code::1",
        {"code": "def main():\n    return {'text': 'x' * 300_000}"},
        outputs=[output("text")],
    )
    question = node("question-answer::1", {"question": "Which text?", "answerType": "direct"})
    said = ref("said", "question-answer::1", "content")
    last = end(said, ref("text", "ifly-code::1", "text"), template="{{said}} {{text}}")
    nodes = [start(), writing, question, last]
    return made_flow(tenant, fresh_name("asking"), flow(nodes, chain(*nodes)))


def waiting(tenant: Tenant, path: str) -> dict[str, Any]:
    """Start a run and return it while it waits for an answer."""
    run: dict[str, Any] = tenant.admin("POST", path, 202, json={"waitSeconds": WAIT_S}).json()
    assert run["state"] == "waiting", run
    return run


def made_flow(tenant: Tenant, name: str, data: Data) -> str:
    """Publish a flow and return its id."""
    made = tenant.admin("POST", FLOWS, 201, json={"name": name, "data": data}).json()
    tenant.admin("POST", f"{FLOWS}/{made['flowId']}/publish", 200, json={"version": "v1"})
    return str(made["flowId"])


def _succeeded(run: dict[str, Any]) -> None:
    assert run["state"] == "succeeded", run
