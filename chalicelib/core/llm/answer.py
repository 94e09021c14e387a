"""Reading a chat completion: what an endpoint sent becomes a `Completion` or a refusal, never a guess."""

from __future__ import annotations

from typing import Any

from chalicelib.core import strict_json
from chalicelib.core.errors import Invalid
from chalicelib.core.llm.errors import invalid_answer, refused
from chalicelib.core.llm.model import Completion, Usage
from chalicelib.core.llm.request import is_model
from chalicelib.core.settings import ONE_MIB

MAX_ANSWER_BYTES = 5 * ONE_MIB
# More than any model reads or writes; a sum of such numbers still fits every column and metric.
MAX_COUNT = 10**9
MAX_FINISH_REASON = 64
# Codes of OpenAI and of those who speak as it does. A word that is not among them may be a piece of the prompt.
REASONS = frozenset({
    "account_deactivated", "billing_hard_limit_reached", "content_filter", "content_policy_violation",
    "context_length_exceeded", "insufficient_quota", "invalid_api_key", "invalid_request_error",
    "model_not_found", "rate_limit_exceeded", "server_error", "string_above_max_length",
    "unsupported_parameter", "unsupported_value",
})  # fmt: skip


def read_completion(body: bytes, model: str) -> Completion:
    """Return what a model answered.

    Parameters
    ----------
    body
        A chat completion as JSON.
    model
        What was asked for, where the answer names no model.

    Raises
    ------
    errors.UpstreamFailed
        `llm.invalid_answer`, `llm.refused`.
    """
    try:
        answer = strict_json.parse(body, max_bytes=MAX_ANSWER_BYTES)
    except Invalid as error:
        raise invalid_answer("it is no JSON that can be read in one way") from error
    choice = _choice(answer)
    message, finish_reason = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict):
        raise invalid_answer("its choice has no message")
    if message.get("refusal") or finish_reason == "content_filter":
        raise refused()
    named = answer.get("model")
    return Completion(
        text=_text(message.get("content"), finish_reason),
        usage=usage_of(answer.get("usage"), "prompt_tokens", "completion_tokens"),
        model=named if isinstance(named, str) and is_model(named) else model,
        finish_reason=_finish_reason(finish_reason),
        reasoning=_reasoning(message),
    )


def read_reason(body: bytes) -> str | None:
    """Return the code of a failure as the endpoint states it, if it is a known one."""
    try:
        told = strict_json.parse(body, max_bytes=MAX_ANSWER_BYTES)
    except Invalid:
        return None  # a proxy's page: the status says enough
    error = told.get("error") if isinstance(told, dict) else None
    said = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return next((code for code in said if isinstance(code, str) and code in REASONS), None)


def usage_of(told: Any, input_name: str, output_name: str) -> Usage:
    """Return the usage of one call; what is no count is 0, since an answer is not thrown away for its bill."""
    counts = told if isinstance(told, dict) else {}
    return Usage(_count(counts.get(input_name)), _count(counts.get(output_name)), 1)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else 0


def _choice(answer: Any) -> dict[str, Any]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise invalid_answer("it has no choice")
    return choices[0]


def _text(content: Any, finish_reason: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None and finish_reason == "length":
        return ""  # all tokens went into the reasoning
    if not isinstance(content, list):
        raise invalid_answer("its message has no content")
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    said = [text for text in texts if isinstance(text, str)]
    if not said or len(said) != len(texts):
        raise invalid_answer("its content has no text")
    return "".join(said)


def _finish_reason(value: Any) -> str:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_FINISH_REASON else "unknown"


def _reasoning(message: dict[str, Any]) -> str | None:
    for name in ("reasoning_content", "reasoning"):
        if isinstance(message.get(name), str) and message[name]:
            return str(message[name])
    return None
