"""One client for language models: Bedrock Converse, or any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.core.llm.errors import not_configured

DEFAULT_MAX_TOKENS = 2048
DEFAULT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Usage:
    """Tokens that calls cost, and how many calls there were."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.calls + other.calls,
        )

    def as_dict(self) -> dict[str, int]:
        return {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalTokens": self.input_tokens + self.output_tokens,
            "calls": self.calls,
        }


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Parameters
    ----------
    usage
        Zeros where the endpoint does not tell it, but always one call.
    model
        As the endpoint calls what answered.
    finish_reason
        `stop`, `length`, or what else the endpoint says.
    reasoning
        The reasoning that some endpoints return beside the answer.
    """

    text: str
    usage: Usage
    model: str
    finish_reason: str
    reasoning: str | None = None


@dataclass(frozen=True)
class ChatOptions:
    """How to answer.

    Parameters
    ----------
    model
        The endpoint's name of a model; None for the configured one.
    top_k
        Sent where it is given. OpenAI's own API refuses it; most servers that speak its protocol take it.
    json_schema
        The answer must be one JSON value of this schema, where the endpoint can promise that; `{}` asks for any JSON
        object, which Bedrock cannot promise.
    timeout_s
        Seconds for the call with all its retries, at most 300.
    extra
        Further fields of the request: of its body, with Bedrock of `additionalModelRequestFields`. With
        `max_completion_tokens`, which OpenAI's reasoning models want, `max_tokens` is not sent.
    """

    model: str | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    top_k: int | None = None
    json_schema: Mapping[str, Any] | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    extra: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_OPTIONS = ChatOptions()


class Llm(Protocol):
    """A language model, or the clear absence of one."""

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask."""
        ...

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """Ask the model. Not inside a unit of work.

        Raises
        ------
        errors.Conflict
            `llm.not_configured`.
        errors.Invalid
            `llm.invalid_request`, `llm.prompt_too_large`, `llm.invalid_key`; `http.invalid_url`.
        errors.Forbidden
            `http.forbidden_address`: the endpoint is not on the public internet.
        errors.UpstreamFailed
            `llm.failed` (with `upstream: {status}` where there was an answer), `llm.refused`, `llm.invalid_answer`.
        errors.Unavailable
            `llm.unavailable` with Retry-After: the endpoint is away or busy, also after the retries, or its circuit is
            open.
        errors.UpstreamTimeout
            `llm.timeout`.

        None of them holds anything of the prompt, the answer or the key.
        """
        ...


class NoLlm:
    """The absence of a language model."""

    @property
    def configured(self) -> bool:
        return False

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        raise not_configured("No language model is configured.")


class MeteredLlm:
    """A model whose usage is summed up: for one invocation. Threads may share it.

    Parameters
    ----------
    inner
        Whom to ask.
    """

    def __init__(self, inner: Llm) -> None:
        self._inner = inner
        self._usage = Usage()
        # `+=` reads, adds and writes: two threads would lose a call.
        self._lock = threading.Lock()

    @property
    def configured(self) -> bool:
        return self._inner.configured

    @property
    def usage(self) -> Usage:
        """What the answered calls cost so far; what a failed one cost nobody told."""
        return self._usage

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """See `Llm.chat`."""
        answer = self._inner.chat(messages, options)
        with self._lock:
            self._usage += answer.usage
        return answer
