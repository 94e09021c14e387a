"""What the agent domain works with: the services of one process."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.agents.loading.process import Deployment, deployment_of_process
from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.instances import Heartbeat
from chalicelib.core.llm import Llm, NoLlm
from chalicelib.plugins.services import Services as PluginServices
from chalicelib.plugins.services import plugin_services
from chalicelib.tools.services import Services as ToolServices
from chalicelib.tools.services import tool_services


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols."""

    database: DatabaseService
    cache: HotCache
    agents: Deployment
    llm: Llm
    tools: ToolServices
    plugins: PluginServices
    heartbeat: Heartbeat


def agent_services() -> Services:
    """Return the services of this process; what `process.forget` forgets is forgotten here too."""
    return Services(
        process.database(),
        process.cache(),
        deployment_of_process(),
        NoLlm(),
        tool_services(),
        plugin_services(),
        process.heartbeat(),
    )
