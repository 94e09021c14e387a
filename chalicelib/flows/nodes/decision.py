"""The node type `decision-making`: a model says which branch is taken."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.flows.dsl.model import Node, plain_handle
from chalicelib.flows.dsl.nodes import is_default
from chalicelib.flows.dsl.values import LiteralError, convert_literal
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import BRANCH_FAILED, OUTPUT_MISFIT, NodeError
from chalicelib.flows.nodes import json_answers
from chalicelib.flows.nodes.asking import ask, exchange
from chalicelib.flows.nodes.prompts import Prompt, choosing, rendered, user_text

if TYPE_CHECKING:
    from chalicelib.flows.nodes.model_services import ModelServices

Intent = Mapping[str, Any]

_NAMES = frozenset({"class_name", "className", "name"})
_ID = re.compile(r"intent-one-of::[0-9A-Za-z-]++")
_AROUND = " \t\r\n\"'`.*"


def execute(services: ModelServices, call: Call) -> Result:
    """Ask which intent the user has; one that there is not is the default.

    Raises
    ------
    engine.errors.NodeError
        23300 where the model fails, 23100 where it names no intent and none is the default, 20601 where an output's
        type cannot hold the name.
    """
    intents: Sequence[Intent] = call.node.params["intentChains"]
    default = next((intent for intent in intents if is_default(call.node.type, intent)), None)
    prompt = Prompt(
        (rendered(call, "systemTemplate"), choosing(map(_listed, intents), default is not None)),
        user_text(call),
        _schema(intents, default is not None),
    )
    answer = ask(services, call, prompt)
    intent = chosen(answer.text, intents) or default
    if intent is None:
        message = "The language model named none of the intents, and none is the default."
        raise answer.fault(message, BRANCH_FAILED)
    return Result(
        _outputs(call.node, intent),
        branch=plain_handle(intent["id"]),
        usage=answer.usage,
        exchange=exchange(call, prompt, answer),
    )


def chosen(text: str, intents: Sequence[Intent]) -> Intent | None:
    """Return the intent that an answer names: `{"id": …}`, the id alone or in a sentence, or a name that only one has.

    An answer that names two names none.
    """
    by_id = {plain_handle(intent["id"]): intent for intent in intents}
    found = json_answers.first_object(text)
    if found is not None and isinstance(found.get("id"), str):
        return _named(found["id"], by_id)
    text = json_answers.unfenced(text)
    exact = _named(text, by_id)
    if exact is not None:
        return exact
    mentioned = set(_ID.findall(text))
    return by_id.get(mentioned.pop()) if len(mentioned) == 1 else None


def _named(text: str, by_id: Mapping[str, Intent]) -> Intent | None:
    said = text.strip(_AROUND)
    intent = by_id.get(plain_handle(said))
    if intent is not None or not said:
        return intent
    same = [intent for intent in by_id.values() if intent["name"].strip(_AROUND) == said]
    return same[0] if len(same) == 1 else None


def _listed(intent: Intent) -> dict[str, Any]:
    listed = {
        "id": plain_handle(intent["id"]),
        "name": intent["name"],
        "description": intent.get("description", ""),
    }
    return {**listed, "default": True} if is_default("decision-making", intent) else listed


def _schema(intents: Sequence[Intent], has_default: bool) -> dict[str, Any]:
    ids = [plain_handle(intent["id"]) for intent in intents]
    choice = {"type": "string", "enum": ids if has_default else [*ids, ""]}
    return {"type": "object", "properties": {"id": choice}, "required": ["id"], "additionalProperties": False}


def _outputs(node: Node, intent: Intent) -> dict[str, Any]:
    """`id` is the intent's id; its name goes to `class_name`, `name`, or the one output that there is."""
    outputs: dict[str, Any] = {}
    kinds = Counter(output.name == "id" for output in node.outputs)
    for output in node.outputs:
        if output.name == "id":
            value = plain_handle(intent["id"])
        elif output.name in _NAMES or kinds[False] == 1:
            value = intent["name"]
        else:
            continue
        try:
            outputs[output.name] = convert_literal(value, output.schema)
        except LiteralError as error:
            message = f"outputs.{output.name}: the intent {error}."
            raise NodeError(OUTPUT_MISFIT, message, is_transient=False) from None
    return outputs
