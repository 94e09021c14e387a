"""What becomes of a call: by the state of the agent, by what it returns, and by what it raises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from chalicelib.agents import catalog, invoking, lifecycle
from chalicelib.agents.base import AgentBase, Reply
from chalicelib.agents.catalog import Agent, Decided
from chalicelib.agents.container import ServiceContainer
from chalicelib.agents.loading.registry import AgentRegistry
from chalicelib.agents.models import AgentRow
from chalicelib.agents.scope.access import ScopeViolation
from chalicelib.agents.services import Services
from chalicelib.agents.spec import AgentSpec, LoadedAgent, LoadError
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, NotFound, Unavailable, UpstreamFailed
from chalicelib.core.hotcache import HotCache
from tests.deployed_agents import FakeLlm

CALLER = Caller(1, "acme", 1, "caller", "r")


class Echo(AgentBase):
    """Returns what it was given, or calls it."""

    def __init__(self, answer: Any) -> None:
        super().__init__("echo", "For tests.")
        self.answer = answer

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Any:
        return self.answer(self) if callable(self.answer) else self.answer


@dataclass
class Loader:
    """A loader that has made what it was given; it notes what it is asked to make anew."""

    registry: AgentRegistry
    reloaded: list[tuple[str, int | None]]

    def reload(self, name: str, *, generation: int | None = None) -> LoadedAgent:
        self.reloaded.append((name, generation))
        found = self.registry.get(name)
        assert found is not None
        return found


def spec(tmp: Any) -> AgentSpec:
    return AgentSpec("echo", "1.2.3", "For tests.", "Echo", tmp, "tests.echo")


def services(
    database: DatabaseService, loaded: LoadedAgent, container: ServiceContainer | None = None
) -> Services:
    registry = AgentRegistry()
    registry.register(loaded)
    cache = HotCache(database)
    cache.refresh()
    loader: Any = Loader(registry, [])
    return Services(database, cache, loader, container or ServiceContainer())


def ask(database: DatabaseService, tmp: Any, answer: Any, **parts: Any) -> invoking.Answered:
    loaded = LoadedAgent("echo", spec(tmp), Echo(answer))
    return invoking.invoke(
        services(database, loaded, parts.pop("container", None)), CALLER, "echo", message="hi", **parts
    )


def refused(error: type[HotplugError], work: Any) -> HotplugError:
    with pytest.raises(error) as caught:
        work()
    return caught.value


def test_a_text_and_a_reply_are_answers(database: DatabaseService, tmp_path: Any) -> None:
    answered = ask(database, tmp_path, "hello")
    assert answered.reply == Reply("hello")
    with database.session_getter() as session:
        stored = invoking.store(session, answered)
    assert (stored["message"], stored["metadata"], stored["isNewConversation"]) == ("hello", None, True)
    told = ask(database, tmp_path, Reply("hello", {"a": 1}), thread_id="mine").as_dict(False)
    assert (told["metadata"], told["threadId"], told["isNewConversation"]) == ({"a": 1}, "mine", False)


@pytest.mark.parametrize("answer", [None, 7, b"hello", ["hello"], "x" * 1_000_001, Reply(None)])  # type: ignore[arg-type]
def test_anything_else_is_no_answer(database: DatabaseService, tmp_path: Any, answer: Any) -> None:
    error = refused(UpstreamFailed, lambda: ask(database, tmp_path, answer))
    assert error.code == "agent.reply_invalid"


def raising(error: BaseException) -> Any:
    def invoke(_: Any) -> Any:
        raise error

    return invoke


@pytest.mark.parametrize("kind", [ValueError, KeyError, ScopeViolation, RecursionError])
def test_what_it_raises_is_told_by_its_kind_and_never_by_its_text(
    database: DatabaseService, tmp_path: Any, kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(UpstreamFailed, lambda: ask(database, tmp_path, raising(kind("s3cret"))))
    assert (error.code, error.detail) == ("agent.failed", f"The agent failed: {kind.__name__}.")
    logged = capsys.readouterr().out
    assert "agent.crashed" in logged
    assert "s3cret" not in logged


def test_what_its_services_raise_is_what_the_caller_gets(database: DatabaseService, tmp_path: Any) -> None:
    error = refused(Conflict, lambda: ask(database, tmp_path, raising(Conflict("no", code="tool.nothing"))))
    assert error.code == "tool.nothing"


@pytest.mark.parametrize("name", ["database", "llm", "tools", "plugins", "history"])
def test_a_service_that_is_missing_says_so(database: DatabaseService, tmp_path: Any, name: str) -> None:
    error = refused(Unavailable, lambda: ask(database, tmp_path, lambda agent: getattr(agent, name)))
    assert (error.code, name in error.detail) == ("agent.service_missing", True)


def test_every_call_works_on_a_copy(database: DatabaseService, tmp_path: Any) -> None:
    agent = Echo(lambda mine: setattr(mine, "seen", True) or "done")
    loaded = LoadedAgent("echo", spec(tmp_path), agent)
    invoking.invoke(services(database, loaded), CALLER, "echo", message="hi")
    assert not hasattr(agent, "seen")
    assert agent._services is None


def test_what_its_model_costs_is_summed(database: DatabaseService, tmp_path: Any) -> None:
    from chalicelib.core.llm.model import ChatMessage

    llm = FakeLlm(["one", "two"])

    def twice(agent: AgentBase) -> str:
        return "".join(agent.llm.chat([ChatMessage("user", "?")]).text for _ in range(2))

    answered = ask(database, tmp_path, twice, container=ServiceContainer(llm=lambda _: llm))
    assert (answered.reply.text, answered.usage.as_dict()) == (
        "onetwo",
        {"inputTokens": 22, "outputTokens": 10, "totalTokens": 32, "calls": 2},
    )


def test_no_such_agent(database: DatabaseService, tmp_path: Any) -> None:
    loaded = LoadedAgent("other", spec(tmp_path), Echo("x"))
    made = services(database, loaded)
    error = refused(NotFound, lambda: invoking.invoke(made, CALLER, "echo", message="hi"))
    assert error.code == "agent.not_found"


def test_one_that_could_not_be_loaded_says_why(database: DatabaseService, tmp_path: Any) -> None:
    broken = LoadedAgent("echo", spec(tmp_path), None, error=LoadError("agent.import", "It cannot."))
    made = services(database, broken)
    error = refused(Unavailable, lambda: invoking.invoke(made, CALLER, "echo", message="hi"))
    assert (error.code, error.extensions["loadError"]) == (
        "agent.load_failed",
        {"code": "agent.import", "detail": "It cannot."},
    )
    assert catalog.summary(catalog.find(made, "echo"))["state"] == "error"
    agent = catalog.find(made, "echo")
    with database.session_getter() as session:
        assert refused(Conflict, lambda: lifecycle.enable(session, CALLER, agent)).code == "agent.broken"


def test_one_that_its_file_disables_cannot_be_enabled(database: DatabaseService, tmp_path: Any) -> None:
    made = services(database, LoadedAgent("echo", None, None))
    error = refused(Conflict, lambda: invoking.invoke(made, CALLER, "echo", message="hi"))
    assert error.code == "agent.disabled"
    agent = catalog.find(made, "echo")
    with database.session_getter() as session:
        code = refused(Conflict, lambda: lifecycle.enable(session, CALLER, agent)).code
    assert code == "agent.disabled_by_file"


def test_one_without_a_row_is_as_its_files_say_and_cannot_be_decided_about(
    database: DatabaseService, tmp_path: Any
) -> None:
    made = services(database, LoadedAgent("echo", spec(tmp_path), Echo("x")))
    agent = catalog.find(made, "echo")
    assert (agent.state, agent.decided) == ("enabled", None)
    with database.session_getter() as session:
        error = refused(Unavailable, lambda: lifecycle.disable(session, CALLER, agent))
    assert error.code == "agent.not_migrated"


def test_a_reload_elsewhere_is_followed_once(database: DatabaseService, tmp_path: Any) -> None:
    with database.session_getter() as session:
        session.add(AgentRow(name="echo", version="1.2.3", generation=3))
    loaded = LoadedAgent("echo", spec(tmp_path), Echo("x"))
    made = services(database, loaded)
    catalog.find(made, "echo")
    assert made.agents.reloaded == [("echo", 3)]  # type: ignore[attr-defined]


def test_a_disabled_row_wins_over_the_files(tmp_path: Any) -> None:
    from datetime import UTC, datetime

    decided = Decided(False, 0, None, None, datetime.now(UTC))
    agent = Agent(LoadedAgent("echo", spec(tmp_path), Echo("x")), decided)
    assert (agent.state, json.dumps(catalog.summary(agent)["state"])) == ("disabled", '"disabled"')
