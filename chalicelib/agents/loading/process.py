"""The agents of this deployment, as this process has them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from chalicelib.agents.loading.core_models import CoreModelsLoader
from chalicelib.agents.loading.loader import AgentLoader
from chalicelib.agents.loading.registry import AgentRegistry
from chalicelib.agents.spec import LoadedAgent, OwnedTable

DIRECTORY, PACKAGE = Path(__file__).resolve().parent.parent, "chalicelib.agents"


class Deployment:
    """Shared models first, then every agent; reloaded one by one when an admin asks for it.

    The database is not needed to load: which agents are enabled, and which tables are there, is asked at each call.
    """

    def __init__(
        self,
        directory: Path = DIRECTORY,
        package: str = PACKAGE,
        environment: Mapping[str, str] = os.environ,
        core_models: CoreModelsLoader | None = None,
    ) -> None:
        self.shared = (core_models or CoreModelsLoader()).load()
        self.registry = AgentRegistry()
        self._loader = AgentLoader(directory, package, self.registry, self.shared, environment)
        self._loader.load_all()
        self._generations: dict[str, int] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the names of all agents in their order."""
        return self.registry.names()

    def current(self, name: str, generation: int | None) -> LoadedAgent | None:
        """Return an agent, made anew where it was made before its last reload; None for one that is not there.

        Parameters
        ----------
        generation
            How often the agent was reloaded so far; None where nobody ever did.
        """
        with self._lock:
            # The first number seen is that of the instance at hand: the files of a process do not change.
            if generation is not None and self._generations.setdefault(name, generation) != generation:
                self._generations[name] = generation
                self._loader.reload(name)
            return self.registry.get(name)

    def tables(self) -> tuple[OwnedTable, ...]:
        """Return every table of every agent, each once, the shared ones first."""
        found = {table.name: table for table in self.shared.tables}
        for loaded in self.registry:
            found |= {table.name: table for table in loaded.tables}
        return tuple(found.values())


@lru_cache(maxsize=1)
def deployment_of_process() -> Deployment:
    """Return this process's agents, loaded on first use."""
    return Deployment()
