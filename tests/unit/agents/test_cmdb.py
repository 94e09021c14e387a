from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from chalicelib.agents.base import AgentServices
from chalicelib.agents.cmdb.agent import HELP, Cmdb
from chalicelib.agents.cmdb.question import MAX_READ, Question, read
from chalicelib.agents.loading.process import registry_of_process
from chalicelib.core.caller import Caller
from chalicelib.core.errors import UpstreamFailed
from chalicelib.core.llm import NoLlm
from tests.deployed_agents import FakeLlm

CALLER = Caller(1, "acme", 1, "caller", "r")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("who owns db-7?", Question(host="db-7")),
        ("Show me WEB-01 please", Question(host="web-01")),
        ("which hosts run nginx in prod?", Question(service="nginx", environment="prod")),
        ("Which production hosts are running redis?", Question(service="redis", environment="prod")),
        ("which hosts run node.js", Question(service="node.js")),
        ("哪些主机运行 nginx 生产环境", Question(service="nginx", environment="prod")),
        ("use staging by default", Question(environment="staging", sets_default=True)),
        ("默认预发环境", Question(environment="staging", sets_default=True)),
        ("which hosts are there in prod?", Question(environment="prod")),
        ("hello", Question()),
        ("product-reproduction", Question()),
        ("", Question()),
        ("run " * 50_000, Question(service="run")),
        ("x" * MAX_READ + " who owns db-7?", Question()),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_question_is_read_by_rules(message: str, expected: Question) -> None:
    assert read(message) == expected


def test_what_is_not_understood_asks_nobody() -> None:
    assert not read("which hosts are there in prod?").understood
    assert read("use prod by default").understood


class OneRow:
    """A database whose first writer finds that another one was faster."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors
        self.rows: list[Any] = []

    @contextmanager
    def reads(self) -> Iterator[Any]:
        yield self

    def scalars(self, _query: Any) -> Any:
        return self

    def one_or_none(self) -> None:
        return None

    def add(self, row: Any) -> None:
        self.rows.append(row)

    def run(self, work: Callable[[Any], Any]) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return work(self)


class Tool:
    """A tool that answers what it was given to, or raises it."""

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


def agent(database: Any, tools: Any = None, llm: Any = None) -> Cmdb:
    made = registry_of_process().get("cmdb")
    assert made is not None and isinstance(made.agent, Cmdb)
    return made.agent.bound(AgentServices(CALLER, database=database, llm=llm or NoLlm(), tools=tools))


def test_who_is_slower_writes_again() -> None:
    database = OneRow([duplicate()])
    answer = agent(database).invoke("use staging by default", "t", {"userId": "ada"})
    assert answer.text.startswith("From now on I look in staging")
    [row] = database.rows
    assert (row.user_id, row.value) == ("ada", "staging")


def test_another_error_of_a_write_is_not_swallowed() -> None:
    failing = IntegrityError("INSERT", {}, Exception(1048, "Column cannot be null"))
    with pytest.raises(IntegrityError):
        agent(OneRow([failing])).invoke("use staging by default", "t", {})
    with pytest.raises(IntegrityError):
        agent(OneRow([duplicate(), duplicate()])).invoke("use staging by default", "t", {})


def test_a_host_that_is_not_there_is_an_answer_and_any_other_failure_is_none() -> None:
    missing = UpstreamFailed("no", code="tool.upstream_error", extensions={"upstream": {"status": 404}})
    answer = agent(OneRow([]), Tool(missing)).invoke("who owns db-9?", "t", {})
    assert answer.text == "I find no host for db-9."
    failing = UpstreamFailed("no", code="tool.upstream_error", extensions={"upstream": {"status": 500}})
    with pytest.raises(UpstreamFailed):
        agent(OneRow([]), Tool(failing)).invoke("who owns db-9?", "t", {})


def test_a_model_reads_what_the_rules_do_not() -> None:
    tool = Tool({"hosts": []})
    llm = FakeLlm(['{"service": "nginx", "environment": "prod"}'])
    answer = agent(OneRow([]), tool, llm).invoke("where does our web server live?", "t", {})
    assert tool.calls == [("cmdb", "findHosts", {"query": {"service": "nginx", "environment": "prod"}})]
    assert answer.text == "I find no host for nginx in prod."
    [(_, options)] = llm.asked
    assert options.json_schema is not None


@pytest.mark.parametrize(
    "answer", ["no JSON", "[]", '{"service": 7}', UpstreamFailed("x", code="llm.failed")]
)
def test_a_model_that_reads_nothing_leaves_the_help(answer: Any) -> None:
    shown = agent(OneRow([]), Tool({}), FakeLlm([answer])).invoke("where does it live?", "t", {})
    assert shown.text == HELP
