"""What no honest client says to an agent, or asks about one, and what it must be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.hostile import Hostile

JSON = (("Content-Type", "application/json"),)
AGENTS = "/api/v1/agents"
QA = f"{AGENTS}/common_qa"


def agent_requests() -> Iterator[Hostile]:
    """Return the requests about agents, each under a name of its own."""
    yield from _paths()
    yield from _messages()
    yield from _decisions()


def _sent(name: str, statuses: set[int], target: str, body: Any, method: str = "POST") -> Hostile:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Hostile(f"agent: {name}", frozenset(statuses), method, target=target, headers=JSON, body=content)


def _paths() -> Iterator[Hostile]:
    for name, target in {
        "traversal": f"{AGENTS}/..%2fcore",
        "a python package that is none": f"{AGENTS}/loading",
        "a private name": f"{AGENTS}/__pycache__",
        "the shared tables' owner": f"{AGENTS}/shared",
        "nul": f"{AGENTS}/common_qa%00",
        "upper case": f"{AGENTS}/Common_QA",
        "a long name": f"{AGENTS}/{'a' * 64}",
        "a template": f"{AGENTS}/{{agentName}}",
        "a thread of dots": f"{QA}/threads/../messages",
        "a thread of encoded dots": f"{QA}/threads/%2e%2e/messages",
        "a long thread": f"{QA}/threads/{'a' * 256}/messages",
        "a thread of nul": f"{QA}/threads/a%00/messages",
        "a statement": f"{QA}/threads/x'%20OR%20'1'='1/messages",
        "a thread that is none": f"{QA}/threads/nothing/messages",
        "a move that is none": f"{QA}/moves/{'0' * 26}",
        "a short move": f"{QA}/moves/1",
    }.items():
        yield Hostile(f"agent path: {name}", frozenset({404}), target=target)
    for query in ("limit=0", "limit=101", "cursor=", "cursor=AAAA", "agent_name=cmdb", "app_id=1"):
        yield Hostile(f"agent query: threads {query}", frozenset({400}), target=f"{QA}/threads?{query}")
        yield Hostile(f"agent query: tables {query}", frozenset({400}), target=f"{AGENTS}/tables?{query}")
    for table in ("t_plugin", "agentflow_nothing", "app_credential", "agentflow_x';DROP", "mysql.user"):
        yield _sent(f"retention of {table}", {404}, f"{AGENTS}/tables/{table}", {"retainDays": 1}, "PATCH")


def _messages() -> Iterator[Hostile]:
    target = f"{QA}/invoke"
    for name, body in {
        "no message": {},
        "an empty message": {"message": ""},
        "a number": {"message": 7},
        "a message of nul": {"message": "a\0b"},
        "a long message": {"message": "a" * 100_001},
        "a thread of dots": {"message": "a", "threadId": ".."},
        "a thread with a line feed": {"message": "a", "threadId": "a\n"},
        "an empty thread": {"message": "a", "threadId": ""},
        "a long thread": {"message": "a", "threadId": "a" * 256},
        "another's agent_name": {"message": "a", "agent_name": "cmdb"},
        "an app": {"message": "a", "appId": 1},
        "a context that is a list": {"message": "a", "context": []},
    }.items():
        yield _sent(name, {422}, target, body)
    yield _sent("half a character", {400, 422}, target, b'{"message": "\\ud800"}')
    yield _sent(
        "half a character in the context",
        {400, 422},
        target,
        b'{"message": "a", "context": {"a": "\\udfff"}}',
    )
    yield _sent("not a number", {400}, target, b'{"message": "a", "context": {"a": NaN}}')
    yield _sent("deep", {400}, target, b'{"message": "a", "context": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001)
    yield _sent("two megabytes", {413}, target, {"message": "a", "context": {"a": "x" * 2_000_000}})
    # What would be syntax in a search index, or a statement: answered like any other question.
    for name, message in {
        "a quotation mark": '"',
        "search syntax": 'NEAR("a" "b", 5) OR * AND col:x ^',
        "a statement": "'; DROP TABLE agent; --",
        "only marks": "?!*()-+\"'",
        "other letters": "\u202e\u0661\U0001f4a9\u200b",
        "a template": "{message} ${HOME} {{7*7}} %s %(app_id)s :app_id",
        "the longest": "why " * 25_000,
    }.items():
        yield _sent(name, {200}, target, {"message": message})


def _decisions() -> Iterator[Hostile]:
    tables = f"{AGENTS}/tables/agentflow_shared_analytics_events"
    for name, body in {
        "nothing": {},
        "none": {"retainDays": 0},
        "less than none": {"retainRows": -1},
        "a fraction": {"retainDays": 1.5},
        "a text": {"retainDays": "7"},
        "true": {"retainRows": True},
        "too many": {"retainDays": 10**9},
        "more than there is": {"retainRows": 10**15},
        "another member": {"retainHours": 1},
    }.items():
        yield _sent(f"retention: {name}", {422}, tables, body, "PATCH")
    for name, body in {
        "nothing": {},
        "nowhere": {"target": "elsewhere"},
        "for ever": {"target": "shared", "keepDays": 10**9},
        "less than no time": {"target": "shared", "keepDays": -1},
        "a table": {"target": "shared", "sourceTable": "app_credential"},
    }.items():
        yield _sent(f"move: {name}", {422}, f"{QA}/moves", body)
    for verb in ("enable", "disable", "reload"):
        yield _sent(f"{verb} with a body", {422}, f"{QA}/{verb}", {"force": True})
        yield _sent(f"{verb} of nothing", {404}, f"{AGENTS}/nothing/{verb}", {})
