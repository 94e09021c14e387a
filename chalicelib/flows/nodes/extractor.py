"""The node type `extractor-parameter`: a model reads the declared outputs out of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chalicelib.flows.dsl.model import STANDARD_OUTPUTS, Output
from chalicelib.flows.dsl.values import conforms
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import OUTPUT_MISFIT
from chalicelib.flows.nodes import json_answers
from chalicelib.flows.nodes.asking import ask, exchange
from chalicelib.flows.nodes.prompts import Prompt, extracting, rendered, user_text
from chalicelib.flows.nodes.repair import Misfit, repaired

if TYPE_CHECKING:
    from chalicelib.flows.nodes.model_services import ModelServices

_TOLD = ("type", "description", "required", "enum")


def execute(services: ModelServices, call: Call) -> Result:
    """Ask for a JSON object of the declared outputs, and repair what comes.

    Raises
    ------
    engine.errors.NodeError
        23300 where the model fails, 20601 where its answer cannot be made to fit.
    """
    declared = [output for output in call.node.outputs if output.name not in STANDARD_OUTPUTS]
    schema = asked_schema(declared)
    prompt = Prompt(
        (rendered(call, "systemTemplate"), extracting(schema), rendered(call, "instruction")),
        user_text(call),
        schema,
    )
    answer = ask(services, call, prompt)
    try:
        outputs = read(answer.text, declared)
    except Misfit as error:
        raise answer.fault(f"The language model's answer {error}.", OUTPUT_MISFIT) from None
    return Result(outputs, usage=answer.usage, exchange=exchange(call, prompt, answer))


def asked_schema(outputs: Iterable[Output]) -> dict[str, Any]:
    """Return the JSON Schema of the answer: of the declared ones, what models and endpoints understand."""
    return {
        "type": "object",
        "properties": {output.name: _asked(output.schema) for output in outputs},
        "additionalProperties": False,
    }


def read(text: str, outputs: Iterable[Output]) -> dict[str, Any]:
    """Return the outputs as an answer has them.

    Raises
    ------
    repair.Misfit
    """
    found = json_answers.first_object(text)
    if found is None:
        raise Misfit("holds no JSON object")
    declared = {output.name: output.schema for output in outputs}
    if found and not found.keys() & declared.keys():
        # Nothing but defaults would come of it, as if the text had not said anything.
        raise Misfit("has none of the declared names")
    values = {name: repaired(found.get(name), schema, f"/{name}") for name, schema in declared.items()}
    for name, schema in declared.items():
        # What no repair gives: names that an object must have without their being declared.
        for misfit in conforms(values[name], schema)[:1]:
            raise Misfit(f"{misfit.message} at /{name}{misfit.pointer}")
    return values


def _asked(schema: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: schema[name] for name in _TOLD if name in schema and _is_said(name, schema[name])}
    if "properties" in schema:
        asked["properties"] = {name: _asked(part) for name, part in schema["properties"].items()}
    if "items" in schema:
        asked["items"] = _asked(schema["items"])
    return asked


def _is_said(name: str, value: Any) -> bool:
    """Whether a keyword has a value that a JSON Schema may have: only types are checked when a flow is published."""
    kinds: dict[str, type] = {"description": str, "required": list, "enum": list}
    return isinstance(value, kinds.get(name, str))
