"""The node `agent`: a message to an agent, in a conversation that goes on from run to run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from chalicelib.agents import invoking
from chalicelib.agents.invoking import Answered
from chalicelib.agents.names import MAX_MESSAGE
from chalicelib.agents.services import Services
from chalicelib.core.errors import HotplugError
from chalicelib.flows.dsl.model import Node
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import TOOL_FAILED, NodeError
from chalicelib.flows.nodes.outputs import fitting
from chalicelib.flows.nodes.refusals import refused

MESSAGE, METADATA, THREAD = "message", "metadata", "threadId"
MESSAGE_INPUTS = (MESSAGE, "query")
# A loop goes on with its conversation from round to round; the items of an iteration run at once, each in its own.
_ROUND = re.compile(r"(?<![^/])(loop::[^/\[]+)\[\d+\]")


def execute(services: Callable[[], Services], call: Call) -> Result:
    """Ask the agent as the app that runs the flow, store the turn, and return its reply.

    Raises
    ------
    NodeError
        23400, 20601.
    """
    name = _message_input(call.node)
    message = _text(call.inputs.get(name))
    context = {**call.node.params.get("context", {})}
    context |= {key: value for key, value in call.inputs.items() if key != name}
    found = services()
    try:
        answered = invoking.invoke(
            found,
            call.scope.caller,
            call.node.params["agentName"],
            message=message,
            thread_id=thread_of(call) if call.scope.history else None,
            context=context,
            within_s=call.seconds_left(),
        )
        if call.scope.history:
            found.database.run(lambda session: invoking.store(session, answered))
    except HotplugError as error:
        raise refused(error, TOOL_FAILED, call) from error
    outputs = fitting(_values(call, answered), call.node.outputs, "The reply")
    return Result(outputs, usage=answered.usage)


def thread_of(call: Call) -> str:
    """Return the conversation of a node: the same for a chat's end user in every run, else the run's own."""
    scope = call.scope
    conversation = [scope.uid, scope.chat_id] if scope.chat_id else [scope.run_id]
    place = [*conversation, str(scope.flow_id), _ROUND.sub(r"\1", call.key)]
    return "flow-" + hashlib.sha256(json.dumps(place).encode()).hexdigest()


def _message_input(node: Node) -> str:
    names = {one.name for one in node.inputs}
    for name in MESSAGE_INPUTS:
        if name in names:
            return name
    texts = [one.name for one in node.inputs if one.schema["type"] == "string"]
    if len(texts) != 1:
        raise NodeError(
            TOOL_FAILED,
            "The node has no input `message` or `query`, and not exactly one input that is a string.",
            is_transient=False,
        )
    return texts[0]


def _text(message: Any) -> str:
    """What `POST /agents/{agentName}/invoke` asks of a message."""
    if not isinstance(message, str) or not 0 < len(message) <= MAX_MESSAGE or "\0" in message:
        raise NodeError(
            TOOL_FAILED,
            f"The message to the agent must be a text of 1 to {MAX_MESSAGE} characters without NUL.",
            is_transient=False,
        )
    return message


def _values(call: Call, answered: Answered) -> Mapping[str, Any]:
    """The reply's parts by the names of outputs; without `message`, the first other one is the text."""
    metadata = answered.reply.metadata
    values: dict[str, Any] = {
        MESSAGE: answered.reply.text,
        METADATA: None if metadata is None else dict(metadata),
        THREAD: answered.thread_id if call.scope.history else "",
    }
    declared = [one.name for one in call.node.outputs]
    if MESSAGE not in declared:
        text = next((name for name in declared if name not in values), MESSAGE)
        values[text] = answered.reply.text
    return values
