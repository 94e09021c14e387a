"""What the agent domain works with: the services of one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.agents.loading.process import Deployment, deployment_of_process
from chalicelib.apps import secrets
from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.instances import Heartbeat
from chalicelib.core.llm import Llm, NoLlm
from chalicelib.core.settings import settings
from chalicelib.plugins.services import Services as PluginServices
from chalicelib.plugins.services import plugin_services
from chalicelib.tools.services import Services as ToolServices
from chalicelib.tools.services import tool_services


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols.

    Parameters
    ----------
    llm_of
        Returns the language model that an app's calls go to.
    """

    database: DatabaseService
    cache: HotCache
    agents: Deployment
    llm_of: Callable[[int], Llm]
    tools: ToolServices
    plugins: PluginServices
    heartbeat: Heartbeat


def agent_services() -> Services:
    """Return the services of this process; what `process.forget` forgets is forgotten here too."""
    return Services(
        process.database(),
        process.cache(),
        deployment_of_process(),
        llm_of_app,
        tool_services(),
        plugin_services(),
        process.heartbeat(),
    )


def llm_of_app(app_id: int) -> Llm:
    """Return the model that this deployment's settings name, called on behalf of an app; `NoLlm` where they name none.

    An endpoint's key is the app's own: the secret that HOTPLUG_LLM_SECRET names. An app without it has no model.
    """
    chosen = settings()
    if chosen.llm_provider == "bedrock" and chosen.llm_model:
        from chalicelib.core.llm_bedrock import BedrockLlm

        return BedrockLlm(chosen.llm_model)
    if chosen.llm_provider == "openai" and chosen.llm_model and chosen.llm_url:
        from chalicelib.core.llm_openai import OpenAiLlm

        known = _key_of(app_id, chosen.llm_secret)
        if known is not None:
            return OpenAiLlm(tool_services().http_of(app_id), chosen.llm_url, chosen.llm_model, known)
    return NoLlm()


def _key_of(app_id: int, name: str | None) -> Callable[[], str | None] | None:
    """What returns the endpoint's key when it is needed; None for an app that has none."""
    if name is None:
        return lambda: None
    found = secrets.stored(process.cache(), app_id, name)
    return None if found is None else lambda: secrets.opened(process.database(), process.cache(), found)
