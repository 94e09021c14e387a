"""What the agent domain works with: the services of one process, and what of them an agent is handed."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.agents.access import PluginAccess, ToolAccess
from chalicelib.agents.container import Invocation, ServiceContainer
from chalicelib.agents.loading.loader import AgentLoader
from chalicelib.agents.loading.process import loader_of_process
from chalicelib.agents.scope.access import Scope
from chalicelib.agents.scope.sessions import AgentDatabase, for_agent
from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.plugins.services import plugin_services
from chalicelib.tools.services import tool_services


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols.

    Parameters
    ----------
    container
        Makes what an agent is handed; its history and the meter of its model belong to the invocation itself.
    """

    database: DatabaseService
    cache: HotCache
    agents: AgentLoader
    container: ServiceContainer


def agent_services() -> Services:
    """Return the services of this process; what `process.forget` forgets is forgotten here too."""
    container = _container()
    return Services(process.database(), process.cache(), loader_of_process(container), container)


def _container() -> ServiceContainer:
    return ServiceContainer(
        database=_scoped,
        llm=lambda invocation: process.llm(invocation.caller.app_id),
        tools=_tools,
        plugins=_plugins,
    )


def _scoped(invocation: Invocation) -> AgentDatabase:
    agent = invocation.agent
    return for_agent(process.database(), Scope.of(invocation.caller, agent.name, agent.tables))


def _tools(invocation: Invocation) -> ToolAccess:
    spec = invocation.agent.spec
    allowed = spec.tools if spec else frozenset()
    return ToolAccess(tool_services(), invocation.caller, allowed, invocation.left)


def _plugins(invocation: Invocation) -> PluginAccess:
    spec = invocation.agent.spec
    allowed = spec.plugins if spec else frozenset()
    return PluginAccess(plugin_services(), process.heartbeat(), invocation.caller, allowed, invocation.left)
