"""Tenants with one real object of every kind, made over HTTP."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import secrets
import time
import zipfile
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from infra.local.stack import LocalStack
from tests import flow_builders
from tests.upstreams import Upstreams

ROLES = ("viewer", "caller", "publisher", "admin")
PLUGIN = """
class Plugin:
    def execute(self, action, params, context):
        return {"said": params.get("word", "nothing")}
"""
# The one that the requests about agents go to: it answers without a model.
AGENT = "common_qa"
_numbers = itertools.count(1)


class Api:
    """The public API with one credential, or with none."""

    def __init__(self, url: str, credential: str | None) -> None:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=40)

    def __call__(self, method: str, path: str, expected: int | None = None, **options: Any) -> httpx.Response:
        """Send a request; with `expected`, any other status fails the test."""
        answer = self.http.request(method, path, **options)
        assert expected in (None, answer.status_code), (
            f"{method} {path}: {answer.status_code} {answer.text[:600]}"
        )
        return answer

    def close(self) -> None:
        """Close its connections."""
        self.http.close()


def fresh_name(prefix: str) -> str:
    """Return a name that nothing else has."""
    return f"{prefix}-{next(_numbers)}-{secrets.token_hex(3)}"


def package(name: str, version: str = "1.0.0", **manifest: Any) -> bytes:
    """Return the package of a small Python plugin."""
    document = {
        "name": name,
        "version": version,
        "pluginType": "custom",
        "entryPoint": "plugin.py",
        **manifest,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for filename, content in (("manifest.json", json.dumps(document)), ("plugin.py", PLUGIN)):
            archive.writestr(zipfile.ZipInfo(filename, (1980, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def upload(content: bytes) -> dict[str, Any]:
    """Return the options of a request that carries a package."""
    return {"data": {"source": "local"}, "files": {"file": ("plugin.zip", content, "application/zip")}}


def declared(content: bytes) -> dict[str, Any]:
    """Return the options of a request that declares a package to be uploaded."""
    digest = hashlib.sha256(content).hexdigest()
    return {"json": {"source": "local", "filename": "plugin.zip", "size": len(content), "sha256": digest}}


NO_UPSTREAMS = Upstreams("", "", "")
TOOL_KEY, SERVER_KEY = {"key": {"value": "s3cret"}}, {"bearer": {"token": "s3cret"}}

# A flow with a node that can be run alone.
SAYING = flow_builders.flow([flow_builders.start(), flow_builders.message(), flow_builders.end()])


@dataclass
class Tenant:
    """An app, its credentials by role, and ids by what they name: `private` and `shared` hold those of a plugin, the
    others those of a tool and of an MCP server."""

    alias: str
    canary: str
    apis: dict[str, Api]
    keys: dict[str, str]
    app: dict[str, str]
    private: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    private_tool: dict[str, str] = field(default_factory=dict)
    shared_tool: dict[str, str] = field(default_factory=dict)
    private_server: dict[str, str] = field(default_factory=dict)
    shared_server: dict[str, str] = field(default_factory=dict)
    thread: dict[str, str] = field(default_factory=dict)
    private_flow: dict[str, str] = field(default_factory=dict)
    upstreams: Upstreams = NO_UPSTREAMS
    marks: set[str] = field(default_factory=set)

    @property
    def admin(self) -> Api:
        """The API as this tenant's admin."""
        return self.apis["admin"]

    def install(self, name: str, **manifest: Any) -> dict[str, str]:
        """Install a plugin, enabled and with an earlier version to go back to; return its ids."""
        first = self.admin(
            "POST", "/api/v1/plugins/install", 201, **upload(package(name, "1.0.0", **manifest))
        )
        plugin_id = str(first.json()["pluginId"])
        path = f"/api/v1/plugins/{plugin_id}"
        self.admin("PUT", path, 200, **upload(package(name, "1.1.0", **manifest)))
        self.admin("POST", f"{path}/enable", 200)
        return {"pluginId": plugin_id, "pluginName": name, "version": "1.1.0"}

    def configure(self, plugin: dict[str, str], scope: str = "app") -> str:
        """Store a config of a plugin and return its id."""
        body = {"name": fresh_name("c"), "scope": scope, "configItems": {"word": self.canary}}
        path = f"/api/v1/plugins/{plugin['pluginId']}/configs"
        return str(self.admin("POST", path, 201, json=body).json()["configId"])

    def open_install(self) -> str:
        """Declare an upload that never comes and return the task's id."""
        answer = self.admin("POST", "/api/v1/plugins/install", 202, **declared(package(fresh_name("never"))))
        return str(answer.json()["installId"])

    def register_tool(self, name: str, *, description: str = "", shared: bool = False) -> dict[str, str]:
        """Register a tool with a credential for it, and return its ids."""
        body = {
            "name": name,
            "description": description,
            "openapi": self.upstreams.document(),
            "shared": shared,
        }
        tool_id = str(self.admin("POST", "/api/v1/tools", 201, json=body).json()["toolId"])
        self.admin("PUT", f"/api/v1/tools/{tool_id}/credentials", 200, json=TOOL_KEY)
        return {"toolId": tool_id, "version": "V1.0", "scheme": "key"}

    def register_server(self, name: str, *, description: str = "", shared: bool = False) -> dict[str, str]:
        """Register an MCP server with a credential for it, and return its ids."""
        body = {
            "name": name, "description": description, "url": self.upstreams.mcp, "shared": shared,
            "credentials": SERVER_KEY,
        }  # fmt: skip
        made = self.admin("POST", "/api/v1/mcp/servers", 201, json=body).json()
        return {"serverId": str(made["serverId"]), "toolName": "text", "scheme": "bearer"}

    def talk(self, message: str) -> str:
        """Say something to an agent and return the thread's id."""
        path = f"/api/v1/agents/{AGENT}/invoke"
        thread_id = str(self.apis["caller"]("POST", path, 200, json={"message": message}).json()["threadId"])
        self.marks.add(thread_id)
        return thread_id

    def begin_move(self) -> str:
        """Begin to move the agent's history to where it is not, ending a move that goes on; return its id."""
        path = f"/api/v1/agents/{AGENT}"
        for move in self.admin("GET", f"{path}/moves", 200).json()["items"]:
            if move["finishedAt"] is None:
                self.admin("DELETE", f"{path}/moves/{move['moveId']}", 200)
        now = self.admin("GET", path, 200).json()["historyMode"]
        target = "shared" if now == "independent" else "independent"
        return str(self.admin("POST", f"{path}/moves", 202, json={"target": target}).json()["moveId"])

    def register_flow(self, name: str, *, description: str = "") -> dict[str, str]:
        """Store a flow that is published as v1, has the comparison v9 and was run, and return its ids."""
        body = {"name": name, "description": description, "data": SAYING}
        flow_id = str(self.admin("POST", "/api/v1/flows", 201, json=body).json()["flowId"])
        self.admin("POST", f"/api/v1/flows/{flow_id}/publish", 200, json={"version": "v1"})
        self.admin("PUT", f"/api/v1/flows/{flow_id}/comparisons/v9", 200)
        run = self.admin("POST", f"/api/v1/flows/{flow_id}/runs", 200).json()
        return {"flowId": flow_id, "version": "v9", "runId": run["runId"], "nodeId": "message::1"}

    def close(self) -> None:
        """Close its connections."""
        for api in self.apis.values():
            api.close()


def new_credential(admin: Api, alias: str, role: str, **body: Any) -> tuple[str, dict[str, Any]]:
    """Add a credential; return it as it is sent, and its resource."""
    made = admin("POST", f"/api/v1/apps/{alias}/credentials", 201, json={"role": role, **body}).json()
    return f"{made['apiKey']}:{made['apiSecret']}", made


def new_tenant(stack: LocalStack, root: Api) -> Tenant:
    """Make an app with a credential for each role."""
    alias, canary = fresh_name("tenant"), f"canary{secrets.token_hex(8)}"
    app = root(
        "POST", "/api/v1/apps", 201, json={"aliasId": alias, "name": alias[:30], "description": canary}
    ).json()
    keys, marks, credential_id = {}, {canary}, ""
    for role in ROLES:
        keys[role], made = new_credential(root, alias, role, label=canary)
        credential_id = made["id"]
        marks |= {made["id"], made["apiKey"], made["apiSecret"]}
    apis = {role: Api(stack.url, key) for role, key in keys.items()}
    ids = {
        "aliasId": alias,
        "appName": app["name"],
        "credentialId": credential_id,
        "name": fresh_name("secret"),
    }
    return Tenant(alias, canary, apis, keys, ids, marks=marks)


def furnish(tenant: Tenant, upstreams: Upstreams) -> None:
    """Give a tenant one object of every kind, on what is its own alone and on what it shares."""
    tenant.upstreams = upstreams
    _furnish_plugins(tenant)
    _furnish_tools(tenant)
    _furnish_servers(tenant)
    tenant.thread = {"threadId": tenant.talk(tenant.canary)}
    _furnish_flows(tenant)


def _furnish_plugins(tenant: Tenant) -> None:
    secret = {"value": tenant.canary}
    tenant.admin("PUT", f"/api/v1/apps/{tenant.alias}/secrets/{tenant.app['name']}", 200, json=secret)
    tenant.private = tenant.install(fresh_name("private"), description=tenant.canary)
    tenant.shared = tenant.install(fresh_name("shared"))
    for plugin in (tenant.private, tenant.shared):
        path = f"/api/v1/plugins/{plugin['pluginId']}"
        plugin["configId"] = tenant.configure(plugin)
        plugin["globalConfigId"] = tenant.configure(plugin, "global") if plugin is tenant.private else ""
        run = tenant.apis["caller"]("POST", f"{path}/execute", 200, json={"params": {"word": tenant.canary}})
        plugin["executionId"] = run.json()["executionId"]
        plugin["installId"] = tenant.open_install()
        tenant.marks |= {plugin["configId"], plugin["executionId"], plugin["installId"]}
    path = f"/api/v1/plugins/{tenant.shared['pluginId']}"
    # What is global of a shared plugin is for everyone: it holds nothing private.
    shown = {"name": "for-all", "scope": "global", "configItems": {"word": "hello"}}
    tenant.shared["globalConfigId"] = tenant.admin("POST", f"{path}/configs", 201, json=shown).json()[
        "configId"
    ]
    tenant.admin("PATCH", path, 200, json={"visibility": "shared"})
    tenant.marks |= {tenant.private["pluginId"], tenant.private["pluginName"], tenant.app["name"]}
    tenant.marks.add(tenant.private["globalConfigId"])


def _furnish_tools(tenant: Tenant) -> None:
    name = fresh_name("private")
    tenant.private_tool = tenant.register_tool(name, description=tenant.canary)
    tenant.shared_tool = tenant.register_tool(fresh_name("shared"), shared=True)
    call = {"operationId": "getPet", "path": {"petId": 7}}
    for tool in (tenant.private_tool, tenant.shared_tool):
        run = tenant.apis["caller"]("POST", f"/api/v1/tools/{tool['toolId']}/run", 200, json=call)
        tenant.marks.add(run.json()["executionId"])
    tenant.marks |= {tenant.private_tool["toolId"], name}


def _furnish_servers(tenant: Tenant) -> None:
    name = fresh_name("private")
    tenant.private_server = tenant.register_server(name, description=tenant.canary)
    tenant.shared_server = tenant.register_server(fresh_name("shared"), shared=True)
    for server in (tenant.private_server, tenant.shared_server):
        path = f"/api/v1/mcp/servers/{server['serverId']}/tools/text/call"
        tenant.marks.add(tenant.apis["caller"]("POST", path, 200, json={}).json()["executionId"])
    tenant.marks |= {tenant.private_server["serverId"], name}


def _furnish_flows(tenant: Tenant) -> None:
    name = fresh_name("private")
    tenant.private_flow = tenant.register_flow(name, description=tenant.canary)
    tenant.marks |= {tenant.private_flow["flowId"], name}


def fail_install(stack: LocalStack, install_id: str, version: str | None = "v1") -> None:
    """Make a task end as failed, as the dead-letter queue does with a package that was delivered in vain; without a
    version, as of an event that named none."""
    named = {"key": f"incoming/tasks/{install_id}.zip"} | ({"versionId": version} if version else {})
    s3 = {"bucket": {"name": stack.bucket}, "object": named}
    body = {"Records": [{"eventName": "ObjectCreated:Post", "s3": s3}]}
    outcome = stack.invoke(
        "register_dead_letter", {"Records": [{"messageId": "1", "body": json.dumps(body)}]}
    )
    assert outcome.error is None, outcome.payload


def expired_credential(root: Api, stack: LocalStack, alias: str) -> str:
    """Return an admin's credential that has expired."""
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    key, _ = new_credential(root, alias, "admin", expiresAt=at)
    end = time.monotonic() + 10
    with closing(Api(stack.url, key)) as api:
        while api("GET", "/api/v1/me").status_code != 401:
            assert time.monotonic() < end, "the credential does not expire"
            time.sleep(0.1)
    return key
