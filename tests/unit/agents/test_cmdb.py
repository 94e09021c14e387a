"""cmdb: what it reads out of a message, what it says of an answer of any form, and whose failure is told how."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from chalicelib.agents.base import AgentServices, Reply
from chalicelib.agents.cmdb.agent import HELP, MENDABLE, NOBODY, UNEXPECTED
from chalicelib.agents.cmdb.answer import MAX_TEXT, MOST_HOSTS, MOST_SERVICES
from chalicelib.agents.cmdb.models import CmdbQueryCache, SharedAnalyticsEvents, SharedUserPreferences
from chalicelib.agents.cmdb.question import MAX_READ, from_model, read
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound, UpstreamFailed
from chalicelib.core.llm.model import NoLlm
from tests.deployed_agents import FakeLlm
from tests.unit.agents.talk import CALLER, loaded

WEB = {"name": "web-1", "environment": "prod", "services": ["nginx", "shop"], "owner": "shop team"}


# -- reading a question ------------------------------------------------------------------------------------------------


def plain(message: str) -> tuple[str | None, str | None, str | None]:
    question = read(message)
    return question.host, question.service, question.environment


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("who owns db-7?", ("db-7", None, None)),
        ("who owns ledger?", ("ledger", None, None)),
        ("Show me WEB-01 please", ("web-01", None, None)),
        ("what runs on db-7?", ("db-7", None, None)),
        ("db-7的负责人是谁", ("db-7", None, None)),
        ("谁负责 db-7？", ("db-7", None, None)),
        ("which hosts run nginx in prod?", (None, "nginx", "prod")),
        ("Which production hosts are running redis?", (None, "redis", "prod")),
        ("which hosts run node.js", (None, "node.js", None)),
        ("hosts with a mysql.", (None, "mysql", None)),
        ("where is nginx running?", (None, "nginx", None)),
        ("哪些主机运行 nginx 生产环境", (None, "nginx", "prod")),
        ("在prod环境哪些服务器跑着redis", (None, "redis", "prod")),
        ("nginx在哪里", (None, "nginx", None)),
        ("which hosts run in prod?", (None, None, "prod")),
        ("which hosts have to be with us?", (None, None, None)),
        ("hello", (None, None, None)),
        ("product-reproduction", (None, None, None)),
        ("", (None, None, None)),
        ("run " * 50_000, (None, "run", None)),
        ("x" * MAX_READ + " who owns db-7?", (None, None, None)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_question_is_read_by_rules(message: str, expected: tuple[str | None, ...]) -> None:
    assert plain(message) == expected


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        ("which hosts are there in prod?", True),
        ("生产环境有哪些主机", True),
        ("how is prod?", False),
        ("which hosts are there?", False),
        ("use staging by default", True),
        ("who owns db-7?", True),
    ],
)
def test_an_environment_alone_is_a_question_about_machines(message: str, understood: bool) -> None:
    assert read(message).understood is understood


@pytest.mark.parametrize(
    ("message", "environment"),
    [
        ("use staging by default", "staging"),
        ("My default is Production", "prod"),
        ("默认使用预发环境", "staging"),
        ("use the default", None),
        ("is prod the default?", None),
        ("默认是生产吗？", None),
        ("which hosts run nginx in dev", None),
    ],
)
def test_a_default_is_set_by_who_says_so_and_not_by_who_asks(message: str, environment: str | None) -> None:
    question = read(message)
    assert (question.environment if question.sets_default else None) == environment


@given(st.text(max_size=300))
def test_any_text_is_read(message: str) -> None:
    question = read(message)
    assert question.host is None or len(question.host) <= 100
    assert question.service is None or len(question.service) <= 64


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"service": "Nginx", "environment": "prod"}, (None, "nginx", "prod")),
        ({"host": " db-7 "}, ("db-7", None, None)),
        ({"host": "../../admin", "service": "a b", "environment": "everywhere"}, (None, None, None)),
        ({"host": 7, "service": ["nginx"], "environment": ["prod"]}, (None, None, None)),
        ({"host": "x" * 65, "service": "x" * 65}, (None, None, None)),
        ({"host": "db-7\n"}, ("db-7", None, None)),
        ([], (None, None, None)),
        (None, (None, None, None)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_model_has_read_is_taken_only_where_it_is_a_name(
    found: Any, expected: tuple[str | None, ...]
) -> None:
    question = from_model(found)
    assert (question.host, question.service, question.environment) == expected


# -- asking ------------------------------------------------------------------------------------------------------------


class Rows:
    """A database that finds what it was given, keeps what is added, and whose units fail as they are told."""

    def __init__(self, *errors: Exception, found: Any = None) -> None:
        self.errors = list(errors)
        self.found = found
        self.added: list[Any] = []

    @contextmanager
    def reads(self) -> Iterator[Any]:
        yield self

    def session_getter(self) -> Any:
        raise AssertionError("units are run, so that they are run again after a deadlock")

    def scalars(self, _query: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def one_or_none(self) -> Any:
        return self.found

    def execute(self, _statement: Any) -> None:
        """Delete nothing."""

    def add(self, row: Any) -> None:
        self.added.append(row)

    def run(self, work: Callable[[Any], Any]) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return work(self)


class Tool:
    """A tool that answers what it was given, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def call(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def duplicate() -> IntegrityError:
    return IntegrityError("INSERT", {}, Exception(1062, "Duplicate entry"))


def ask(
    message: str, tool: Any = None, rows: Any = None, llm: Any = None, **context: Any
) -> tuple[str, dict[str, Any]]:
    services = AgentServices(CALLER, database=rows or Rows(), llm=llm or NoLlm(), tools=tool)
    answer = loaded("cmdb").bound(services).invoke(message, "t", context)
    assert isinstance(answer, Reply)
    json.dumps(answer.metadata)
    return answer.text, dict(answer.metadata or {})


def test_hosts_are_found_by_what_they_run() -> None:
    tool, rows = Tool({"hosts": [WEB]}), Rows()
    text, metadata = ask("which hosts run nginx in prod?", tool, rows)
    assert tool.calls == [("cmdb", "findHosts", {"query": {"service": "nginx", "environment": "prod"}})]
    assert text == "web-1 (prod) runs nginx, shop; it belongs to shop team."
    asked = {"service": "nginx", "environment": "prod"}
    assert metadata == {"asked": asked, "hosts": [WEB], "found": 1, "cached": False}
    cached, event = rows.added
    assert isinstance(cached, CmdbQueryCache) and cached.answer == {"hosts": [WEB], "found": 1}
    assert isinstance(event, SharedAnalyticsEvents)
    assert (event.event_name, event.thread_id, event.properties) == ("lookup", "t", {"found": 1})


def test_a_host_is_asked_for_by_its_name() -> None:
    tool = Tool(WEB)
    assert ask("who owns web-1?", tool)[1]["hosts"] == [WEB]
    assert tool.calls == [("cmdb", "getHost", {"path": {"name": "web-1"}})]


def test_a_kept_answer_is_used_and_counted() -> None:
    tool, rows = Tool({"hosts": []}), Rows(found={"hosts": [WEB], "found": 1})
    text, metadata = ask("which hosts run nginx?", tool, rows)
    assert (metadata["cached"], tool.calls) == (True, [])
    assert text.startswith("web-1 (prod)")
    [event] = rows.added
    assert event.properties == {"found": 1}


def test_an_answer_of_a_thousand_hosts_is_shown_by_twenty() -> None:
    rows = Rows()
    hosts = [{**WEB, "services": ["s" * 1000] * 50, "more": "x" * 10_000}] * 1000
    text, metadata = ask("which hosts run nginx?", Tool({"hosts": hosts}), rows)
    assert text.endswith(f"\n… and {1000 - MOST_HOSTS} more.")
    assert (len(metadata["hosts"]), metadata["found"]) == (MOST_HOSTS, 1000)
    assert metadata["hosts"][0]["services"] == ["s" * MAX_TEXT] * MOST_SERVICES
    assert len(json.dumps(rows.added[0].answer)) < 64 * 1024


def test_a_host_that_is_not_there_is_an_answer() -> None:
    missing = UpstreamFailed("no", code="tool.upstream_error", extensions={"upstream": {"status": 404}})
    text, metadata = ask("who owns db-9?", Tool(missing))
    assert (text, metadata["found"]) == ("I find no host for db-9.", 0)
    assert ask("which hosts run x in dev?", Tool({"hosts": []}))[0] == "I find no host for x in dev."


@pytest.mark.parametrize("code", sorted(MENDABLE))
@pytest.mark.parametrize("message", ["who owns db-7?", "which hosts run nginx?"])
def test_what_the_app_has_to_mend_is_said(code: str, message: str) -> None:
    kind = NotFound if code == "agent.tool_not_found" else Invalid
    rows = Rows()
    text, metadata = ask(message, Tool(kind("no", code=code)), rows)
    assert "examples/agents/cmdb.yaml" in text
    assert metadata["error"] == code
    assert rows.added == []


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamFailed("no", code="tool.upstream_error", extensions={"upstream": {"status": 500}}),
        UpstreamFailed("no", code="tool.invalid_answer"),
        Conflict("no", code="tool.credentials_missing"),
        Invalid("no", code="tool.invalid_arguments"),
    ],
    ids=lambda error: error.code,
)
def test_any_other_failure_is_one_of_the_call(failure: HotplugError) -> None:
    rows = Rows()
    for message in ("who owns db-7?", "which hosts run nginx?"):
        with pytest.raises(type(failure)) as raised:
            ask(message, Tool(failure), rows)
        assert raised.value is failure
    assert rows.added == []


@pytest.mark.parametrize(
    "body",
    [
        None, [], "hosts", {}, {"hosts": None}, {"hosts": {}}, {"hosts": [None]}, {"hosts": ["web-1"]},
        {"hosts": [{}]}, {"hosts": [{**WEB, "name": 7}]}, {"hosts": [{**WEB, "owner": None}]},
        {"hosts": [{**WEB, "services": "nginx"}]}, {"hosts": [{**WEB, "services": [7]}]},
    ],
    ids=lambda body: str(body)[:30],
)  # fmt: skip
def test_an_answer_of_another_form_is_said_and_not_kept(body: Any) -> None:
    # A tool is the app's own: its document may promise anything.
    rows = Rows()
    text, metadata = ask("which hosts run nginx?", Tool(body), rows)
    assert (text, metadata["error"], rows.added) == (UNEXPECTED, "agent.tool_answer", [])


def test_what_is_not_understood_asks_nobody() -> None:
    assert ask("hello") == (HELP, {"asked": None})


# -- remembering -------------------------------------------------------------------------------------------------------


def test_a_default_is_kept_for_a_user() -> None:
    rows = Rows()
    text, _ = ask("use staging by default", rows=rows, userId=" ada ")
    assert text == "From now on I look in staging unless you name another."
    [row] = rows.added
    assert isinstance(row, SharedUserPreferences)
    assert (row.user_id, row.name, row.value) == ("ada", "environment", "staging")


@pytest.mark.parametrize(
    "context", [{}, {"userId": ""}, {"userId": "  "}, {"userId": 7}, {"userId": "x" * 129}, {"userId": None}]
)
def test_nobodys_default_is_not_everybodys(context: dict[str, Any]) -> None:
    rows = Rows()
    text, metadata = ask("use staging by default", rows=rows, **context)
    assert (text, metadata["error"], rows.added) == (NOBODY, "agent.user_missing", [])
    tool = Tool({"hosts": []})
    ask("which hosts run nginx?", tool, Rows(), **context)
    assert tool.calls == [("cmdb", "findHosts", {"query": {"service": "nginx"}})]


def test_who_is_slower_writes_again() -> None:
    rows = Rows(duplicate())
    ask("use staging by default", rows=rows, userId="ada")
    [row] = rows.added
    assert (row.user_id, row.value) == ("ada", "staging")
    rows = Rows(duplicate())
    ask("which hosts run nginx?", Tool({"hosts": []}), rows)
    assert len(rows.added) == 2


def test_another_error_of_a_write_is_not_swallowed() -> None:
    failing = IntegrityError("INSERT", {}, Exception(1048, "Column cannot be null"))
    for errors in ([failing], [duplicate(), duplicate()]):
        with pytest.raises(IntegrityError):
            ask("use staging by default", rows=Rows(*errors), userId="ada")


# -- the model ---------------------------------------------------------------------------------------------------------


def test_a_model_reads_what_the_rules_do_not() -> None:
    tool, llm = Tool({"hosts": []}), FakeLlm(['{"service": "nginx", "environment": "prod"}'])
    text, _ = ask("give me our web frontends, live ones" + "!" * 10_000, tool, llm=llm)
    assert tool.calls == [("cmdb", "findHosts", {"query": {"service": "nginx", "environment": "prod"}})]
    assert text == "I find no host for nginx in prod."
    [(messages, options)] = llm.asked
    assert options.json_schema is not None and options.json_schema["additionalProperties"] is False
    assert [len(messages[-1].content), messages[0].role] == [MAX_READ, "system"]


def test_a_model_is_not_asked_what_the_rules_read() -> None:
    llm = FakeLlm([])
    ask("who owns web-1?", Tool(WEB), llm=llm)
    assert llm.asked == []


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        ("no JSON", ["llm.no_json"]),
        ("[" * 100_000, ["llm.no_json"]),
        ("[]", []),
        ('{"service": 7}', []),
        (UpstreamFailed("x", code="llm.failed"), ["llm.failed"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_model_that_reads_nothing_leaves_the_help(
    answer: Any, codes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("tell me a story", Tool({}), llm=FakeLlm([answer]))[0] == HELP
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines if line["message"] == "agent.model_failed"] == codes
