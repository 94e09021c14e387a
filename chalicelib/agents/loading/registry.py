"""The agents of one process, by name."""

from __future__ import annotations

from collections.abc import Iterator

from chalicelib.agents.spec import LoadedAgent


class AgentRegistry:
    """What was loaded, good and bad: an agent is in it once all of it is known, and never half."""

    def __init__(self) -> None:
        self._agents: dict[str, LoadedAgent] = {}

    def register(self, loaded: LoadedAgent) -> None:
        """Add an agent.

        Raises
        ------
        ValueError
            The name is taken; nothing is overwritten.
        """
        if loaded.name in self._agents:
            raise ValueError(f"an agent {loaded.name} is registered already")
        self._agents[loaded.name] = loaded

    def replace(self, loaded: LoadedAgent) -> None:
        """Put an agent in the place of the one with its name."""
        if loaded.name not in self._agents:
            raise ValueError(f"no agent {loaded.name} is registered")
        self._agents[loaded.name] = loaded

    def get(self, name: str) -> LoadedAgent | None:
        """Return an agent; None for one that this release does not have."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """Return all names in their order."""
        return sorted(self._agents)

    def __iter__(self) -> Iterator[LoadedAgent]:
        return (self._agents[name] for name in self.names())

    def __len__(self) -> int:
        return len(self._agents)
