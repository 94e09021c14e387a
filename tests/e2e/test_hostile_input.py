"""Whatever is sent, the answer is one that the API describes, and never an error of the server's own."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

from chalicelib.api.problem import PROBLEM
from infra.local.stack import LocalStack
from tests.e2e import tenants
from tests.e2e.conftest import calling
from tests.e2e.hostile import Hostile
from tests.e2e.hostile_requests import all_requests
from tests.e2e.tenants import Api, Tenant, fresh_name
from tests.least_privilege.watched import WatchedStack
from tests.tool_documents import document as tool_document
from tests.upstreams import Upstreams

REQUESTS = all_requests()
# Nothing of the inside: no path, no module, no statement.
INSIDE = re.compile(
    r"Traceback|chalicelib|/work|site-packages|sqlalchemy|SELECT |sqlite|pymysql|127\.0\.0\.1", re.I
)
# All but three. use_after_free: an install or a move that is deleted has ended, and stays to be looked at.
# positive_data_acceptance: a cursor, an entity tag and an Idempotency-Key can fit their schema and
# still be refused. object_level_authorization: test_access does that, with every role.
CHECKS = ",".join(
    (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
        "allow_header_conformance", "ensure_resource_availability", "ignored_auth",
    )
)  # fmt: skip
# A plugin or a server that is given a millisecond, or fails by itself, is an upstream that failed: 502 and 504 say so;
# one that keeps failing is left alone, which is 503.
CALLS_OUT = """
[checks.missing_required_header]
expected-statuses = ["400", "401", "403", "406", "415", "422", "428"]
""" + "".join(
    f"""
[[operations]]
include-path = "/api/v1/{path}"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]
"""
    for path in (
        "plugins/{pluginId}/execute", "tools/{toolId}/run", "tools/debug", "mcp/servers", "mcp/servers/{serverId}",
        "mcp/servers/{serverId}/tools/{toolName}/call", "agents/{agentName}/invoke",
    )
)  # fmt: skip
OF_TOOLS = """
[[operations]]
include-path-regex = "^/api/v1/tools/.*version"
parameters = { "path.version" = "V1.0" }

[[operations]]
include-path-regex = "^/api/v1/flows/.*version"
parameters = { "path.version" = "v9" }

[[operations]]
include-path = "/api/v1/mcp/servers/{serverId}/credentials/{scheme}"
parameters = { "path.scheme" = "bearer" }
"""
EXAMPLES = 8
SEED = "1"
# What would end the fuzzer's own credential, and all that follows would be 401.
LOCKS_ITSELF_OUT = frozenset({"apps_patch_app", "apps_delete_credential"})
# What would take away what the others are fuzzed with.
REMOVES = frozenset(
    {
        "plugins_uninstall_plugin", "apps_delete_app", "plugin_configs_delete_config", "tools_delete_tool",
        "tools_delete_version", "mcp_servers_delete_server", "tool_credentials_delete_tool_credentials",
        "tool_credentials_delete_server_credentials", "agent_threads_delete_thread", "agents_disable_agent",
        "flows_delete_flow", "flow_versions_delete_comparison", "flow_versions_take_flow_off",
    }
)  # fmt: skip
# A random body is no package, no manifest, no document, no server's address, no credential and no operation's
# arguments; an install that did not fail is not tried again, and a version that is live is not restored. Documents and
# arguments are made up below. It does not fuzz the document that it reads.
OUT_OF_REACH = {
    "GET /openapi.json",
    "PUT /api/v1/plugins/{pluginId}",
    "POST /api/v1/plugins/validate-manifest",
    "POST /api/v1/plugins/installs/{installId}/retry",
    "POST /api/v1/tools",
    "POST /api/v1/tools/debug",
    "POST /api/v1/tools/{toolId}/versions",
    "POST /api/v1/tools/{toolId}/versions/{version}/restore",
    "POST /api/v1/tools/{toolId}/run",
    "PUT /api/v1/tools/{toolId}/credentials",
    "POST /api/v1/mcp/servers",
    "PUT /api/v1/mcp/servers/{serverId}/credentials",
    # No move has this id. A draft is replaced by who has seen it, and what is random is no flow to be published.
    "GET /api/v1/agents/{agentName}/moves/{moveId}",
    "DELETE /api/v1/agents/{agentName}/moves/{moveId}",
    # It has ended; what is random names no input of the node.
    "POST /api/v1/runs/{runId}/resume",
    # Declared only to be 405 from the function, as MCP wants it.
    "GET /api/v1/mcp",
    "DELETE /api/v1/mcp",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams) -> Iterator[LocalStack]:
    """A stack of its own: a fuzzer with an admin's credential disables other tests' apps."""
    folder = tmp_path_factory.mktemp("hostile") / "local"
    with WatchedStack(folder, api_processes=2, schedules=False, environment=calling(upstreams)) as running:
        yield running


@pytest.fixture(scope="module")
def root(stack: LocalStack) -> Iterator[Api]:
    with closing(Api(stack.url, stack.admin_credential)) as api:
        yield api


@pytest.fixture
def tenant(stack: LocalStack, root: Api, upstreams: Upstreams) -> Iterator[Tenant]:
    with closing(tenants.new_tenant(stack, root)) as made:
        tenants.furnish(made, upstreams)
        yield made


# -- made up by hand ----------------------------------------------------------------------------------------------


def exchange(stack: LocalStack, request: Hostile, credential: str) -> tuple[int, dict[str, str], bytes]:
    """Send the bytes of one request; return (status, headers, body)."""
    address = urlsplit(stack.url)
    assert address.hostname is not None
    with closing(socket.create_connection((address.hostname, address.port or 80), timeout=40)) as line:
        line.sendall(request.as_bytes(credential))
        answer = http.client.HTTPResponse(line, method=request.method)
        answer.begin()
        with closing(answer):
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.name)
def test_what_no_honest_client_sends_is_refused_in_order(
    stack: LocalStack, root: Api, request_: Hostile
) -> None:
    status, headers, body = exchange(stack, request_, str(stack.admin_credential))
    text = body.decode()
    assert status in request_.statuses, text[:600]
    assert "set-cookie" not in headers
    if status == 405:
        assert headers["allow"]
    if request_.rpc and text:
        _check_rpc(json.loads(text))
        assert not INSIDE.search(text), text[:600]
        return
    if status < 400 or request_.method == "HEAD":
        return
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(text)
    jsonschema.Draft202012Validator(PROBLEM).validate(problem)
    assert (problem["status"], len(text) < 20_000) == (status, True)
    assert not INSIDE.search(text.replace(json.dumps(problem["instance"]), "")), text[:600]


def _check_rpc(answer: Any) -> None:
    for one in answer if isinstance(answer, list) else [answer]:
        assert one["jsonrpc"] == "2.0"
        assert ("result" in one) != ("error" in one), one
        if "error" in one:
            assert {type(one["error"]["code"]), type(one["error"]["message"])} == {int, str}
            # -32603 is the server's own failure.
            assert one["error"]["code"] != -32603, one


def test_the_names_of_the_requests_differ() -> None:
    assert len({one.name for one in REQUESTS}) == len(REQUESTS) > 200


def test_afterwards_nothing_is_stored(root: Api) -> None:
    assert root("GET", "/api/v1/apps/hostile").status_code == 404
    assert root("GET", "/api/v1/apps/h-i").status_code == 404
    for path in ("/api/v1/tools", "/api/v1/mcp/servers"):
        assert root("GET", path, 200).json()["items"] == []


# -- made up by hypothesis ------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["petId", "fields", "X-Trace", "session", "filter", "name", "tags", "", "__proto__"])
GROUP = st.dictionaries(NAMES | st.text(max_size=8), VALUES, max_size=5)
ARGUMENTS = st.fixed_dictionaries(
    {"path": st.fixed_dictionaries({"petId": st.integers() | VALUES})},
    optional={"query": GROUP, "header": GROUP, "cookie": GROUP, "body": VALUES | GROUP},
)
# Every style of a parameter, and a body with a part for the model and a part for the business.
STYLES = {
    "at": ("post", "/pets/{petId}/notes"),
    "parameters": [
        {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}},
        {
            "name": "fields",
            "in": "query",
            "schema": {"type": "array"},
            "style": "pipeDelimited",
            "explode": False,
        },
        {"name": "filter", "in": "query", "schema": {"type": "object"}, "style": "deepObject"},
        {"name": "X-Trace", "in": "header", "schema": {"type": "string"}, "x-from": 1},
        {"name": "session", "in": "cookie", "schema": {}},
    ],
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 10},
                        "tags": {"type": "array", "items": {"type": "string"}, "x-from": 1},
                    },
                }
            }
        }
    },
}
FUZZED = hypothesis.settings(
    max_examples=80,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def fuzzed_tool(root: Api, upstreams: Upstreams) -> Iterator[tuple[str, dict[str, Any]]]:
    """A tool with `getPet` and `addNote`; its id and its document."""
    described = tool_document(upstreams.api, addNote=deepcopy(STYLES))
    made = root("POST", "/api/v1/tools", 201, json={"name": "Fuzzed", "openapi": described}).json()
    yield made["toolId"], described
    root("DELETE", f"/api/v1/tools/{made['toolId']}", 204)


def conforms(root: Api, path: str, answer: httpx.Response, statuses: set[int]) -> None:
    """Check an answer against what the document says of it."""
    assert answer.status_code in statuses, answer.text[:600]
    document = root("GET", "/openapi.json", 200).json()
    described = document["paths"][path]["post"]["responses"][str(answer.status_code)]
    [content] = described["content"].values()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    assert not INSIDE.search(answer.text.replace(json.dumps(answer.json().get("upstream", {})), ""))


@FUZZED
@hypothesis.given(arguments=ARGUMENTS, operation=st.sampled_from(["getPet", "addNote"]), strict=st.booleans())
def test_whatever_a_caller_gives_a_tool_is_called_or_refused_in_order(
    root: Api,
    fuzzed_tool: tuple[str, dict[str, Any]],
    arguments: dict[str, Any],
    operation: str,
    strict: bool,
) -> None:
    tool, described = fuzzed_tool
    body = {"operationId": operation, **arguments, "options": {"strict": strict, "repairNulls": strict}}
    ran = root("POST", f"/api/v1/tools/{tool}/run", json=body)
    # 400: an integer of more than 64 bits is no JSON that two parsers read alike.
    conforms(root, "/api/v1/tools/{toolId}/run", ran, {200, 400, 422})
    debugged = root("POST", "/api/v1/tools/debug", json={"openapi": described, **body})
    conforms(root, "/api/v1/tools/debug", debugged, {200, 400, 422})
    # Registered or not, the same arguments are answered alike.
    assert (debugged.status_code, debugged.json().get("code")) == (ran.status_code, ran.json().get("code"))
    assert ran.status_code != 400 or ran.json()["code"] == "request.json"
    assert debugged.json().get("errors") == ran.json().get("errors")


@pytest.mark.parametrize(
    "since",
    ["yesterday", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", "\u0661", "0001-01-01T00:00:00+23:59"],
)
def test_a_time_that_is_none(root: Api, fuzzed_tool: tuple[str, dict[str, Any]], since: str) -> None:
    answer = root("GET", f"/api/v1/tools/{fuzzed_tool[0]}/executions", params={"since": since})
    assert (answer.status_code, INSIDE.search(answer.text)) == (400, None)


@FUZZED
@hypothesis.given(
    arguments=ARGUMENTS | VALUES,
    business=ARGUMENTS | VALUES,
    name=st.sampled_from(["tool_Fuzzed_getPet", "tool_Fuzzed_addNote"]),
)
def test_whatever_a_model_gives_a_tool_is_told_to_it(
    root: Api, fuzzed_tool: tuple[str, dict[str, Any]], arguments: Any, business: Any, name: str
) -> None:
    params = {"name": name, "arguments": arguments, "_meta": {"hotplug/arguments": business}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = root("POST", "/api/v1/mcp", json=message)
    assert answer.status_code in (200, 400)
    _check_rpc(answer.json())
    assert not INSIDE.search(answer.text)


# -- made up by schemathesis -----------------------------------------------------------------------------------------


def run_schemathesis(
    stack: LocalStack, credential: str, folder: Path, config: str, *options: str
) -> tuple[int, str, dict[str, set[int]]]:
    """Run it on the served document; return (exit status, output, statuses seen by operation)."""
    settings, report = folder / "schemathesis.toml", folder / "report.har"
    settings.write_text(f"[cache]\nenabled = false\n{config}{CALLS_OUT}")
    command = [
        sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(settings), "run",
        f"{stack.url}/openapi.json", "-H", f"Authorization: Bearer {credential}", "--checks", CHECKS,
        "--seed", SEED, "--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-shrink",
        "--continue-on-failure", "--report-har-path", str(report), *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr, _statuses(report)


def _statuses(report: Path) -> dict[str, set[int]]:
    seen = defaultdict(set)
    for entry in json.loads(report.read_text())["log"]["entries"]:
        method, path = entry["request"]["method"], unquote(urlsplit(entry["request"]["url"]).path)
        seen[f"{method} {path}"].add(int(entry["response"]["status"]))
    return seen


@pytest.mark.slow
def test_nothing_that_is_sent_about_what_exists_makes_the_server_fail(
    stack: LocalStack, root: Api, tenant: Tenant, tmp_path: Path
) -> None:
    # GIVEN ids of what exists, so that requests get as far as they can
    alias = fresh_name("fuzzed")
    root("POST", "/api/v1/apps", 201, json={"aliasId": alias, "name": "Fuzzed"})
    _, spare = tenants.new_credential(root, alias, "viewer")
    ids = tenant.private
    pinned = {
        "aliasId": alias, "pluginId": ids["pluginId"], "configId": ids["configId"], "version": ids["version"],
        "executionId": ids["executionId"], "installId": ids["installId"], "job": "sweep", "name": "SECRET",
        "credentialId": spare["id"], "toolId": tenant.private_tool["toolId"], "scheme": "key",
        "serverId": tenant.private_server["serverId"], "toolName": "text", "agentName": tenants.AGENT,
        "threadId": tenant.thread["threadId"], "moveId": "0" * 26, "table": "agentflow_shared_analytics_events",
        "flowId": tenant.private_flow["flowId"], "nodeId": tenant.private_flow["nodeId"],
        "runId": tenant.private_flow["runId"],
    }  # fmt: skip
    config = "[parameters]\n" + "".join(f'"path.{name}" = "{value}"\n' for name, value in pinned.items())
    config += OF_TOOLS
    # WHEN everything but removing them is fuzzed
    options = (*_without(REMOVES), "--phases", "coverage,fuzzing")
    status, output, seen = run_schemathesis(stack, tenant.keys["admin"], tmp_path, config, *options)
    assert status == 0, output[-20_000:]
    # THEN it was no knocking at closed doors
    document: dict[str, Any] = root("GET", "/openapi.json", 200).json()
    refused = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["operationId"] not in REMOVES
        and not any(code < 400 for code in seen[f"{method.upper()} {_filled(path, pinned)}"])
    }
    assert refused <= OUT_OF_REACH


def _filled(path: str, pinned: dict[str, str]) -> str:
    if path.startswith("/api/v1/tools"):
        return path.format_map({**pinned, "version": "V1.0"})
    if path.startswith("/api/v1/flows"):
        return path.format_map({**pinned, "version": "v9"})
    return path.format_map({**pinned, "scheme": "bearer"} if path.startswith("/api/v1/mcp") else pinned)


def _without(operations: frozenset[str]) -> list[str]:
    return [word for name in sorted(operations) for word in ("--exclude-operation-id", name)]


# The last one: as an admin it deletes the app of the stack's first admin.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "phases"),
    # The cases that cover each schema are the same whoever sends them, and most of what they are about is behind the
    # roles: the admin sends them. What is made up and what follows from an answer is another's with each role.
    [("publisher", "fuzzing,stateful"), ("admin", "coverage,fuzzing,stateful")],
    ids=["publisher", "admin"],
)
def test_nothing_that_fits_the_document_or_breaks_it_makes_the_server_fail(
    stack: LocalStack, tenant: Tenant, tmp_path: Path, role: str, phases: str
) -> None:
    options = (*_without(LOCKS_ITSELF_OUT), "--phases", phases)
    status, output, _ = run_schemathesis(stack, tenant.keys[role], tmp_path, "", *options)
    assert status == 0, output[-20_000:]
    tenant.apis[role]("GET", "/api/v1/me", 200)
