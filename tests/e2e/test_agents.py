"""Agents over HTTP on several warm processes: decisions reach them all, turns are stored once, threads stay apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest

from infra.local.stack import LocalStack
from tests.e2e import tenants
from tests.e2e.conftest import UNLIMITED
from tests.e2e.tenants import AGENT, Api, Tenant
from tests.least_privilege.watched import WatchedStack

AGENTS = "/api/v1/agents"
API_PROCESSES = 3
# Enough for the front to reach every process several times.
PROBES = 12


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own: what is decided about an agent is decided for everyone."""
    folder = tmp_path_factory.mktemp("agents") / "local"
    with WatchedStack(folder, api_processes=API_PROCESSES, schedules=False, environment=UNLIMITED) as running:
        yield running


@pytest.fixture(scope="module")
def root(stack: LocalStack) -> Iterator[Api]:
    with closing(Api(stack.url, stack.admin_credential)) as api:
        yield api


@pytest.fixture(scope="module")
def tenant(stack: LocalStack, root: Api) -> Iterator[Tenant]:
    with closing(tenants.new_tenant(stack, root)) as made:
        yield made


@pytest.fixture(scope="module")
def other(stack: LocalStack, root: Api) -> Iterator[Tenant]:
    with closing(tenants.new_tenant(stack, root)) as made:
        yield made


def ask(api: Api, message: str, agent: str = AGENT, expected: int = 200, **body: Any) -> dict[str, Any]:
    answer = api("POST", f"{AGENTS}/{agent}/invoke", expected, json={"message": message, **body})
    return dict(answer.json())


def at_once(api: Api, count: int, work: Any) -> list[Any]:
    """Do `work()` in several threads, so that several processes answer."""
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def said(api: Api, thread_id: str, agent: str = AGENT) -> list[tuple[str, str]]:
    """Return (role, content) of every message, the oldest first."""
    path, cursor, found = f"{AGENTS}/{agent}/threads/{thread_id}/messages", None, []
    while True:
        query = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = api("GET", path, 200, params=query).json()
        found += [(message["role"], message["content"]) for message in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return found[::-1]


def test_what_is_decided_reaches_every_process(root: Api, tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    path = f"{AGENTS}/{AGENT}/invoke"

    def statuses() -> set[int]:
        return set(at_once(api, PROBES, lambda: api("POST", path, json={"message": "hello"}).status_code))

    assert statuses() == {200}
    # WHEN it is disabled, THEN no process answers any more
    assert root("POST", f"{AGENTS}/{AGENT}/disable", 200).json()["state"] == "disabled"
    assert statuses() == {409}
    assert root("GET", f"{AGENTS}/{AGENT}", 200).json()["state"] == "disabled"
    assert root("POST", f"{AGENTS}/{AGENT}/enable", 200).json()["state"] == "enabled"
    assert statuses() == {200}


def test_fifty_reloads_leave_everything_working(root: Api, tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    before = root("GET", f"{AGENTS}/{AGENT}", 200).json()["reloads"]
    for number in range(1, 51):
        assert root("POST", f"{AGENTS}/{AGENT}/reload", 200).json()["reloads"] == before + number
        if number % 10 == 0:
            assert ask(api, "What is a plugin?")["message"]
    answers = at_once(api, PROBES, lambda: ask(api, "What is a plugin?")["message"])
    assert len(set(answers)) == 1


def test_a_conversation_goes_on_and_is_deleted(tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    first = ask(api, "What is a plugin?")
    assert first["isNewConversation"] is True
    second = ask(api, "And a tool?", threadId=first["threadId"])
    assert (second["threadId"], second["isNewConversation"]) == (first["threadId"], False)
    assert said(api, first["threadId"]) == [
        ("user", "What is a plugin?"),
        ("assistant", first["message"]),
        ("user", "And a tool?"),
        ("assistant", second["message"]),
    ]
    threads = api("GET", f"{AGENTS}/{AGENT}/threads?limit=100", 200).json()["items"]
    assert first["threadId"] in {thread["threadId"] for thread in threads}
    path = f"{AGENTS}/{AGENT}/threads/{first['threadId']}"
    api("DELETE", path, 204)
    assert api("GET", f"{path}/messages", 404).json()["code"] == "agent.thread_not_found"
    assert api("DELETE", path, 404).json()["code"] == "agent.thread_not_found"


def test_one_thread_id_in_two_agents_and_two_tenants_is_four_conversations(
    tenant: Tenant, other: Tenant
) -> None:
    thread = f"shared-{uuid4().hex}"
    agents = (AGENT, "cmdb")
    for owner in (tenant, other):
        for agent in agents:
            message = f"{owner.alias} asks {agent}"
            assert ask(owner.apis["caller"], message, agent, threadId=thread)["isNewConversation"] is True
    for owner in (tenant, other):
        for agent in agents:
            messages = said(owner.apis["caller"], thread, agent)
            assert [role for role, _ in messages] == ["user", "assistant"]
            assert messages[0] == ("user", f"{owner.alias} asks {agent}")
    # WHEN one of them is deleted THEN the others are still there
    tenant.apis["caller"]("DELETE", f"{AGENTS}/cmdb/threads/{thread}", 204)
    assert len(said(tenant.apis["caller"], thread)) == 2
    assert len(said(other.apis["caller"], thread, "cmdb")) == 2


def test_one_idempotency_key_talks_once(tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    thread, key = f"once-{uuid4().hex}", uuid4().hex

    def send() -> Any:
        body = {"message": "What is a flow?", "threadId": thread}
        return api("POST", f"{AGENTS}/{AGENT}/invoke", json=body, headers={"Idempotency-Key": key})

    answers = at_once(api, 6, send)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 409} and 200 in statuses, [answer.text for answer in answers]
    assert send().headers["Idempotency-Replayed"] == "true"
    assert [role for role, _ in said(api, thread)] == ["user", "assistant"]


def test_turns_of_one_thread_at_once_are_each_stored_whole(tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    thread = f"busy-{uuid4().hex}"
    messages = [f"What is a plugin, for the {number}th time?" for number in range(8)]
    pending = iter(messages)
    at_once(api, len(messages), lambda: ask(api, next(pending), threadId=thread))
    found = said(api, thread)
    assert sorted(content for role, content in found if role == "user") == sorted(messages)
    assert sum(role == "assistant" for role, _ in found) == len(messages)


def test_a_move_is_carried_out_and_nobody_notices(root: Api, tenant: Tenant) -> None:
    api = tenant.apis["caller"]
    thread = ask(api, "What is a plugin?")["threadId"]
    before = said(api, thread)
    path = f"{AGENTS}/{AGENT}"
    assert root("GET", path, 200).json()["historyMode"] == "independent"
    move = root("POST", f"{path}/moves", 202, json={"target": "shared", "keepDays": 0})
    assert move.headers["Location"].endswith(move.json()["moveId"])
    assert root("POST", f"{path}/moves", 409, json={"target": "shared"}).json()["code"] == "agent.move_active"
    # WHEN something is said while it goes on, and the job has run
    ask(api, "And a tool?", threadId=thread)
    root("POST", "/api/v1/maintenance/move_agents", 200)
    # THEN every message is there, from another table
    moved = root("GET", f"{path}/moves/{move.json()['moveId']}", 200).json()
    assert moved["state"] == "done", moved
    assert moved["sourceDigest"] == moved["targetDigest"]
    shown = root("GET", path, 200).json()
    assert (shown["historyMode"], shown["movingTo"]) == ("shared", None)
    assert said(api, thread)[:2] == before
    assert [content for role, content in said(api, thread) if role == "user"] == [
        "What is a plugin?",
        "And a tool?",
    ]
    assert ask(api, "And a flow?", threadId=thread)["isNewConversation"] is False
    assert len(said(api, thread)) == 6


def test_tables_are_shown_and_their_retention_is_set(root: Api) -> None:
    items = root("GET", f"{AGENTS}/tables?limit=100", 200).json()["items"]
    tables = {item["table"]: item for item in items}
    history = tables["agentflow_common_qa_conversation_history"]
    assert (history["owner"], history["mode"], history["state"]) == (AGENT, "independent", "ready")
    shared = tables["agentflow_shared_conversation_history"]
    assert (shared["owner"], shared["mode"]) == ("shared", "shared")
    assert all(check["success"] for item in items for check in item["checks"])
    path = f"{AGENTS}/tables/{shared['table']}"
    changed = root("PATCH", path, 200, json={"retainDays": 90})
    assert (changed.json()["retainDays"], changed.json()["retainRows"]) == (90, None)
    # WHEN two set it, having seen the same THEN the second is told
    headers = {"If-Match": changed.headers["ETag"]}
    root("PATCH", path, 200, json={"retainRows": 1000}, headers=headers)
    assert root("PATCH", path, 412, json={"retainRows": 2000}, headers=headers).status_code == 412
    root("PATCH", path, 200, json={"retainDays": None, "retainRows": None})
