"""The agents of this process: `chalicelib/agents/*`, loaded once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from chalicelib.agents.container import ServiceContainer
from chalicelib.agents.loading.loader import AgentLoader, load_agents
from chalicelib.agents.loading.registry import AgentRegistry
from chalicelib.core import process

DIRECTORY = Path(__file__).resolve().parents[1]
PACKAGE = "chalicelib.agents"

_lock = threading.Lock()
_loader: AgentLoader | None = None


def loader_of_process(container: ServiceContainer | None = None) -> AgentLoader:
    """Return this process's loader, with all agents loaded; the first caller loads them, others wait for it.

    The database is not asked for anything, so that agents load while it is away. After `process.forget` they are loaded
    again, under the environment of then, without importing anything twice.

    Parameters
    ----------
    container
        The services that were made before; only their names are used, for the log.

    Raises
    ------
    LoadError
        A shared model breaks the rules.
    """
    global _loader
    with _lock:
        if _loader is None:
            services = container or ServiceContainer()
            _loader = load_agents(DIRECTORY, PACKAGE, services, environment=os.environ)
        return _loader


def registry_of_process(container: ServiceContainer | None = None) -> AgentRegistry:
    """Return the agents of this process; see `loader_of_process`."""
    return loader_of_process(container).registry


def forget() -> None:
    """Let the next use load the agents again."""
    global _loader
    with _lock:
        _loader = None


process.on_forget(forget)
