"""The service container: what this process can hand an agent, made before any agent is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from chalicelib.agents.base import AgentPlugins, AgentServices, AgentTools, History, ScopedDatabase
from chalicelib.agents.spec import LoadedAgent
from chalicelib.agents.time_left import TimeLeft
from chalicelib.core.caller import Caller

if TYPE_CHECKING:
    from chalicelib.core.llm.model import Llm


@dataclass(frozen=True)
class Invocation:
    """What a service is made for: one agent, asked by one app, in one thread."""

    agent: LoadedAgent
    caller: Caller
    thread_id: str
    left: TimeLeft = field(default_factory=TimeLeft)


@dataclass(frozen=True)
class ServiceContainer:
    """A maker for each service; None for what this deployment has not.

    A maker does nothing that takes time, such as connecting: it runs for every invocation, whether the agent uses the
    service or not.
    """

    database: Callable[[Invocation], ScopedDatabase] | None = None
    llm: Callable[[Invocation], Llm] | None = None
    tools: Callable[[Invocation], AgentTools] | None = None
    plugins: Callable[[Invocation], AgentPlugins] | None = None
    history: Callable[[Invocation], History] | None = None

    def names(self) -> list[str]:
        """Return the services that are there, sorted."""
        return sorted(one.name for one in fields(self) if getattr(self, one.name) is not None)

    def services(self, invocation: Invocation) -> AgentServices:
        """Return the services of one invocation; using one that is not there raises `agent.service_missing`."""
        made = {name: getattr(self, name)(invocation) for name in self.names()}
        return AgentServices(caller=invocation.caller, **made)
