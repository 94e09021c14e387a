"""A model behind OpenAI's chat completions, by the one outbound client.

The wire format: https://platform.openai.com/docs/api-reference/chat/create. Many servers speak it, each with its own
members beside: only what is needed is read, and what is not understood is an error of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from chalicelib.core.errors import HotplugError, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.http_deadline import Deadline
from chalicelib.core.http_out import OutResponse
from chalicelib.core.http_retry import RETRY_BASE_S, RETRY_CEILING_S, is_transient
from chalicelib.core.llm import ChatMessage, ChatOptions, Completion, Usage

MAX_ATTEMPTS = 3
DEFAULT_RETRY_AFTER_S, MAX_RETRY_AFTER_S = 5, 3600
_AGAIN = frozenset({429, 500, 502, 503, 504})
_MAX_TOKENS = 2**31


class Sender(Protocol):
    """The outbound client on behalf of one app."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
    ) -> OutResponse:
        """Send one request; see `HttpOut.request`."""
        ...


class OpenAiLlm:
    """One endpoint.

    Parameters
    ----------
    url
        What stands before `/chat/completions`; a stranger may have chosen it, the client connects to public addresses
        only.
    key
        Returns the bearer token when it is needed, None for an endpoint without one.
    """

    configured = True

    def __init__(
        self, sender: Sender, url: str, model: str, key: Callable[[], str | None] = lambda: None
    ) -> None:
        self._sender = sender
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._key = key

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions | None = None) -> Completion:
        """Ask the model; see `Llm.chat`. At most three attempts, within the time of one."""
        import tenacity

        asked = options or ChatOptions()
        body = json.dumps(self._request(messages, asked), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._authorization()}
        deadline = Deadline.after(asked.timeout_s)

        def attempt() -> OutResponse:
            return self._sender.request(
                "POST", self._url, headers=headers, body=body, timeout_s=deadline.bound(None)
            )

        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(MAX_ATTEMPTS) | tenacity.stop_before_delay(asked.timeout_s),
            wait=tenacity.wait_random_exponential(multiplier=RETRY_BASE_S, max=RETRY_CEILING_S),
            # What names a time to come back is told so, and not asked again at once.
            retry=tenacity.retry_if_exception(is_transient) | tenacity.retry_if_result(_asks_again),
            retry_error_callback=lambda state: state.outcome.result(),  # type: ignore[union-attr]
        )
        try:
            answer = again(attempt)
        except UpstreamTimeout as error:
            raise UpstreamTimeout("The model did not answer in time.", code="llm.timeout") from error
        return _completion(_value(answer), asked.model or self._model)

    def _request(self, messages: Sequence[ChatMessage], asked: ChatOptions) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": asked.model or self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": asked.max_tokens,
            "stream": False,
        }
        if asked.temperature is not None:
            request["temperature"] = asked.temperature
        if asked.top_k is not None:
            request["top_k"] = asked.top_k
        if asked.json_schema is not None:
            request["response_format"] = _response_format(asked.json_schema)
        return request

    def _authorization(self) -> dict[str, str]:
        key = self._key()
        return {} if key is None else {"Authorization": f"Bearer {key}"}


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    if not schema:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def _asks_again(answer: OutResponse) -> bool:
    return answer.status in _AGAIN and answer.header("retry-after") is None


def _value(answer: OutResponse) -> Mapping[str, Any]:
    """The answer's JSON object; its error, of which the text may repeat the prompt, by its status alone."""
    if answer.status in _AGAIN:
        raise Unavailable(
            f"The model's endpoint is busy or out of order (status {answer.status}).",
            code="llm.unavailable",
            retry_after=_retry_after(answer),
        )
    if answer.status != 200:
        raise UpstreamFailed(
            f"The model's endpoint refused the call with status {answer.status}.",
            code="llm.failed",
            extensions={"upstream": {"status": answer.status}},
        )
    try:
        value = json.loads(answer.body)
    except ValueError as error:
        raise _invalid("is no JSON") from error
    if not isinstance(value, dict):
        raise _invalid("is no object")
    return value


def _retry_after(answer: OutResponse) -> int:
    text = answer.header("retry-after") or ""
    if text.isascii() and text.isdigit():
        return max(1, min(int(text[:6]), MAX_RETRY_AFTER_S))
    return DEFAULT_RETRY_AFTER_S


def _completion(value: Mapping[str, Any], model: str) -> Completion:
    choices = value.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise _invalid("has no choice")
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _invalid("has no message")
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        raise UpstreamFailed("The model refused to answer.", code="llm.refused")
    text = _text(message.get("content"))
    if text is None:
        raise _invalid("has no text")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    named = value.get("model")
    return Completion(
        text=text,
        usage=_usage(value.get("usage")),
        model=named if isinstance(named, str) and named else model,
        finish_reason=str(choice.get("finish_reason") or "stop")[:64],
        reasoning=reasoning if isinstance(reasoning, str) else None,
    )


def _text(content: Any) -> str | None:
    """A message's content: a text, or its parts of the type text."""
    if isinstance(content, list):
        parts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content if isinstance(content, str) else None


def _usage(given: Any) -> Usage:
    """What the call cost; zeros where the endpoint does not say, or says nonsense."""

    def count(name: str) -> int:
        value = given.get(name) if isinstance(given, dict) else None
        return value if type(value) is int and 0 <= value < _MAX_TOKENS else 0

    return Usage(count("prompt_tokens"), count("completion_tokens"), 1)


def _invalid(what: str) -> HotplugError:
    return UpstreamFailed(f"The answer of the model's endpoint {what}.", code="llm.invalid_answer")
