"""What an agent's files say, and what became of loading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chalicelib.agents.base import AgentBase
    from chalicelib.core.database import Base


@dataclass(frozen=True)
class AgentSpec:
    """agent.yaml, checked, its `${VAR}`s resolved.

    Parameters
    ----------
    folder
        The agent's directory.
    module
        Its import name, `chalicelib.agents.common_qa`.
    """

    name: str
    version: str
    description: str
    entry_class: str
    folder: Path
    module: str
    author: str = ""
    enabled: bool = True
    dependencies: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    tools: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()


class LoadError(Exception):
    """Why an agent could not be loaded: a stable code, and a sentence for its author."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "detail": self.detail}


@dataclass(frozen=True)
class OwnedTable:
    """A table that an agent declares or uses.

    Parameters
    ----------
    owner
        The agent's name; `shared` for a shared table.
    """

    name: str
    owner: str
    mode: str
    model: type[Base]


@dataclass(frozen=True)
class LoadedAgent:
    """An agent as this process has it.

    Parameters
    ----------
    name
        That of agent.yaml; the directory's where that could not be read, or is another agent's.
    spec
        None where agent.yaml is refused or says that the agent is disabled; `config` is empty where it could not be
        resolved.
    agent
        The instance; None where it is disabled in agent.yaml or could not be loaded.
    tables
        Its own first, then the shared ones that its `models` package exports.
    history_models
        The models that can keep its history, by mode; the one that it names is `history_mode`.
    error
        Why there is no instance; None for one that is disabled.
    warnings
        What its author should mend, as texts.
    generation
        The `agent.generation` that the instance was made under; None for one made before the row was read.
    """

    name: str
    spec: AgentSpec | None
    agent: AgentBase | None
    tables: tuple[OwnedTable, ...] = ()
    history_models: Mapping[str, type[Base]] = field(default_factory=dict)
    history_mode: str | None = None
    error: LoadError | None = None
    warnings: tuple[str, ...] = ()
    generation: int | None = None
