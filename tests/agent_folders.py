"""Agent packages in a temporary folder, importable under a name of their own, and gone when the test ends."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Table

from chalicelib.agents.container import ServiceContainer
from chalicelib.agents.loading.discovery import SHARED_PACKAGE
from chalicelib.agents.loading.loader import AgentLoader, load_agents
from chalicelib.agents.loading.registry import AgentRegistry
from chalicelib.agents.loading.traces import Traces
from chalicelib.agents.spec import LoadedAgent
from chalicelib.core.database import Base

AGENT = """
from chalicelib.agents.base import AgentBase


class Entry(AgentBase):
    def __init__(self):
        super().__init__(name="{name}", description="An agent of a test.")

    def invoke(self, message, thread_id, context):
        return message
"""

# An own history table of {name}, whose class is {cls}History.
HISTORY = """
from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.agents.columns import OwnTable
from chalicelib.core.database import Base, TimestampMixin


class {cls}History(OwnTable, Base, TimestampMixin):
    __tablename__ = "agentflow_{name}_history"
    __table_args__ = (Index("idx_thread_id_created", "app_id", "thread_id", "created_at", "id"),)
    thread_id: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(50))
    content: Mapped[str] = mapped_column(Text)
"""


class AgentFolders:
    """A package of agents.

    Parameters
    ----------
    root
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.package = f"agents_{uuid4().hex}"
        self.directory = root / self.package
        self.directory.mkdir()
        (self.directory / "__init__.py").touch()
        self.environment: dict[str, str] = {}
        self.loader: AgentLoader | None = None

    def add(
        self,
        name: str,
        *,
        folder: str | None = None,
        yaml: str | None = None,
        extra: str = "",
        agent: str | None = None,
        models: Mapping[str, str] | None = None,
    ) -> Path:
        """Write one agent and return its folder.

        Parameters
        ----------
        yaml
            All of agent.yaml; without it a good one is written, with `extra` at its end.
        agent
            agent.py; `{name}` is replaced.
        models
            Texts of the files in models/, `__init__.py` among them or not.
        """
        place = self.directory / (folder or name)
        (place / "prompts").mkdir(parents=True, exist_ok=True)
        good = f"name: {name}\nversion: 1.0.0\ndescription: An agent of a test.\nentry_class: Entry\n{extra}"
        files = {"__init__.py": "", "agent.yaml": good if yaml is None else yaml}
        files["agent.py"] = (AGENT if agent is None else agent).replace("{name}", name)
        files |= {f"models/{file}": text for file, text in (models or {}).items()}
        for file, text in files.items():
            (place / file).parent.mkdir(exist_ok=True)
            (place / file).write_text(text)
        return place

    def add_history(self, name: str, cls: str, **further: Any) -> Path:
        """Write an agent that keeps its history in its own table."""
        agent = AGENT.replace(
            "class Entry(AgentBase):",
            f"from {self.package}.{further.get('folder', name)}.models import {cls}History\n\n"
            f"class Entry(AgentBase):\n    history_model = {cls}History\n",
        )
        models = {
            "history.py": HISTORY.replace("{name}", name).replace("{cls}", cls),
            "__init__.py": f"from .history import {cls}History\n\n__all__ = ['{cls}History']\n",
        }
        return self.add(name, agent=agent, models=models, **further)

    def load(self, shared_package: str = SHARED_PACKAGE) -> AgentRegistry:
        """Load all that was added."""
        self.loader = load_agents(
            self.directory,
            self.package,
            ServiceContainer(),
            shared_package=shared_package,
            environment=self.environment,
        )
        return self.loader.registry

    def load_one(self) -> LoadedAgent:
        """Load all and return the only one."""
        (loaded,) = self.load().all()
        return loaded

    def reload(self, name: str) -> LoadedAgent:
        """Reload one of them."""
        assert self.loader is not None
        return self.loader.reload(name)


def mapped() -> set[type[Base]]:
    """Return every class that is mapped, or half so."""
    return {manager.class_ for manager in list(Base.registry._managers)}


def tables() -> set[Table]:
    """Return every table that the models declare."""
    return set(Base.metadata.tables.values())


@contextmanager
def agent_folders(root: Path) -> Iterator[AgentFolders]:
    """Yield an importable package of agents; nothing of it is left in the process afterwards."""
    importlib.import_module(SHARED_PACKAGE)
    folders = AgentFolders(root)
    # What the whole suite holds need not be looked through each time a trace is undone.
    gc.freeze()
    before = mapped(), tables()
    traces = Traces([folders.package])
    # A file that a test writes anew within one second would be taken from its bytecode.
    wrote_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(root))
    try:
        yield folders
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = wrote_bytecode
        folders.loader = None
        traces.undo()
        gc.unfreeze()
        assert (mapped(), tables()) == before
        assert not [name for name in sys.modules if name.startswith(folders.package)]
