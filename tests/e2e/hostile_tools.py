"""What no honest client registers, calls or says over MCP, and what it must be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.hostile import Hostile
from tests.tool_documents import document

JSON = (("Content-Type", "application/json"),)
TOOLS, DEBUG, SERVERS, MCP = "/api/v1/tools", "/api/v1/tools/debug", "/api/v1/mcp/servers", "/api/v1/mcp"
TOOL, SERVER = f"{TOOLS}/tool@nothing", f"{SERVERS}/mcp@nothing"
# Where a function of the cloud finds its credentials, and what is inside.
INSIDE = (
    "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials", "http://[fd00:ec2::254]/",
    "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next", "http://localhost/", "http://10.0.0.1/",
    "http://[::ffff:127.0.0.1]/", "http://[::1]/", "http://0.0.0.0/", "http://2130706433/", "http://0x7f.1/",
    "http://127.1/", "http://[64:ff9b::7f00:1]/", "http://100.64.0.1/",
)  # fmt: skip


def tool_requests() -> Iterator[Hostile]:
    """Return the requests about tools, MCP servers and MCP, each under a name of its own."""
    yield from _paths()
    yield from _documents()
    yield from _addresses()
    yield from _bodies()
    yield from _messages()


def _sent(name: str, statuses: set[int], target: str, body: Any, method: str = "POST") -> Hostile:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Hostile(name, frozenset(statuses), method, target=target, headers=JSON, body=content)


def _paths() -> Iterator[Hostile]:
    for name, target in {
        "traversal": f"{TOOLS}/..%2f..%2fetc%2fpasswd",
        "nul": f"{TOOLS}/tool@a%00",
        "a line feed": f"{TOOLS}/tool@a%0a",
        "an encoded at, twice": f"{TOOLS}/tool%2540a",
        "letters that look alike": f"{TOOLS}/tool@%EF%BD%81",
        "a server's id": f"{TOOLS}/mcp@a",
        "a long id": f"{TOOLS}/tool@{'a' * 28}",
        "a tool's id": f"{SERVERS}/tool@a",
        "a long server's id": f"{SERVERS}/mcp@{'a' * 29}",
        "a template": f"{TOOLS}/{{toolId}}",
    }.items():
        yield Hostile(f"tool path: {name}", frozenset({404}), target=target)
    for name, target in {
        "a version of letters": f"{TOOL}/versions/abc",
        "a version of five": f"{TOOL}/versions/1.2.3.4.5",
        "a version of dots": f"{TOOL}/versions/..",
        "a scheme of nul": f"{TOOL}/credentials/a%00",
        "a long scheme": f"{TOOL}/credentials/{'a' * 65}",
    }.items():
        yield Hostile(f"tool path: {name}", frozenset({404}), "DELETE", target=target)
    for query in (
        "version=abc",
        "version=1&version=2",
        "version=",
        "version=%D9%A1",
        "document=yes",
        "document=",
    ):
        yield Hostile(f"tool query: {query}", frozenset({400}), target=f"{TOOL}?{query}")
    yield Hostile("tool query: outcome=none", frozenset({400}), target=f"{TOOL}/executions?outcome=none")
    # Looked at once the tool is found, which it is not.
    for query in ("since=yesterday", "since=2026-02-30T00:00:00Z", "since=0001-01-01T00:00:00%2B23:59"):
        yield Hostile(f"tool query: {query}", frozenset({404}), target=f"{TOOL}/executions?{query}")
    for name in ("a%20b", "%2e%2e", "a%2fb", "%F0%9F%92%A9", "a" * 129, "%00"):
        target = f"{SERVER}/tools/{name}/call"
        yield _sent(f"a server's tool: {name[:20]}", {404}, target, {})


def _documents() -> Iterator[Hostile]:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(90):
        deep = {"type": "array", "items": deep}
    looped = document()
    looped["components"]["schemas"]["Pet"] = {"$ref": "#/components/schemas/Pet"}
    texts: dict[str, Any] = {
        "empty": "",
        "a list": "[]",
        "two documents": "--- {}\n--- {}\n",
        "ten billion laughs": "a: &a [x,x]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(12)
        ),
        "an alias of itself": "a: &a [*a]",
        "an object": "!!python/object/apply:os.system ['true']",
        "deep yaml": "[" * 50_000,
        "deep indentation": "".join(f"{' ' * n}a:\n" for n in range(2000)),
        "a long number": "a: " + "9" * 50_000,
        "a number in base sixty": "a: " + "1:" * 20_000 + "1",
        "the same key twice": "openapi: 3.1.0\nopenapi: 3.0.0",
        "nul": "openapi: \u0000",
        "a merge of itself": "a: &a\n  <<: *a\n",
        "keys that are no text": "1: a\ntrue: b\n[a]: c",
    }
    for name, text in texts.items():
        body = {"name": "x", "openapi": text}
        yield _sent(f"document: {name}", {422}, TOOLS, body)
        yield _sent(f"document to debug: {name}", {422}, DEBUG, {"openapi": text, "operationId": "a"})
    changed: dict[str, Any] = {
        "nothing in it": {},
        "swagger": {"swagger": "2.0"},
        "a version to come": {**document(), "openapi": "4.0.0"},
        "no servers": {**document(), "servers": []},
        "a relative server": {**document(), "servers": [{"url": "/v1"}]},
        "a file": document("file:///etc/passwd"),
        "gopher": document("gopher://a.example/"),
        "a user in the host": document("https://user:pass@api.example"),
        "a server with a line feed": document("https://api.example/\r\nX-A: b"),
        "a remote reference": {
            **document(),
            "components": {"schemas": {"Pet": {"$ref": "http://169.254.169.254/"}}},
        },
        "a reference to a file": {
            **document(),
            "components": {"schemas": {"Pet": {"$ref": "file:///etc/passwd"}}},
        },
        "a reference to itself": looped,
        "paths that are a list": {**document(), "paths": []},
    }
    for name, openapi in changed.items():
        yield _sent(f"document: {name}", {422}, TOOLS, {"name": "x", "openapi": openapi})
    many = [{"name": "x", "openapi": {}}] * 21
    yield _sent("document: twenty-one", {422}, TOOLS, {"tools": many})
    yield _sent("document: twenty bad ones", {422}, TOOLS, {"tools": many[:20]})
    yield _sent("document: deep", {400, 422}, TOOLS, {"name": "x", "openapi": {"a": deep}})
    yield _sent("document: 6 MB", {413}, TOOLS, {"name": "x", "openapi": "a" * 6_000_000})


def _addresses() -> Iterator[Hostile]:
    for url in INSIDE:
        call = {"openapi": document(url.rstrip("/")), "operationId": "getPet", "path": {"petId": 7}}
        # Refused as an address, or already as a URL that no server can have.
        yield _sent(f"debug at {url}", {403, 422}, DEBUG, call)
        yield _sent(f"a server at {url}", {403, 422}, SERVERS, {"name": "x", "url": url})
    for name, url in {
        "no host": "http://",
        "another scheme": "ftp://a.example/",
        "a user": "http://user:pass@a.example/",
        "a line feed": "http://a.example/\r\nX-A: b",
        "nul": "http://a.example/\u0000",
        "a long one": "http://a.example/" + "a" * 250,
        "a port that is none": "http://a.example:99999/",
        "a bracket": "http://[a/",
        "beyond ascii": "http://\u2603.example/\ud83d\ude00",
        "a space": "http://a b/",
    }.items():
        yield _sent(f"a server's url: {name}", {422, 502}, SERVERS, {"name": "x", "url": url})


def _bodies() -> Iterator[Hostile]:
    good = document()
    for name, body in {
        "no name": {"openapi": good},
        "a name of nul": {"name": "a\u0000", "openapi": good},
        "a long name": {"name": "a" * 129, "openapi": good},
        "a long description": {"name": "a", "description": "a" * 513, "openapi": good},
        "more than known": {"name": "a", "openapi": good, "toolId": "tool@mine"},
        "shared by 1": {"name": "a", "openapi": good, "shared": 1},
        "tools and one": {"tools": [], "name": "a", "openapi": good},
        "a number for a document": {"name": "a", "openapi": 1},
    }.items():
        yield _sent(f"tool: {name}", {422}, TOOLS, body)
    for name, body in {
        "an unknown operation": {"openapi": good, "operationId": "nope"},
        "a prototype": {"openapi": good, "operationId": "__proto__"},
        "no operation": {"openapi": good},
        "a path that leaves": {"openapi": good, "operationId": "getPet", "path": {"petId": "../../x"}},
        "a list for a group": {"openapi": good, "operationId": "getPet", "path": []},
        "unknown credentials": {
            "openapi": good, "operationId": "getPet", "path": {"petId": 1}, "credentials": {"a": {"value": "x"}},
        },
        "no time": {"openapi": good, "operationId": "getPet", "path": {"petId": 1}, "options": {"timeoutMs": 0}},
        "for ever": {"openapi": good, "operationId": "getPet", "path": {"petId": 1}, "options": {"timeoutMs": 1e9}},
    }.items():  # fmt: skip
        yield _sent(f"debug: {name}", {422}, DEBUG, body)
    for target, method in (
        (f"{TOOL}/run", "POST"),
        (f"{TOOL}/credentials", "PUT"),
        (f"{SERVER}/credentials", "PUT"),
    ):
        for name, content in {
            "cut off": b"{",
            "deep": b"[" * 100_000,
            "nan": b'{"a": NaN}',
            "a list": b"[]",
        }.items():
            statuses = {422} if name == "a list" else {400}
            yield _sent(f"{method} {target}: {name}", statuses, target, content, method)
    yield _sent("run: 6 MB", {413}, f"{TOOL}/run", {"operationId": "a", "body": "a" * 6_000_000})
    yield _sent("call: 2 MB", {413}, f"{SERVER}/tools/a/call", {"arguments": {"a": "a" * 2_000_000}})


def _messages() -> Iterator[Hostile]:
    def rpc(**members: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, **members}

    told = {
        "another version": {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        "no method": rpc(),
        "a number for a method": rpc(method=1),
        "an unknown method": rpc(method="tools/delete"),
        "a method of nul": rpc(method="tools/list\u0000"),
        "params that are a list": rpc(method="tools/list", params=[1]),
        "a cursor that is none": rpc(method="tools/list", params={"cursor": "AAAA"}),
        "a cursor of another type": rpc(method="tools/list", params={"cursor": 1}),
        "a tool that is none": rpc(method="tools/call", params={"name": "tool_nope", "arguments": {}}),
        "a tool of nul": rpc(method="tools/call", params={"name": "\u0000", "arguments": {}}),
        "a long tool": rpc(method="tools/call", params={"name": "a" * 100_000, "arguments": {}}),
        "no tool": rpc(method="tools/call", params={}),
        "arguments that are a list": rpc(method="tools/call", params={"name": "a", "arguments": []}),
        "an id that is an object": {"jsonrpc": "2.0", "id": {}, "method": "ping"},
        "an id beyond 64 bits": {"jsonrpc": "2.0", "id": 10**30, "method": "ping"},
        "a bad handshake": rpc(method="initialize", params={"protocolVersion": 1}),
        "a version to come": rpc(method="initialize", params={"protocolVersion": "9999-01-01"}),
        "an answer": {"jsonrpc": "2.0", "id": 1, "result": {}},
        "an empty batch": [],
        "a batch of nothing": [1, None, "a"],
        "a big batch": [rpc(method="ping")] * 2000,
        "a batch in a batch": [[rpc(method="ping")]],
        "meta that is a list": rpc(method="tools/call", params={"name": "a", "_meta": []}),
    }  # fmt: skip
    for name, message in told.items():
        yield _message(name, json.dumps(message).encode())
    for name, content in {
        "cut off": b'{"jsonrpc": "2.0"',
        "deep": b"[" * 100_000,
        "nan": b'{"jsonrpc": "2.0", "id": NaN, "method": "ping"}',
        "twice the same key": b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "method": "tools/list"}',
        "a long number": b'{"jsonrpc": "2.0", "id": ' + b"9" * 10_000 + b', "method": "ping"}',
        "a lone surrogate": b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}',
        "broken utf-8": b'{"jsonrpc": "2.0", "id": "\xff", "method": "ping"}',
        "nothing": b"",
    }.items():
        yield _message(name, content)


def _message(name: str, content: bytes) -> Hostile:
    # JSON-RPC answers in its own way: an error in an envelope, under 200 or 400, or nothing under 202.
    return Hostile(f"mcp: {name}", frozenset({200, 202, 400, 404, 413}), "POST", MCP, JSON, content, rpc=True)
