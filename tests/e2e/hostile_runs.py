"""What no honest client says about a run of a flow, and what it must be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.hostile import Hostile

JSON = (("Content-Type", "application/json"),)
FLOWS, RUNS = "/api/v1/flows", "/api/v1/runs"
NOBODYS = f"{FLOWS}/1"
RUN = f"{RUNS}/{'0' * 26}"


def run_requests() -> Iterator[Hostile]:
    """Return the requests about runs, each under a name of its own."""
    yield from _paths()
    yield from _queries()
    yield from _starting()
    yield from _answers()
    yield from _tools()


def _sent(name: str, statuses: set[int], target: str, body: Any, **more: Any) -> Hostile:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"headers": JSON, **more}
    return Hostile(f"run: {name}", frozenset(statuses), "POST", target=target, body=content, **given)


def _paths() -> Iterator[Hostile]:
    for name, target in {
        "one that is none": RUN,
        "a short id": f"{RUNS}/1",
        "a long id": f"{RUNS}/{'0' * 27}",
        "a number": f"{RUNS}/9223372036854775807",
        "lower case": f"{RUNS}/{'a' * 26}",
        "letters that no id has": f"{RUNS}/{'I' * 26}",
        "other digits": f"{RUNS}/{'%D9%A1' * 26}",
        "nul": f"{RUN}%00",
        "traversal": f"{RUNS}/..%2fflows",
        "dots": f"{RUNS}/%2e%2e",
        "a statement": f"{RUNS}/x'%20OR%20'1'='1",
        "a template": f"{RUNS}/{{runId}}",
        "a line feed": f"{RUN}%0a",
        "nodes of none": f"{RUN}/nodes",
        "events of none": f"{RUN}/events",
        "events of none, waited for": f"{RUN}/events?waitSeconds=25",
        "below the events": f"{RUN}/events/1",
        "the whole list": RUNS,
        "runs of a name": f"{FLOWS}/greeter/runs",
        "runs below zero": f"{FLOWS}/-1/runs",
        "runs above 64 bits": f"{FLOWS}/9999999999999999999/runs",
        "runs of a fraction": f"{FLOWS}/1.5/runs",
    }.items():
        yield Hostile(f"run path: {name}", frozenset({404}), target=target)
    for verb, body in (("cancel", {}), ("resume", {"eventId": "e", "action": "abort"})):
        for name, target in {"none": RUN, "nul": f"{RUN}%00", "a statement": f"{RUNS}/x'--"}.items():
            yield _sent(f"{verb} of {name}", {404}, f"{target}/{verb}", body)
    for method, target in (
        ("PUT", RUN),
        ("PATCH", RUN),
        ("DELETE", RUN),
        ("DELETE", f"{RUN}/events"),
        ("PUT", f"{NOBODYS}/runs"),
        ("DELETE", f"{NOBODYS}/runs"),
    ):
        yield Hostile(f"run method: {method} {target}", frozenset({405}), method, target=target)


def _queries() -> Iterator[Hostile]:
    for query in (
        "limit=0",
        "limit=101",
        "limit=1e2",
        "cursor=",
        "cursor=AAAA",
        "limit=1&limit=2",
        "appId=1",
    ):
        # A cursor is looked at once it is known whose it is.
        statuses = frozenset({404 if query == "cursor=AAAA" else 400})
        yield Hostile(f"run query: nodes {query}", statuses, target=f"{RUN}/nodes?{query}")
        yield Hostile(f"run query: list {query}", statuses, target=f"{NOBODYS}/runs?{query}")
    for query in (
        "after=-1", "after=1.5", "after=x", "after=", "after=2147483648", "after=%D9%A1", "after=1&after=2",
        "waitSeconds=26", "waitSeconds=-1", "waitSeconds=Infinity", "waitSeconds=1e1", "seq=1",
    ):  # fmt: skip
        yield Hostile(f"run query: events {query}", frozenset({400}), target=f"{RUN}/events?{query}")


def _starting() -> Iterator[Hostile]:
    target = f"{NOBODYS}/runs"
    asked: dict[str, Any] = {
        "parameters that are a list": {"parameters": []},
        "parameters that are null": {"parameters": None},
        "a mode that is none": {"mode": "eternal"},
        "a mode in a list": {"mode": ["express"]},
        "to wait for too long": {"waitSeconds": 26},
        "to wait a fraction": {"waitSeconds": 0.5},
        "to wait less than nothing": {"waitSeconds": -1},
        "to wait a text": {"waitSeconds": "25"},
        "to wait for true": {"waitSeconds": True},
        "a user of nul": {"uid": "a\0b"},
        "a user with a line feed": {"uid": "a\n"},
        "a long user": {"uid": "u" * 256},
        "a user that is a number": {"uid": 7},
        "a long chat": {"chatId": "c" * 256},
        "a history that is a text": {"history": "false"},
        "an app": {"appId": "1"},
        "a run id": {"runId": "0" * 26},
        "a state": {"state": "succeeded"},
        "a callback to a file": {"callbackUrl": "file:///etc/passwd"},
        "a callback that is a script": {"callbackUrl": "javascript:alert(1)"},
        "an empty callback": {"callbackUrl": ""},
        "a long callback": {"callbackUrl": "http://h.example/" + "x" * 2048},
        "a callback that is a list": {"callbackUrl": ["http://h.example/"]},
    }
    for name, body in asked.items():
        yield _sent(f"start with {name}", {422}, target, body)
        yield _sent(f"draft with {name}", {422}, f"{NOBODYS}/debug-runs", body)
    for version in ("latest", "", "v1.2.3.4.5", "v-1", "\u0661", 1, "v1; DROP TABLE flow"):
        yield _sent(f"start version {version!r}", {422}, target, {"version": version})
    yield _sent("a draft's version", {422}, f"{NOBODYS}/debug-runs", {"version": "v1"})
    yield _sent("start a flow that is none", {404}, target, {"parameters": {"query": "x"}})
    yield _sent("draft of a flow that is none", {404}, f"{NOBODYS}/debug-runs", {})
    yield _sent("start with nothing but a list", {422}, target, [])
    yield _sent("start with a number", {422}, target, 1)
    yield _sent("start with no JSON", {400}, target, b"{parameters: 1}")
    yield _sent("start with a name twice", {400}, target, b'{"mode": "express", "mode": "durable"}')
    yield _sent("start with what is no number", {400}, target, b'{"parameters": {"a": NaN}}')
    yield _sent("start deep", {400}, target, b'{"parameters": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001)
    yield _sent("start with two megabytes", {413}, target, {"parameters": {"a": "x" * 2_000_000}})
    half = b'{"parameters": {"a": "\\ud800"}}'
    yield _sent("start with half a character", {400, 404, 422}, target, half)
    doubled = ",".join(f'"a{number}":1,"a{number}":2' for number in range(10))
    below = f'{{"{"k" * 400_000}": {{{doubled}}}}}'.encode()
    yield _sent("start with ten mistakes below a long name", {400}, target, below)
    yield _sent("start as text", {415}, target, b"{}", headers=(("Content-Type", "text/plain"),))
    yield _sent("start with a long key", {400}, target, {}, headers=(*JSON, ("Idempotency-Key", "k" * 300)))
    debug = f"{NOBODYS}/nodes/code::1/debug"
    for name, body in {
        "inputs that are a list": {"inputs": []},
        "parameters": {"parameters": {}},
        "a callback": {"callbackUrl": "http://h.example/"},
        "code": {"code": "import os"},
    }.items():
        yield _sent(f"node with {name}", {422}, debug, body)
    for name, node in {"traversal": "..%2f1", "nul": "code::1%00", "a long id": "c" * 300}.items():
        yield _sent(f"node: {name}", {404}, f"{NOBODYS}/nodes/{node}/debug", {})


def _answers() -> Iterator[Hostile]:
    target = f"{RUN}/resume"
    for name, body in {
        "nothing": {},
        "no event": {"action": "resume"},
        "an empty event": {"eventId": "", "action": "resume"},
        "a long event": {"eventId": "e" * 129, "action": "resume"},
        "a number for the event": {"eventId": 1, "action": "resume"},
        "no action": {"eventId": "e"},
        "another action": {"eventId": "e", "action": "expired"},
        "an action in capitals": {"eventId": "e", "action": "RESUME"},
        "the service's own id": {"eventId": "e", "action": "resume", "callbackId": "c"},
        "to wait for too long": {"eventId": "e", "action": "resume", "waitSeconds": 26},
    }.items():
        yield _sent(f"answer with {name}", {422}, target, body)
    yield _sent("answer with no body", {400, 415, 422}, target, b"", headers=())
    large = {"eventId": "e", "action": "resume", "content": "x" * 2_000_000}
    yield _sent("answer with two megabytes", {413}, target, large)
    yield _sent("answer with 300 KB", {404, 413}, target, {**large, "content": "x" * 300_000})
    half = b'{"eventId": "e", "action": "resume", "content": "\\udfff"}'
    yield _sent("answer with half a character", {400, 404, 422}, target, half)
    yield _sent("cancel with a reason", {422}, f"{RUN}/cancel", {"reason": "x"})
    yield _sent("cancel with a list", {422}, f"{RUN}/cancel", [])


def _tools() -> Iterator[Hostile]:
    for name in ("flow_", "flow_..", "flow_1", "flow_' OR '1'='1", "flow_\0", "flow_" + "x" * 2000, "flow"):
        params = {"name": name, "arguments": {"callbackUrl": "http://169.254.169.254/"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        yield _sent(f"as a tool {name[:20]!r}", {200}, "/api/v1/mcp", message, rpc=True)
