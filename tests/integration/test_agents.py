"""The agents of this release over the API: what they answer, keep, call, and do when something fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from chalicelib.agents import catalog, lifecycle
from chalicelib.agents.loading.process import forget, registry_of_process
from chalicelib.agents.models import AgentTable
from chalicelib.agents.services import agent_services
from chalicelib.agents.shared.models import SharedAnalyticsEvents
from chalicelib.core import process
from chalicelib.core.audit import AuditLog
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.tools.models import ToolExecution
from tests.deployed_agents import AGENTS, FakeLlm, Talks, talking
from tests.wire import WireProxy


@pytest.fixture
def talks(database_url: str, tmp_path: Path, with_schema: None) -> Iterator[Talks]:
    with talking(database_url, tmp_path) as running:
        yield running


def test_a_turn_is_stored_and_found_again(talks: Talks) -> None:
    first = talks.ask("What is a plugin?").json
    assert first["metadata"]["sources"][0] == "What is a plugin?"
    assert (first["metadata"]["by"], first["isNewConversation"]) == ("base", True)
    assert first["usage"] == {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "calls": 0}
    again = talks.ask("And a tool?", threadId=first["threadId"]).json
    assert (again["threadId"], again["isNewConversation"]) == (first["threadId"], False)
    assert talks.said(first["threadId"]) == [
        ("user", "What is a plugin?"),
        ("assistant", first["message"]),
        ("user", "And a tool?"),
        ("assistant", again["message"]),
    ]


def test_a_short_question_leans_on_the_one_before(talks: Talks) -> None:
    thread = talks.ask("How do I roll back a plugin?").json["threadId"]
    # GIVEN words that alone find nothing
    assert talks.ask("really?").json["metadata"]["by"] == "nobody"
    # THEN behind a question they find what that was about
    assert "rollback" in talks.ask("really?", threadId=thread).json["message"]


def test_a_question_in_chinese_is_found(talks: Talks) -> None:
    assert talks.ask("如何回滚插件?").json["metadata"]["sources"][0] == "How do I roll back a plugin?"


def test_with_a_model_it_answers_in_words(talks: Talks) -> None:
    llm = FakeLlm(["In my own words.", "And again."])
    process.use_llm(llm)
    first = talks.ask("What is a plugin?").json
    assert (first["message"], first["metadata"]["by"]) == ("In my own words.", "model")
    assert first["usage"] == {"inputTokens": 11, "outputTokens": 5, "totalTokens": 16, "calls": 1}
    talks.ask("And a tool?", threadId=first["threadId"])
    # THEN the model saw the passages, what was said before, and the question last
    messages, _ = llm.asked[1]
    assert messages[0].role == "system"
    assert "A tool is an HTTP API" in messages[0].content
    assert [(one.role, one.content) for one in messages[1:]] == [
        ("user", "What is a plugin?"),
        ("assistant", "In my own words."),
        ("user", "And a tool?"),
    ]


def test_without_its_model_it_answers_from_the_base(talks: Talks, capsys: pytest.CaptureFixture[str]) -> None:
    process.use_llm(FakeLlm([Unavailable("busy", code="llm.unavailable")]))
    answer = talks.ask("What is a plugin?").json
    assert answer["metadata"]["by"] == "base"
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [one["code"] for one in events if one.get("message") == "agent.model_failed"] == [
        "llm.unavailable"
    ]


def test_a_tool_is_called_with_what_the_app_has(talks: Talks) -> None:
    without = talks.ask("who owns db-7?", "cmdb").json
    assert without["metadata"]["error"] == "agent.tool_not_found"
    tool = talks.register_cmdb()
    answer = talks.ask("who owns db-7?", "cmdb").json
    assert answer["message"] == "db-7 (prod) runs mysql; it belongs to data platform."
    with process.database().reads() as session:
        [row] = session.scalars(select(ToolExecution))
        assert (row.tool_id, row.operation, row.outcome) == (tool, "getHost", "success")
        [event] = session.scalars(select(SharedAnalyticsEvents))
        assert (event.agent_name, event.thread_id, event.properties) == (
            "cmdb",
            answer["threadId"],
            {"found": 1},
        )


def test_another_apps_tool_is_not_there_unless_it_is_shared(talks: Talks) -> None:
    talks.client("other")
    talks.register_cmdb("other")
    assert talks.ask("who owns db-7?", "cmdb").json["metadata"]["error"] == "agent.tool_not_found"
    talks.register_cmdb("other", shared=True)
    assert talks.ask("who owns db-7?", "cmdb").json["metadata"]["hosts"][0]["owner"] == "data platform"


def test_an_answer_is_used_again_by_its_app_alone(talks: Talks) -> None:
    talks.client("other")
    talks.register_cmdb()
    talks.register_cmdb("other")
    question = "which hosts run nginx in prod?"
    assert [talks.ask(question, "cmdb").json["metadata"]["cached"] for _ in range(2)] == [False, True]
    assert talks.ask(question, "cmdb", "other").json["metadata"]["cached"] is False
    assert talks.cmdb.asked == 2


def test_preferences_belong_to_a_user_of_an_app(talks: Talks) -> None:
    talks.register_cmdb()
    ada, alan = {"context": {"userId": "ada"}}, {"context": {"userId": "alan"}}
    talks.ask("use staging by default", "cmdb", **ada)
    talks.ask("use prod by default", "cmdb", **alan)
    talks.ask("use dev by default", "cmdb", **alan)
    talks.ask("use prod by default", "cmdb", **alan)
    question = "which hosts run nginx?"
    assert talks.ask(question, "cmdb", **ada).json["metadata"]["asked"]["environment"] == "staging"
    assert talks.ask(question, "cmdb", **alan).json["metadata"]["asked"]["environment"] == "prod"
    assert "environment" not in talks.ask(question, "cmdb").json["metadata"]["asked"]


def test_a_failing_tool_fails_the_call_and_nothing_is_said(talks: Talks) -> None:
    talks.register_cmdb(url=f"{talks.cmdb.url}/elsewhere")
    refused = talks.ask("which hosts run nginx?", "cmdb", threadId="mine")
    assert (refused.status, refused.json["code"]) == (502, "tool.upstream_error")
    assert refused.json["executionId"]
    threads = talks.client().get(f"{AGENTS}/cmdb/threads").json["items"]
    assert threads == []


def test_decisions_are_audited(talks: Talks) -> None:
    admin = talks.client()
    for verb in ("disable", "enable", "reload"):
        assert admin.post(f"{AGENTS}/cmdb/{verb}").status == 200
    with process.database().reads() as session:
        rows = session.scalars(select(AuditLog).where(AuditLog.object_type == "agent").order_by(AuditLog.id))
        assert [(row.action, row.object_id) for row in rows] == [
            ("agent.disable", "cmdb"),
            ("agent.enable", "cmdb"),
            ("agent.reload", "cmdb"),
        ]


def test_every_reload_of_many_admins_counts(talks: Talks) -> None:
    database = process.database()
    agent = catalog.find(agent_services(), "cmdb")
    caller = Caller(1, "acme", 1, "admin", "r")

    def reload() -> None:
        own = DatabaseService(database.database_url)
        for _ in range(5):
            own.run(lambda session: lifecycle.reload(session, caller, agent))
        own.close()

    threads = [threading.Thread(target=reload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert talks.client().get(f"{AGENTS}/cmdb").json["reloads"] == 20


def test_tables_that_are_not_ready_stop_the_agent_alone(talks: Talks) -> None:
    with process.database().session_getter() as session:
        row = session.get(AgentTable, "agentflow_cmdb_query_cache")
        assert row is not None
        row.schema_hash = "0" * 64
    refused = talks.ask("who owns db-7?", "cmdb")
    assert (refused.status, refused.json["code"]) == (503, "agent.tables_not_ready")
    assert refused.json["tables"] == {"agentflow_cmdb_query_cache": "outdated"}
    assert talks.ask("What is a plugin?").status == 200
    shown = talks.client().get(f"{AGENTS}/cmdb").json
    states = {one["table"]: (one["state"], one["rows"]) for one in shown["tables"]}
    assert states["agentflow_cmdb_query_cache"] == ("outdated", None)
    assert states["agentflow_shared_conversation_history"] == ("ready", 0)


def test_lists_page_through_every_agent(talks: Talks) -> None:
    client, names, query = talks.client(), [], "limit=1"
    while True:
        page = client.get(f"{AGENTS}?{query}").json
        names += [one["agentName"] for one in page["items"]]
        if page["nextCursor"] is None:
            break
        query = f"limit=1&cursor={page['nextCursor']}"
    assert names == ["cmdb", "common_qa"]


def test_rows_of_other_apps_are_not_counted(talks: Talks) -> None:
    talks.client("other")
    for _ in range(3):
        talks.ask("What is a plugin?", app="other")
    talks.ask("What is a plugin?")
    for app, rows in (("acme", 2), ("other", 6)):
        [table] = talks.client(app).get(f"{AGENTS}/common_qa").json["tables"]
        assert table["rows"] == rows


def test_agents_load_while_the_database_is_away_and_answer_when_it_is_back(
    mysql_url: str, tmp_path: Path
) -> None:
    with WireProxy(mysql_url) as wire, talking(wire.url, tmp_path) as talks:
        assert talks.ask("What is a plugin?").status == 200
        # GIVEN a process that starts, and loads its agents, while every line to the database is cut
        wire.cut = lambda _: True
        wire.hang_up()
        forget()
        assert [one.error for one in registry_of_process().all()] == [None, None]
        assert talks.ask("What is a plugin?").status == 503
        # WHEN it is back THEN the same process answers
        wire.cut = lambda _: False
        assert talks.ask("What is a plugin?").status == 200
