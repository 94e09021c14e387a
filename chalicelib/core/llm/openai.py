"""An endpoint that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, Ollama, LiteLLM and many more.

The protocol is one request and one answer (https://platform.openai.com/docs/api-reference/chat/create), so it is
spoken here over the outbound client, with its checks of where a URL leads, and not by an SDK with a client of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from chalicelib.core import guards
from chalicelib.core.errors import HotplugError, Invalid, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.llm.answer import read_completion, read_reason
from chalicelib.core.llm.errors import failed, invalid_answer, not_configured, timed_out, unavailable
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion
from chalicelib.core.llm.request import check, is_key
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.core.outbound.retry import Repeat, retry_after_s

if TYPE_CHECKING:
    from chalicelib.core.outbound.client import OutResponse

RETRIES = 2
# A completion changes nothing at the endpoint: asked twice it costs twice, so few times, and only if it may help.
REPEAT = Repeat(frozenset({429, 500, 502, 503, 504}))

_AWAY = frozenset({"http.connect_failed", "http.protocol_error"})


class Requests(Protocol):
    """What sends: `HttpOut`, or `AppHttp`, which leaves a failing host alone."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        repeat: Repeat | None = None,
    ) -> OutResponse: ...


class OpenAiLlm:
    """A model behind `{url}/chat/completions`.

    Parameters
    ----------
    url
        The base, `https://api.openai.com/v1`; a query (`?api-version=…`) is kept. Whoever names it, the outbound
        client judges where it leads.
    model
        The endpoint's name of the model for calls that name none.
    key
        Returns the key, None where the endpoint wants none. It is asked for each call, so that a changed one holds at
        once, and sent to this URL only: a POST is never redirected.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`
    """

    def __init__(self, http: Requests, url: str, model: str | None, key: Callable[[], str | None]) -> None:
        target = parse_url(url)
        path, mark, query = target.path.partition("?")
        self._http = http
        self._url = f"{target.scheme}://{target.authority}{path.rstrip('/')}/chat/completions{mark}{query}"
        self._model = model
        self._key = key

    @property
    def configured(self) -> bool:
        return True

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """See `Llm.chat`."""
        guards.forbid_in_unit("llm")
        check(messages, options)
        model = options.model or self._model
        if model is None:
            raise not_configured("Neither the call nor the endpoint names a model.")
        answer = self._send(request_body(model, messages, options), options.timeout_s)
        if answer.status != 200:
            raise _refusal(answer)
        return read_completion(answer.body, model)

    def _send(self, body: bytes, timeout_s: float) -> OutResponse:
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._authorization()}
        try:
            return self._http.request(
                "POST",
                self._url,
                headers=headers,
                body=body,
                timeout_s=timeout_s,
                retries=RETRIES,
                repeat=REPEAT,
            )
        except UpstreamTimeout as error:
            raise timed_out() from error
        except Unavailable as error:  # the circuit is open
            raise unavailable("The language model is left alone for a while.", error.retry_after) from error
        except UpstreamFailed as error:
            raise _unheard(error) from error

    def _authorization(self) -> dict[str, str]:
        key = self._key()
        if key is None:
            return {}
        if not is_key(key):
            raise Invalid("The language model's key cannot be sent.", code="llm.invalid_key")
        return {"Authorization": f"Bearer {key}"}


def request_body(model: str, messages: Sequence[ChatMessage], options: ChatOptions) -> bytes:
    """Return the request as JSON: only what was asked for, since endpoints refuse fields that they do not know."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
    }
    if "max_completion_tokens" not in options.extra:
        asked["max_tokens"] = options.max_tokens
    if options.temperature is not None:
        asked["temperature"] = options.temperature
    if options.top_k is not None:
        asked["top_k"] = options.top_k
    if options.json_schema is not None:
        asked["response_format"] = _response_format(options.json_schema)
    asked |= {"stream": False, **options.extra}
    return json.dumps(asked, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    if not schema:
        return {"type": "json_object"}
    # Not `strict`: that takes only a part of JSON Schema, and refuses the rest.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _refusal(answer: OutResponse) -> HotplugError:
    status, reason = answer.status, read_reason(answer.body)
    if 200 < status < 300:
        return invalid_answer(f"it has status {status}")
    if status == 429 or status >= 500:
        detail = f"The language model answered with status {status}."
        return unavailable(detail, retry_after_s(answer), status, reason)
    return failed(f"The language model answered with status {status}.", status, reason)


def _unheard(error: UpstreamFailed) -> HotplugError:
    if error.code in _AWAY:
        return unavailable("The language model cannot be reached.")
    if error.code == "http.response_too_large":
        return invalid_answer("it is too large")
    return failed("The language model's endpoint cannot be used.")
