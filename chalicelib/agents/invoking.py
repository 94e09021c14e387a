"""Talking to an agent: find it, hand it its services for this call, keep the turn.

An agent may call models, tools and plugins, so it runs outside any unit of work; what was said is stored afterwards, in
the unit that answers the request: a turn is stored as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.agents import catalog
from chalicelib.agents.base import AgentBase, AgentServices, Reply
from chalicelib.agents.catalog import DISABLED, Agent
from chalicelib.agents.container import Invocation
from chalicelib.agents.history.place import Place
from chalicelib.agents.history.thread import ThreadHistory, Turn
from chalicelib.agents.services import Services
from chalicelib.agents.spec import AgentSpec
from chalicelib.agents.time_left import BoundedLlm, TimeLeft
from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Conflict, HotplugError, Unavailable, UpstreamFailed
from chalicelib.core.ids import new_ulid
from chalicelib.core.llm.model import MeteredLlm, Usage

MAX_REPLY_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Answered:
    """An agent's answer that is not stored yet.

    Parameters
    ----------
    begins
        The caller named no thread.
    """

    thread_id: str
    message: str
    reply: Reply
    begins: bool
    usage: Usage
    history: ThreadHistory | None

    def as_dict(self, is_new: bool) -> dict[str, Any]:
        return {
            "threadId": self.thread_id,
            "message": self.reply.text,
            "metadata": None if self.reply.metadata is None else dict(self.reply.metadata),
            "isNewConversation": is_new,
            "usage": self.usage.as_dict(),
        }


def invoke(
    services: Services,
    caller: Caller,
    name: str,
    *,
    message: str,
    thread_id: str | None = None,
    context: Mapping[str, Any] | None = None,
    within_s: float | None = None,
) -> Answered:
    """Let an agent answer a message; who asked stores the turn (`store`). Not inside a unit.

    Parameters
    ----------
    thread_id
        The conversation to go on with; None begins one.
    within_s
        Seconds after which the agent's models, tools and plugins are not waited for any more; None leaves that to each
        of them.

    Raises
    ------
    errors.NotFound
        `agent.not_found`.
    errors.Conflict
        `agent.disabled`.
    errors.Unavailable
        `agent.load_failed`, `agent.tables_not_ready`; nothing was done.
    errors.UpstreamFailed
        `agent.failed`: the agent's own code raised.
    errors.HotplugError
        What a service that the agent used raised; `agent.timeout` where the time had run out before.
    """
    agent = catalog.find(services, name)
    instance, spec = _ready(services, agent)
    thread = thread_id or new_ulid()
    handed, llm, history = _handed(services, caller, agent, thread, TimeLeft.of(within_s))
    mine = instance.bound(handed)
    with telemetry.operation("agent.invoke", agent=name, version=spec.version) as operation:
        try:
            with operation.phase("agent"):
                reply = _reply(name, mine.invoke(message, thread, context or {}))
        except HotplugError:
            _measure(failed=True)
            raise
        except Exception as error:
            # An agent is a part of the release: whatever it raises is told by its kind, and found in the log.
            telemetry.exception("agent.crashed", error, agent=name)
            _measure(failed=True)
            raise UpstreamFailed(f"The agent failed: {type(error).__name__}.", code="agent.failed") from error
        _measure(failed=False)
        usage = Usage() if llm is None else llm.usage
        operation.note(tokens=usage.input_tokens + usage.output_tokens)
    return Answered(thread, message, reply, thread_id is None, usage, history)


def store(session: Unit, answered: Answered) -> dict[str, Any]:
    """Store what was said and return the answer's resource; of an agent without a history nothing is kept.

    Raises
    ------
    errors.HotplugError
        Those of `ThreadHistory.store`.
    """
    if answered.history is None:
        return answered.as_dict(answered.begins)
    return answered.as_dict(answered.history.store(session, Turn(answered.message, answered.reply)))


def _ready(services: Services, agent: Agent) -> tuple[AgentBase, AgentSpec]:
    loaded = agent.loaded
    if loaded.error is not None:
        raise Unavailable(
            "The agent could not be loaded.",
            code="agent.load_failed",
            extensions={"loadError": loaded.error.as_dict()},
            retry_after=60,
        )
    if agent.state == DISABLED or loaded.agent is None or loaded.spec is None:
        raise Conflict("The agent is disabled.", code="agent.disabled")
    waiting = catalog.tables_not_ready(services, loaded)
    if waiting:
        raise Unavailable(
            "Tables of the agent are not as it needs them; see GET /agents/tables.",
            code="agent.tables_not_ready",
            extensions={"tables": waiting},
            retry_after=30,
        )
    return loaded.agent, loaded.spec


def place_of(agent: Agent) -> Place | None:
    """Return where an agent's messages are; None for one without a history."""
    mode = agent.history_mode
    if mode is None:
        return None
    moving_to = agent.decided.moving_to if agent.decided else None
    return Place(agent.loaded.history_models, mode, moving_to)


def _handed(
    services: Services, caller: Caller, agent: Agent, thread_id: str, left: TimeLeft
) -> tuple[AgentServices, MeteredLlm | None, ThreadHistory | None]:
    """What the agent works with in this call, the meter of its model, and where its messages go."""
    made = services.container.services(Invocation(agent.loaded, caller, thread_id, left))
    llm = None if made.llm is None else MeteredLlm(BoundedLlm(made.llm, left))
    history, place = None, place_of(agent)
    if place is not None:
        history = ThreadHistory(services.database, caller.app_id, agent.name, thread_id, place)
    return replace(made, llm=llm, history=history), llm, history


def _reply(name: str, given: Any) -> Reply:
    reply = Reply(given) if isinstance(given, str) else given
    if not isinstance(reply, Reply) or not isinstance(reply.text, str):
        raise UpstreamFailed(f"The agent {name} answered with no text.", code="agent.reply_invalid")
    if len(reply.text) > MAX_REPLY_CHARACTERS:
        raise UpstreamFailed(f"The agent {name} answered with too much text.", code="agent.reply_invalid")
    return reply


def _measure(*, failed: bool) -> None:
    telemetry.metric("agent.invocations", 1)
    telemetry.metric("agent.failures", int(failed))
