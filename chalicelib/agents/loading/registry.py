"""The agents that this process has, loaded or not."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from chalicelib.agents.spec import LoadedAgent, OwnedTable


class AgentRegistry:
    """Agents by their names. Reading takes no lock: a change puts a new mapping in the place of the old one.

    Parameters
    ----------
    shared
        The tables that all agents share.
    """

    def __init__(self, shared: Sequence[OwnedTable] = ()) -> None:
        self.shared = tuple(shared)
        self._agents: dict[str, LoadedAgent] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> LoadedAgent | None:
        """Return an agent, also one that is disabled or could not be loaded; None where there is no such folder."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._agents)

    def all(self) -> list[LoadedAgent]:
        """Return all agents, by name."""
        agents = self._agents
        return [agents[name] for name in sorted(agents)]

    def register(self, loaded: LoadedAgent) -> None:
        """Add an agent.

        Raises
        ------
        ValueError
            The name is taken.
        """
        with self._lock:
            if loaded.name in self._agents:
                raise ValueError(f"the agent {loaded.name} is registered already")
            self._agents = {**self._agents, loaded.name: loaded}

    def replace(self, loaded: LoadedAgent) -> None:
        """Put an agent in the place of the one of its name; whoever has the old one keeps it.

        Raises
        ------
        KeyError
            There is none of its name.
        """
        with self._lock:
            if loaded.name not in self._agents:
                raise KeyError(loaded.name)
            self._agents = {**self._agents, loaded.name: loaded}


def agent_tables(registry: AgentRegistry) -> list[OwnedTable]:
    """Return every table of the deployment's agents once: the shared ones by name, then the others by name."""
    own = {
        table.name: table
        for loaded in registry.all()
        for table in loaded.tables
        if table.owner == loaded.name
    }
    return sorted(registry.shared, key=lambda table: table.name) + [own[name] for name in sorted(own)]
