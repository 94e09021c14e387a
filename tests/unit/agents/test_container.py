"""The service container: what is there is made for each invocation, what is not is a clear error."""

from __future__ import annotations

import pytest

from chalicelib.agents.base import AgentBase
from chalicelib.agents.container import Invocation, ServiceContainer
from chalicelib.agents.spec import LoadedAgent
from chalicelib.core.caller import Caller
from chalicelib.core.errors import Unavailable

CALLER = Caller(1, "app", "2", "caller", "r")


class Tools:
    def __init__(self, invocation: Invocation) -> None:
        self.of = invocation

    def call(self, tool: str, operation_id: str, arguments: object = None) -> str:
        return f"{tool} of {self.of.agent.name} in {self.of.thread_id} for {self.of.caller.alias_id}"


def test_a_service_knows_whom_it_serves() -> None:
    container = ServiceContainer(tools=Tools)
    assert container.names() == ["tools"]
    services = container.services(Invocation(LoadedAgent("qa", None, None), CALLER, "t1"))
    agent = AgentBase("qa", "").bound(services)
    assert agent.tools.call("weather", "now") == "weather of qa in t1 for app"


@pytest.mark.parametrize("name", ["database", "llm", "tools", "plugins", "history"])
def test_a_service_that_is_not_there_is_a_clear_error(name: str) -> None:
    services = ServiceContainer().services(Invocation(LoadedAgent("qa", None, None), CALLER, "t1"))
    agent = AgentBase("qa", "").bound(services)
    with pytest.raises(Unavailable, match=f"qa needs the service {name}") as caught:
        getattr(agent, name)
    assert caught.value.code == "agent.service_missing"
