"""What an agent is written against: `AgentBase`, and the services that an invocation hands it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from chalicelib.agents.loading.prompts import read_prompt
from chalicelib.core.errors import HotplugError, Unavailable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from chalicelib.agents.spec import AgentSpec
    from chalicelib.core.caller import Caller
    from chalicelib.core.database import Base, Unit
    from chalicelib.core.llm.model import Llm


CALL_TIMEOUT_MS = 20_000
"""What a call of a tool may take: the gateway gives the whole answer 29 s."""

_being_made: ContextVar[AgentSpec | None] = ContextVar("hotplug_agent_being_made", default=None)


@contextmanager
def describing(spec: AgentSpec) -> Iterator[None]:
    """Give the agent that is made inside its description, so that its `__init__` can use `config` and prompts."""
    token = _being_made.set(spec)
    try:
        yield
    finally:
        _being_made.reset(token)


@dataclass(frozen=True)
class Message:
    """One stored message of a thread."""

    id: int
    role: str
    content: str
    created_at: datetime
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """What an agent answers.

    Parameters
    ----------
    metadata
        A JSON object that is stored with the message and shown with it.
    """

    text: str
    metadata: Mapping[str, Any] | None = None


class ScopedDatabase(Protocol):
    """The database as one agent of one app sees it: rows of others are not there, its own are marked by themselves."""

    def session_getter(self) -> AbstractContextManager[Unit]:
        """Yield a session; commit on leaving, rollback on an exception."""
        ...

    def reads(self) -> AbstractContextManager[Session]:
        """Yield a session that reads."""
        ...

    def run(self, work: Any) -> Any:
        """Run `work(session)` as one unit, again after a deadlock."""
        ...


class AgentTools(Protocol):
    """The tools that agent.yaml allows, with the calling app's credentials."""

    def call(
        self,
        tool: str,
        operation_id: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> Any:
        """Call an operation and return the answer's body. Not inside a unit.

        Parameters
        ----------
        tool
            As written in agent.yaml: a tool's id, or the name of a tool of the app or shared with it.
        arguments
            In the groups `path`, `query`, `header`, `cookie`, `body`.
        timeout_ms
            Milliseconds for the call with all its attempts; 25,000 at most.

        Raises
        ------
        errors.Forbidden
            `agent.tool_not_allowed`.
        errors.NotFound
            `agent.tool_not_found`.
        errors.HotplugError
            Those of `tools.running.run`.
        """
        ...


class AgentPlugins(Protocol):
    """The plugins that agent.yaml allows."""

    def execute(self, plugin: str, params: Any = None, *, action: str | None = None) -> Any:
        """Run an action and return its result. Not inside a unit.

        Parameters
        ----------
        plugin
            As written in agent.yaml: a plugin's id, or the name of an enabled plugin of the app or shared with it.
        action
            None for the action of a plugin that declares none.

        Raises
        ------
        errors.Forbidden
            `agent.plugin_not_allowed`.
        errors.NotFound
            `agent.plugin_not_found`.
        errors.HotplugError
            Those of `plugins.execution.execute`.
        """
        ...


class History(Protocol):
    """The messages of the thread that is being answered, wherever they are kept.

    The user's message and the reply are stored by the platform, with what `add` was given, when the agent has answered:
    a turn is stored as a whole or not at all. What `recent` returns is what was stored before this turn.
    """

    def recent(self, limit: int = 20) -> Sequence[Message]:
        """Return the newest messages of the thread, the oldest of them first; at most `limit` (1..200)."""
        ...

    def add(self, role: str, content: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Store a message between the user's and the reply: what a tool said, for instance."""
        ...


@dataclass(frozen=True)
class AgentServices:
    """What an agent may use in one invocation; None for what this deployment has not."""

    caller: Caller
    database: ScopedDatabase | None = None
    llm: Llm | None = None
    tools: AgentTools | None = None
    plugins: AgentPlugins | None = None
    history: History | None = None


@dataclass(frozen=True)
class _Missing:
    agent: str

    def service(self, name: str) -> Unavailable:
        return Unavailable(
            f"The agent {self.agent} needs the service {name}, which is not there.",
            code="agent.service_missing",
        )


class AgentBase:
    """Subclass this in `agent.py` and name the class in agent.yaml as `entry_class`.

    One instance is made per process and load; each invocation works on a shallow copy of it that knows the calling app.
    What `__init__` makes is shared by all of them, so it must not change afterwards.

    Parameters
    ----------
    name
        As in agent.yaml.
    """

    # The model that `self.history` keeps its messages in; None for an agent without a history.
    history_model: ClassVar[type[Base] | None] = None

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self._spec: AgentSpec | None = _being_made.get()
        self._prompts: dict[str, str] = {}
        self._services: AgentServices | None = None

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Reply | str:
        """Answer a message.

        Parameters
        ----------
        thread_id
            The conversation; the same one in two apps, or of two agents, are two.
        context
            What the caller sent beside the message.
        """
        raise NotImplementedError

    @property
    def config(self) -> Mapping[str, Any]:
        """`config` of agent.yaml, its `${VAR}`s resolved."""
        return {} if self._spec is None else self._spec.config

    def load_prompt(self, file: str) -> str:
        """Return the text of a file of the agent's prompts/ folder; it is read once, and again after a reload.

        Parameters
        ----------
        file
            A path inside prompts/.

        Raises
        ------
        errors.HotplugError
            `agent.prompt`: a path that leads elsewhere, no such file, over 256 KiB, not UTF-8.
        """
        if self._spec is None:
            raise HotplugError(f"The agent {self.name} was not loaded from a folder.", code="agent.prompt")
        if file not in self._prompts:
            self._prompts[file] = read_prompt(self._spec.folder, file)
        return self._prompts[file]

    @property
    def database(self) -> ScopedDatabase:
        """The database, scoped to the calling app and this agent."""
        found = self._services.database if self._services else None
        if found is None:
            raise _Missing(self.name).service("database")
        return found

    @property
    def llm(self) -> Llm:
        """The language model; ask `self.llm.configured` where the agent can do without one."""
        found = self._services.llm if self._services else None
        if found is None:
            raise _Missing(self.name).service("llm")
        return found

    @property
    def tools(self) -> AgentTools:
        """The tools of agent.yaml's `tools`."""
        found = self._services.tools if self._services else None
        if found is None:
            raise _Missing(self.name).service("tools")
        return found

    @property
    def plugins(self) -> AgentPlugins:
        """The plugins of agent.yaml's `plugins`."""
        found = self._services.plugins if self._services else None
        if found is None:
            raise _Missing(self.name).service("plugins")
        return found

    @property
    def history(self) -> History:
        """The thread's earlier messages."""
        found = self._services.history if self._services else None
        if found is None:
            raise _Missing(self.name).service("history")
        return found

    def bound(self, services: AgentServices) -> Self:
        """Return a copy that works for one invocation."""
        mine = copy.copy(self)
        mine._services = services
        return mine
