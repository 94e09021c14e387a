"""The nodes that call other parts of the house: which there are, and what they work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from chalicelib.core import process
from chalicelib.core.instances import Heartbeat
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.nodes import code, plugins, tools
from chalicelib.plugins.services import Services as PluginServices
from chalicelib.plugins.services import plugin_services
from chalicelib.tools.services import Services as ToolServices
from chalicelib.tools.services import tool_services

if TYPE_CHECKING:
    from chalicelib.agents.services import Services as AgentServices


@dataclass(frozen=True)
class CallServices:
    """Handed in, so that a test hands in others that keep the same protocols. Threads share it.

    Parameters
    ----------
    agents
        Made when a flow first calls an agent: loading all agents costs more than most runs.
    """

    tools: ToolServices
    plugins: PluginServices
    agents: Callable[[], AgentServices]
    heartbeat: Heartbeat


def call_services() -> CallServices:
    """Return the services of this process; what `process.forget` forgets is forgotten here too.

    To be called before the nodes' threads start: what it names is made here, once.
    """
    return CallServices(tool_services(), plugin_services(), _agent_services, process.heartbeat())


def calling_nodes(services: CallServices) -> dict[str, Execute]:
    """Return the work of each node type that calls."""
    return {
        "plugin": partial(tools.execute, services.tools),
        "hotplug-plugin": partial(plugins.execute, services.plugins, services.heartbeat),
        "agent": partial(_ask_agent, services.agents),
        "code": partial(code.execute, services.plugins, services.heartbeat),
    }


def _ask_agent(services: Callable[[], AgentServices], call: Call) -> Result:
    from chalicelib.flows.nodes import agents  # most flows ask none

    return agents.execute(services, call)


def _agent_services() -> AgentServices:
    from chalicelib.agents.services import agent_services

    return agent_services()
