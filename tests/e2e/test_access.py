"""Every endpoint, as every role, on what is one's own, another tenant's, and nobody's: the hand-written table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from infra.local.stack import LocalStack
from tests.e2e import tenants
from tests.e2e.access_table import ROLES, Line, read_table
from tests.e2e.tenants import SERVER_KEY, TOOL_KEY, Api, Tenant, fresh_name, package
from tests.flow_rows import graph
from tests.upstreams import Upstreams

LINES = read_table()
PLUGINS, TOOLS, SERVERS = "/api/v1/plugins", "/api/v1/tools", "/api/v1/mcp/servers"
AGENTS = "/api/v1/agents"
FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"
# Well-formed, and nobody's.
UNKNOWN = {
    "pluginId": "plugin_nothing_000000",
    "installId": "0" * 26,
    "configId": "0" * 26,
    "executionId": "0" * 26,
    "version": "9.9.9",
    "toolId": f"tool@{'0' * 26}",
    "serverId": f"mcp@{'0' * 26}",
    "scheme": "nothing",
    "toolName": "nothing",
    "threadId": "0" * 26,
    "flowId": "1",
    "nodeId": "message::9",
    "runId": "0" * 26,
}
JOB = {"job": "sweep"}
# Both belong to the deployment.
AGENT = {
    "agentName": tenants.AGENT, "table": "agentflow_shared_analytics_events", "moveId": "0" * 26,
}  # fmt: skip
Ids = dict[str, str]


@dataclass
class World:
    """Two furnished tenants, and those who are nobody."""

    stack: LocalStack
    tenant: Tenant
    other: Tenant
    nobodies: dict[str, Api]
    upstreams: Upstreams

    def ids(self, target: str, line: Line) -> Ids:
        """Return what is there to be found under a target."""
        owner = self.tenant if target == "own" else self.other
        shared = target == "shared"
        if line.path.startswith(TOOLS):
            thing = owner.shared_tool if shared else owner.private_tool
        elif line.path.startswith(SERVERS):
            thing = owner.shared_server if shared else owner.private_server
        elif line.path.startswith((FLOWS, RUNS)):
            thing = owner.private_flow
        else:
            thing = owner.shared if shared else owner.private
        found = {**JOB, **AGENT, **owner.app, **owner.thread, **thing}
        if line.variant == "global":
            found["configId"] = thing["globalConfigId"]
        return found


@pytest.fixture(scope="module")
def world(stack: LocalStack, upstreams: Upstreams) -> Iterator[World]:
    with ExitStack() as opened:
        root = opened.enter_context(closing(Api(stack.url, stack.admin_credential)))
        three = (opened.enter_context(closing(tenants.new_tenant(stack, root))) for _ in range(3))
        tenant, other, gone = three
        tenants.furnish(tenant, upstreams)
        tenants.furnish(other, upstreams)
        root("PATCH", f"/api/v1/apps/{gone.alias}", 200, json={"status": 0})
        removed, made = tenants.new_credential(root, tenant.alias, "admin")
        root("DELETE", f"/api/v1/apps/{tenant.alias}/credentials/{made['id']}", 204)
        credentials = {
            "no credential": None,
            "wrong secret": f"{tenant.keys['admin'].partition(':')[0]}:{other.keys['admin'].partition(':')[2]}",
            "disabled app": gone.keys["admin"],
            "expired": tenants.expired_credential(root, stack, tenant.alias),
            "removed": removed,
        }
        nobodies = {
            name: opened.enter_context(closing(Api(stack.url, credential)))
            for name, credential in credentials.items()
        }
        yield World(stack, tenant, other, nobodies, upstreams)


# -- objects that a successful request may use up ---------------------------------------------------------------


def _plugin(_: LocalStack, owner: Tenant) -> Ids:
    return owner.install(fresh_name("fresh"))


def _config(_: LocalStack, owner: Tenant) -> Ids:
    plugin = owner.install(fresh_name("fresh"))
    return plugin | {"configId": owner.configure(plugin)}


def _global_config(_: LocalStack, owner: Tenant) -> Ids:
    plugin = owner.install(fresh_name("fresh"))
    return plugin | {"configId": owner.configure(plugin, "global")}


def _open_install(_: LocalStack, owner: Tenant) -> Ids:
    return {"installId": owner.open_install()}


def _failed_install(stack: LocalStack, owner: Tenant) -> Ids:
    install_id = owner.open_install()
    tenants.fail_install(stack, install_id)
    return {"installId": install_id}


def _empty_app(_: LocalStack, owner: Tenant) -> Ids:
    alias = fresh_name("empty")
    owner.admin("POST", "/api/v1/apps", 201, json={"aliasId": alias, "name": "Empty"})
    return {"aliasId": alias}


def _credential(_: LocalStack, owner: Tenant) -> Ids:
    _key, made = tenants.new_credential(owner.admin, owner.alias, "admin")
    return {"credentialId": made["id"]}


def _secret(_: LocalStack, owner: Tenant) -> Ids:
    name = fresh_name("gone")
    owner.admin("PUT", f"/api/v1/apps/{owner.alias}/secrets/{name}", 200, json={"value": "x"})
    return {"name": name}


def _tool(_: LocalStack, owner: Tenant) -> Ids:
    return owner.register_tool(fresh_name("fresh"))


def _deleted_version(_: LocalStack, owner: Tenant) -> Ids:
    tool = owner.register_tool(fresh_name("fresh"))
    owner.admin("DELETE", f"{TOOLS}/{tool['toolId']}", 204)
    return tool


def _server(_: LocalStack, owner: Tenant) -> Ids:
    return owner.register_server(fresh_name("fresh"))


def _thread(_: LocalStack, owner: Tenant) -> Ids:
    return {"threadId": owner.talk("What is a plugin?")}


def _move(_: LocalStack, owner: Tenant) -> Ids:
    return {"moveId": owner.begin_move()}


def _no_move(_: LocalStack, owner: Tenant) -> Ids:
    owner.admin("DELETE", f"{AGENTS}/{tenants.AGENT}/moves/{owner.begin_move()}", 200)
    return {}


def _flow(_: LocalStack, owner: Tenant) -> Ids:
    return owner.register_flow(fresh_name("fresh"))


def _unpublished_flow(_: LocalStack, owner: Tenant) -> Ids:
    flow = owner.register_flow(fresh_name("fresh"))
    owner.admin("POST", f"{FLOWS}/{flow['flowId']}/take-off", 200, json={"platform": 1})
    return flow


FRESH: dict[str, Callable[[LocalStack, Tenant], Ids]] = {
    "DELETE /api/v1/apps/{aliasId}#empty": _empty_app,
    "DELETE /api/v1/apps/{aliasId}/credentials/{credentialId}": _credential,
    "PUT /api/v1/apps/{aliasId}/secrets/{name}": _secret,
    "DELETE /api/v1/apps/{aliasId}/secrets/{name}": _secret,
    f"POST {PLUGINS}/installs/{{installId}}/retry": _failed_install,
    f"DELETE {PLUGINS}/installs/{{installId}}": _open_install,
    f"PUT {PLUGINS}/{{pluginId}}": _plugin,
    f"PUT {PLUGINS}/{{pluginId}}#declared": _plugin,
    f"PATCH {PLUGINS}/{{pluginId}}": _plugin,
    f"PATCH {PLUGINS}/{{pluginId}}#shared": _plugin,
    f"DELETE {PLUGINS}/{{pluginId}}": _plugin,
    f"POST {PLUGINS}/{{pluginId}}/enable": _plugin,
    f"POST {PLUGINS}/{{pluginId}}/disable": _plugin,
    f"POST {PLUGINS}/{{pluginId}}/rollback": _plugin,
    f"PUT {PLUGINS}/{{pluginId}}/grants": _plugin,
    f"POST {PLUGINS}/{{pluginId}}/configs": _plugin,
    f"POST {PLUGINS}/{{pluginId}}/configs#global": _plugin,
    f"PUT {PLUGINS}/{{pluginId}}/configs/{{configId}}": _config,
    f"DELETE {PLUGINS}/{{pluginId}}/configs/{{configId}}": _config,
    f"PUT {PLUGINS}/{{pluginId}}/configs/{{configId}}#global": _global_config,
    f"DELETE {PLUGINS}/{{pluginId}}/configs/{{configId}}#global": _global_config,
    f"DELETE {TOOLS}/{{toolId}}": _tool,
    f"POST {TOOLS}/{{toolId}}/versions": _tool,
    f"PATCH {TOOLS}/{{toolId}}/versions/{{version}}": _tool,
    f"PATCH {TOOLS}/{{toolId}}/versions/{{version}}#shared": _tool,
    f"DELETE {TOOLS}/{{toolId}}/versions/{{version}}": _tool,
    f"POST {TOOLS}/{{toolId}}/versions/{{version}}/restore": _deleted_version,
    f"PUT {TOOLS}/{{toolId}}/credentials": _tool,
    f"DELETE {TOOLS}/{{toolId}}/credentials": _tool,
    f"DELETE {TOOLS}/{{toolId}}/credentials/{{scheme}}": _tool,
    f"PATCH {SERVERS}/{{serverId}}": _server,
    f"PATCH {SERVERS}/{{serverId}}#shared": _server,
    f"DELETE {SERVERS}/{{serverId}}": _server,
    f"PUT {SERVERS}/{{serverId}}/credentials": _server,
    f"DELETE {SERVERS}/{{serverId}}/credentials": _server,
    f"DELETE {SERVERS}/{{serverId}}/credentials/{{scheme}}": _server,
    f"DELETE {AGENTS}/{{agentName}}/threads/{{threadId}}": _thread,
    f"POST {AGENTS}/{{agentName}}/moves": _no_move,
    f"GET {AGENTS}/{{agentName}}/moves/{{moveId}}": _move,
    f"DELETE {AGENTS}/{{agentName}}/moves/{{moveId}}": _move,
    f"PUT {FLOWS}/{{flowId}}": _flow,
    f"DELETE {FLOWS}/{{flowId}}": _unpublished_flow,
    f"POST {FLOWS}/{{flowId}}/take-off": _flow,
    f"PUT {FLOWS}/{{flowId}}/comparisons/{{version}}": _flow,
    f"DELETE {FLOWS}/{{flowId}}/comparisons/{{version}}": _flow,
    f"PUT {FLOWS}/{{flowId}}/licenses/{{aliasId}}": _flow,
}

# What the caller's own app must have stored of a shared thing before the request finds it.
KEPT_OF_SHARED = {
    f"DELETE {TOOLS}/{{toolId}}/credentials/{{scheme}}": (f"{TOOLS}/{{toolId}}/credentials", TOOL_KEY),
    f"DELETE {SERVERS}/{{serverId}}/credentials/{{scheme}}": (
        f"{SERVERS}/{{serverId}}/credentials",
        SERVER_KEY,
    ),
}


def _json(**body: Any) -> dict[str, Any]:
    return {"json": body}


def _config_body(**more: Any) -> dict[str, Any]:
    return _json(name=fresh_name("c"), configItems={"word": "x"}, **more)


# What is sent: by the line's name, a function of the ids. Everything else has no body.
BODIES: dict[str, Callable[[Ids], dict[str, Any]]] = {
    "POST /api/v1/maintenance/{job}": lambda ids: _json(dryRun=True),
    "POST /api/v1/apps": lambda ids: _json(aliasId=fresh_name("made"), name="Made"),
    # What it has: the app of a whole role matrix stays as it was.
    "PATCH /api/v1/apps/{aliasId}": lambda ids: _json(name=ids["appName"]),
    "POST /api/v1/apps/{aliasId}/credentials": lambda ids: _json(role="viewer"),
    "PUT /api/v1/apps/{aliasId}/secrets/{name}": lambda ids: _json(value="other"),
    f"POST {PLUGINS}/install": lambda ids: tenants.upload(package(fresh_name("made"))),
    f"POST {PLUGINS}/install#declared": lambda ids: tenants.declared(package(fresh_name("made"))),
    f"POST {PLUGINS}/validate-manifest": lambda ids: _json(
        name="checked", version="1.0.0", pluginType="custom", entryPoint="plugin.py"
    ),
    f"PUT {PLUGINS}/{{pluginId}}": lambda ids: tenants.upload(package(ids["pluginName"], "2.0.0")),
    f"PUT {PLUGINS}/{{pluginId}}#declared": lambda ids: tenants.declared(package(ids["pluginName"], "2.0.0")),
    f"PATCH {PLUGINS}/{{pluginId}}": lambda ids: _json(visibility="private"),
    f"PATCH {PLUGINS}/{{pluginId}}#shared": lambda ids: _json(visibility="shared"),
    f"PUT {PLUGINS}/{{pluginId}}/grants": lambda ids: _json(network=["example.com"]),
    f"POST {PLUGINS}/{{pluginId}}/configs": lambda ids: _config_body(),
    f"POST {PLUGINS}/{{pluginId}}/configs#global": lambda ids: _config_body(scope="global"),
    f"PUT {PLUGINS}/{{pluginId}}/configs/{{configId}}": lambda ids: _json(configItems={"word": "y"}),
    f"PUT {PLUGINS}/{{pluginId}}/configs/{{configId}}#global": lambda ids: _json(configItems={"word": "y"}),
    "POST /api/v1/mcp": lambda ids: _json(jsonrpc="2.0", id=1, method="tools/list"),
    f"POST {PLUGINS}/{{pluginId}}/execute": lambda ids: _json(params={"word": "hi"}),
    f"GET {TOOLS}/{{toolId}}#document": lambda ids: {"params": {"document": "true"}},
    f"PATCH {TOOLS}/{{toolId}}/versions/{{version}}": lambda ids: _changed(name="Changed"),
    f"PATCH {TOOLS}/{{toolId}}/versions/{{version}}#shared": lambda ids: _changed(shared=True),
    f"POST {TOOLS}/{{toolId}}/run": lambda ids: _json(**CALL),
    f"PUT {TOOLS}/{{toolId}}/credentials": lambda ids: _json(**TOOL_KEY),
    f"PATCH {SERVERS}/{{serverId}}": lambda ids: _json(name="Changed"),
    f"PATCH {SERVERS}/{{serverId}}#shared": lambda ids: _json(shared=True),
    f"POST {SERVERS}/{{serverId}}/tools/{{toolName}}/call": lambda ids: _json(arguments={}),
    f"PUT {SERVERS}/{{serverId}}/credentials": lambda ids: _json(**SERVER_KEY),
    f"PATCH {AGENTS}/tables/{{table}}": lambda ids: _json(retainDays=None),
    f"POST {AGENTS}/{{agentName}}/invoke": lambda ids: _json(message="What is a tool?"),
    f"POST {AGENTS}/{{agentName}}/moves": lambda ids: _json(target="shared"),
    f"POST {FLOWS}": lambda ids: _json(name="Made", data=graph()),
    f"PUT {FLOWS}/{{flowId}}": lambda ids: _changed(name="Changed", data=graph("changed")),
    # The draft is what v1 was made of.
    f"POST {FLOWS}/{{flowId}}/publish": lambda ids: _json(version="v1"),
    f"POST {FLOWS}/{{flowId}}/take-off": lambda ids: _json(platform=1),
    f"PUT {FLOWS}/{{flowId}}/licenses/{{aliasId}}": lambda ids: _json(status=0),
    # The run has ended: nothing waits for an answer.
    f"POST {RUNS}/{{runId}}/resume": lambda ids: _json(eventId="nothing", action="resume"),
}
CALL = {"operationId": "getPet", "path": {"petId": 7}}


def _changed(**body: Any) -> dict[str, Any]:
    return {"json": body, "headers": {"If-Match": "*"}}


# What names an upstream.
LEADING_OUT: dict[str, Callable[[Upstreams], dict[str, Any]]] = {
    f"POST {TOOLS}": lambda to: _json(name="Made", openapi=to.document()),
    f"POST {TOOLS}#batch": lambda to: _json(tools=[{"name": "Made", "openapi": to.document()}]),
    f"POST {TOOLS}#shared": lambda to: _json(name="Made", openapi=to.document(), shared=True),
    f"POST {TOOLS}/debug": lambda to: _json(openapi=to.document(), **CALL),
    f"POST {TOOLS}/{{toolId}}/versions": lambda to: _json(version="V2", openapi=to.document()),
    f"POST {SERVERS}": lambda to: _json(name="Made", url=to.mcp),
    f"POST {SERVERS}#shared": lambda to: _json(name="Made", url=to.mcp, shared=True),
}


def send(world: World, api: Api, line: Line, ids: Ids) -> httpx.Response:
    """Send a line's request about what `ids` names."""
    options = BODIES[line.name](ids) if line.name in BODIES else {}
    if line.name in LEADING_OUT:
        options = LEADING_OUT[line.name](world.upstreams)
    return api(line.method, line.path.format_map(ids), **options)


def said(answer: httpx.Response) -> tuple[Any, ...]:
    """Return what an answer says, without what is each request's own."""
    if answer.headers.get("content-type") != "application/problem+json":
        return (answer.status_code, answer.text)
    problem = answer.json()
    return answer.status_code, {key: problem[key] for key in problem if key not in ("instance", "requestId")}


# -- the table and the document -----------------------------------------------------------------------------------


def test_the_table_and_the_document_name_the_same_endpoints(stack: LocalStack) -> None:
    document = httpx.get(f"{stack.url}/openapi.json").json()
    described = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    assert {line.endpoint for line in LINES} == described
    assert len({line.name for line in LINES}) == len(LINES)
    assert {line.name for line in LINES} >= {*FRESH, *BODIES, *LEADING_OUT, *KEPT_OF_SHARED}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_the_document_names_the_least_role_that_the_table_lets_in(stack: LocalStack, line: Line) -> None:
    document = httpx.get(f"{stack.url}/openapi.json").json()
    role = document["paths"][line.path][line.method.lower()]["x-role"]
    let_in = [name for name in ROLES if line.expected.get(("own", name), 403) != 403]
    if line.nobody == 200:
        assert role == "none"
    elif not line.variant:
        assert role == let_in[0]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_each_role_may_do_what_the_table_says(world: World, line: Line) -> None:
    seen = {}
    for (target, role), expected in line.expected.items():
        owner = world.tenant if target == "own" else world.other
        ids = world.ids(target, line)
        # On what is shared nothing that succeeds changes what its owner has.
        if expected < 300 and target != "shared" and line.name in FRESH:
            ids |= FRESH[line.name](world.stack, owner)
        if expected < 300 and target == "shared" and line.name in KEPT_OF_SHARED:
            path, kept = KEPT_OF_SHARED[line.name]
            world.tenant.admin("PUT", path.format_map(ids), 200, json=kept)
        answer = send(world, world.tenant.apis[role], line, ids)
        seen[target, role] = answer.status_code
        _check_problem(line, target, role, answer)
        _check_nothing_leaks(world, line, answer)
    assert seen == line.expected


def _check_problem(line: Line, target: str, role: str, answer: httpx.Response) -> None:
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json"
    code = answer.json()["code"]
    if answer.status_code == 403:
        # Whoever has the role is told that it is another's; whoever lacks it is told that.
        has_role = line.expected.get(("own", role), 403) != 403
        may_elsewhere = target == "shared" and (has_role or (line.variant, role) == ("global", "publisher"))
        not_owner = "plugin.not_owner" if line.path.startswith(PLUGINS) else "tool.not_owner"
        assert code == (not_owner if may_elsewhere else "auth.role"), (target, role)


def _check_nothing_leaks(world: World, line: Line, answer: httpx.Response) -> None:
    if line.deployment_wide:
        return
    # A problem repeats the path that the caller sent, and nothing else that it did not know.
    shown = str(said(answer)) + str([value for name, value in answer.headers.items() if name != "location"])
    assert {mark for mark in world.other.marks if mark in shown} == set()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_nobody_is_refused_and_not_told_why(world: World, line: Line) -> None:
    answers = {
        name: said(send(world, api, line, world.ids("own", line))) for name, api in world.nobodies.items()
    }
    assert {name: answer[0] for name, answer in answers.items()} == dict.fromkeys(answers, line.nobody)
    if line.nobody == 401:
        assert len({str(answer) for answer in answers.values()}) == 1, answers


@pytest.mark.parametrize(
    "line", [line for line in LINES if ("other", "admin") in line.expected], ids=lambda line: line.name
)
def test_what_another_tenant_has_looks_like_what_nobody_has(world: World, line: Line) -> None:
    if line.deployment_wide:
        unknown = {"aliasId": "no-such-app", "name": "x", "appName": "x", "credentialId": "1"}
        assert send(world, world.tenant.admin, line, unknown).status_code == 404
        return
    api, ids = world.tenant.admin, world.ids("other", line)
    assert said(send(world, api, line, ids)) == said(send(world, api, line, ids | UNKNOWN))


# -- what lists show, and what a refused request leaves -------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_lists_hold_what_is_ones_own_and_what_is_shared(world: World, role: str) -> None:
    api = world.tenant.apis[role]
    plugins = _everything(api, PLUGINS)
    ids = {row["pluginId"] for row in plugins}
    assert ids >= {world.tenant.private["pluginId"], world.tenant.shared["pluginId"]}
    assert world.other.shared["pluginId"] in ids
    assert world.other.private["pluginId"] not in ids
    installs = {row["installId"] for row in _everything(api, f"{PLUGINS}/installs")}
    assert world.tenant.private["installId"] in installs
    assert world.other.private["installId"] not in installs
    metrics = {row["pluginId"] for row in api("GET", f"{PLUGINS}/metrics", 200).json()}
    assert world.tenant.private["pluginId"] in metrics
    assert world.other.private["pluginId"] not in metrics
    for path, key in ((TOOLS, "toolId"), (SERVERS, "serverId")):
        found = {row[key] for row in _everything(api, path)}
        ours, theirs = (
            (tenant.private_tool, tenant.shared_tool)
            if path == TOOLS
            else (tenant.private_server, tenant.shared_server)
            for tenant in (world.tenant, world.other)
        )
        assert found >= {ours[0][key], ours[1][key], theirs[1][key]}
        assert theirs[0][key] not in found
    flows = {row["flowId"] for row in _everything(api, FLOWS)}
    assert world.tenant.private_flow["flowId"] in flows
    assert world.other.private_flow["flowId"] not in flows
    for path in (PLUGINS, TOOLS, SERVERS):
        assert api("GET", f"{path}?q={world.other.canary}", 200).json()["items"] == []


@pytest.mark.parametrize("role", ["caller", "publisher", "admin"])
def test_what_mcp_offers_is_ones_own_and_what_is_shared(world: World, role: str) -> None:
    offered: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": cursor}
        page = world.tenant.apis[role]("POST", "/api/v1/mcp", 200, json=message).json()["result"]
        offered += [tool["name"] for tool in page["tools"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}

    def names(tenant: Tenant, target: str) -> set[str]:
        tool = tenant.private_tool if target == "private" else tenant.shared_tool
        row = tenant.admin("GET", f"{TOOLS}/{tool['toolId']}", 200).json()
        return {name for name in offered if name == f"tool_{row['name']}_getPet"}

    assert len(names(world.tenant, "private")) == len(names(world.tenant, "shared")) == 1
    assert (len(names(world.other, "private")), len(names(world.other, "shared"))) == (0, 1)


@pytest.mark.parametrize("role", ["publisher", "admin"])
def test_a_shared_tool_is_called_with_what_is_ones_own(world: World, role: str) -> None:
    """Credentials and runs of what another app shares stay with the app that stores and makes them."""
    api = world.tenant.apis[role]
    tool, server = world.other.shared_tool["toolId"], world.other.shared_server["serverId"]
    for path, key, call in (
        (f"{TOOLS}/{tool}", TOOL_KEY, f"{TOOLS}/{tool}/run"),
        (f"{SERVERS}/{server}", SERVER_KEY, f"{SERVERS}/{server}/tools/text/call"),
    ):
        before = world.other.admin("GET", f"{path}/credentials", 200).text
        api("DELETE", f"{path}/credentials", 204)
        assert api("GET", f"{path}/credentials", 200).json()["items"] == []
        api("PUT", f"{path}/credentials", 200, json=key)
        assert world.other.admin("GET", f"{path}/credentials", 200).text == before
        ran = api("POST", call, 200, json=CALL if path.startswith(TOOLS) else {}).json()["executionId"]
        api("DELETE", f"{path}/credentials", 204)
        assert world.other.admin("GET", f"{path}/credentials", 200).text == before
        assert ran in str(_everything(api, f"{path}/executions"))
        assert ran not in str(_everything(world.other.admin, f"{path}/executions"))


@pytest.mark.parametrize("role", ["caller", "publisher", "admin"])
def test_a_shared_plugin_is_used_with_what_is_ones_own(world: World, role: str) -> None:
    path = f"{PLUGINS}/{world.other.shared['pluginId']}"
    api, admin = world.tenant.apis[role], world.tenant.admin
    run = api("POST", f"{path}/execute", 200, json={"params": {"word": "hi"}}).json()
    assert run["result"] == {"said": "hi"}
    api("GET", f"{path}/executions/{run['executionId']}", 200)
    # GIVEN a config of the user's own, of a plugin that another app owns
    config = admin("POST", f"{path}/configs", 201, json=_config_body()["json"]).json()
    # THEN the user's app sees and changes it, and the plugin's owner does not see it
    api("GET", f"{path}/configs/{config['configId']}", 200)
    for owner_role in ROLES:
        owner = world.other.apis[owner_role]
        owner("GET", f"{path}/configs/{config['configId']}", 404)
        owner("GET", f"{path}/executions/{run['executionId']}", 404)
        assert config["configId"] not in str(_everything(owner, f"{path}/configs"))
        assert run["executionId"] not in str(_everything(owner, f"{path}/executions"))
        assert config["configId"] not in str(_everything(owner, f"{path}/history"))
    admin("PUT", f"{path}/configs/{config['configId']}", 200, json={"configItems": {"word": "z"}})
    admin("DELETE", f"{path}/configs/{config['configId']}", 204)


def test_a_refused_request_leaves_everything_as_it_was(world: World) -> None:
    before = _state(world)
    for line in LINES:
        for (target, role), expected in line.expected.items():
            if expected in (403, 404) and line.method != "GET":
                send(world, world.tenant.apis[role], line, world.ids(target, line))
        for api in world.nobodies.values():
            send(world, api, line, world.ids("own", line))
    assert _state(world) == before


def _state(world: World) -> dict[str, str]:
    """Return what the tenants' admins see of what the tenants own."""
    state = {}
    for tenant in (world.tenant, world.other):
        app = f"/api/v1/apps/{tenant.alias}"
        paths = [app, f"{app}/secrets"]
        for plugin in (tenant.private, tenant.shared):
            path = f"{PLUGINS}/{plugin['pluginId']}"
            paths += [path, f"{path}/versions", f"{path}/history", f"{path}/configs"]
            paths += [f"{PLUGINS}/installs/{plugin['installId']}", f"{path}/executions"]
        for tool in (tenant.private_tool, tenant.shared_tool):
            path = f"{TOOLS}/{tool['toolId']}"
            paths += [
                f"{path}?document=true",
                f"{path}/versions",
                f"{path}/executions",
                f"{path}/credentials",
            ]
        for server in (tenant.private_server, tenant.shared_server):
            path = f"{SERVERS}/{server['serverId']}"
            paths += [path, f"{path}/tools", f"{path}/executions", f"{path}/credentials"]
        thread = f"{AGENTS}/{tenants.AGENT}/threads/{tenant.thread['threadId']}/messages"
        paths += [thread, f"{AGENTS}/{tenants.AGENT}", f"{AGENTS}/tables"]
        flow = f"{FLOWS}/{tenant.private_flow['flowId']}"
        paths += [flow, f"{flow}/versions", f"{flow}/published", f"{flow}/licenses", f"{flow}/comparisons/v9"]
        run = f"{RUNS}/{tenant.private_flow['runId']}"
        paths += [f"{flow}/history", f"{flow}/diagram.svg", run, f"{run}/nodes", f"{run}/events"]
        for path in paths:
            state[path] = tenant.admin("GET", path, 200).text
        for listing, key in (
            (PLUGINS, "pluginId"),
            (TOOLS, "toolId"),
            (SERVERS, "serverId"),
            (FLOWS, "flowId"),
        ):
            state[listing] = str([row[key] for row in _everything(tenant.admin, listing)])
        credentials = _everything(tenant.admin, f"{app}/credentials")
        state[f"{app}/credentials"] = str([{**row, "lastUsedAt": None} for row in credentials])
    return state


def _everything(api: Api, path: str) -> list[dict[str, Any]]:
    """Return all items of a list, page by page."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = api("GET", path, 200, params={"limit": 100, **cursor}).json()
        items += page["items"]
        if page["nextCursor"] is None:
            return items
        cursor = {"cursor": page["nextCursor"]}
