"""The node type `llm`: a prompt, and what a model says to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.flows.dsl.model import Node
from chalicelib.flows.dsl.values import LiteralError, convert_literal
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import LLM_FAILED, OUTPUT_MISFIT
from chalicelib.flows.nodes import json_answers
from chalicelib.flows.nodes.asking import Answer, ask, exchange
from chalicelib.flows.nodes.prompts import FORMATS, JSON, TEXT, Prompt, rendered

if TYPE_CHECKING:
    from chalicelib.flows.nodes.model_services import ModelServices

REASONING = "REASONING_CONTENT"


def execute(services: ModelServices, call: Call) -> Result:
    """Ask, and fill the first declared output with the answer.

    Raises
    ------
    engine.errors.NodeError
        23300 where the model fails or does not answer in JSON when it should, 20601 where the answer is not of the
        output's type.
    """
    wanted = call.node.params.get("respFormat", TEXT)
    prompt = Prompt(
        (rendered(call, "systemTemplate"), FORMATS.get(wanted, "")),
        rendered(call, "template"),
        {} if wanted == JSON else None,
    )
    answer = ask(services, call, prompt)
    outputs = _answered(call.node, answer, is_json=wanted == JSON)
    return Result(
        {**outputs, REASONING: answer.reasoning},
        usage=answer.usage,
        exchange=exchange(call, prompt, answer),
    )


def _answered(node: Node, answer: Answer, *, is_json: bool) -> dict[str, Any]:
    value: Any = answer.text
    if is_json:
        value = json_answers.whole_object(answer.text)
        if value is None:
            raise answer.fault("The language model did not answer with a JSON object.", LLM_FAILED)
    output = next((output for output in node.outputs if output.name != REASONING), None)
    if output is None:
        return {}
    if output.schema["type"] == "string":
        return {output.name: json_answers.unfenced(answer.text) if is_json else answer.text}
    if not is_json:
        value = json_answers.unfenced(answer.text)
    try:
        return {output.name: convert_literal(value, output.schema)}
    except LiteralError as error:
        raise answer.fault(f"outputs.{output.name}: the answer {error}.", OUTPUT_MISFIT) from None
