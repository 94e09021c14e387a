"""Question nodes: what is asked, and what an answer means to the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chalicelib.flows.dsl.model import Node, plain_handle
from chalicelib.flows.dsl.nodes import is_default
from chalicelib.flows.dsl.templates import Template, TemplateError
from chalicelib.flows.engine.call import Result
from chalicelib.flows.engine.errors import BRANCH_FAILED, NO_ANSWER, NODE_FAILED, Interrupt, NodeError
from chalicelib.flows.engine.steps import Answer, Question

QUESTION = "question-answer"
DEFAULT_TIMEOUT_MINUTES = 24 * 60
MAX_QUESTION = 64 * 1024
"""Characters. A question stands in the run's row while it waits, and in every answer about the run."""


def question_of(node: Node, key: str, inputs: Mapping[str, Any]) -> Question:
    """Return what a node asks.

    Raises
    ------
    NodeError
        The question's template does not render, or to more than 65,536 characters.
    """
    try:
        text = Template.parse(node.params["question"]).render(inputs)
    except TemplateError as error:
        raise NodeError(NODE_FAILED, f"question {error}", is_transient=False) from error
    if len(text) > MAX_QUESTION:
        message = f"The question has more than {MAX_QUESTION} characters."
        raise NodeError(NODE_FAILED, message, is_transient=False)
    options = tuple(
        {
            "id": plain_handle(option["id"]),
            "name": option.get("name", ""),
            "content": option.get("content", ""),
        }
        for option in _options(node)
    )
    minutes = node.params.get("timeout", DEFAULT_TIMEOUT_MINUTES)
    return Question(key, node.id, node.params["answerType"], text, options, float(minutes) * 60)


def result_of(node: Node, question: Question, answer: Answer) -> Result:
    """Return what a node gives for an answer.

    Raises
    ------
    Interrupt
        23802: the user ended the run.
    NodeError
        23802: a reply is needed, and there is none; 23100: nothing fits, and there is no default.
    """
    if answer.action == "abort":
        raise Interrupt(NO_ANSWER, "The question was refused, which ends the run.")
    has_answer = answer.action == "resume"
    if not has_answer and node.params.get("needReply", False):
        why = "expired" if answer.action == "expired" else "was skipped"
        raise NodeError(NO_ANSWER, f"The question {why}, and it needs a reply.", is_transient=False)
    if question.kind == "direct":
        return _result(question, "", _text(answer.content) if has_answer else "")
    option = _chosen(node, answer.content) if has_answer else None
    if option is None:
        option = next((one for one in _options(node) if is_default(QUESTION, one)), None)
    if option is None:
        message = "No option fits the answer, and there is no default."
        raise NodeError(BRANCH_FAILED, message, is_transient=False)
    chosen = plain_handle(option["id"])
    return _result(question, chosen, option.get("content") or option.get("name", ""), branch=chosen)


def _options(node: Node) -> list[Mapping[str, Any]]:
    if node.params["answerType"] != "option":
        return []
    options: list[Mapping[str, Any]] = node.params["optionAnswer"]
    return options


def _chosen(node: Node, content: Any) -> Mapping[str, Any] | None:
    """The option that an answer names, by id or by name."""
    if not isinstance(content, str):
        return None
    for option in _options(node):
        if plain_handle(content) == plain_handle(option["id"]):
            return option
    return next((option for option in _options(node) if content == option.get("name")), None)


def _result(question: Question, option_id: str, content: str, branch: str = "") -> Result:
    return Result({"id": option_id, "query": question.text, "content": content}, branch=branch)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
