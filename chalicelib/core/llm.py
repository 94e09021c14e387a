"""One client for language models: Bedrock Converse, or any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    json_schema
        The answer must be one JSON value of this schema, where the endpoint can promise that; `{}` asks for any JSON
        object.
    timeout_s
        Seconds for the call with all its retries.
    """

    model: str | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    top_k: int | None = None
    json_schema: Mapping[str, Any] | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    extra: Mapping[str, Any] = field(default_factory=dict)


class Llm(Protocol):
    """A language model, or the clear absence of one."""

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask."""
        ...

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = ...) -> Completion:
        """Ask the model. Not inside a unit of work.

        Raises
        ------
        errors.Conflict
            `llm.not_configured`.
        errors.HotplugError
            `llm.failed` (502), `llm.timeout` (504), `llm.unavailable` (503, Retry-After), `llm.refused` (502): with
            nothing of the prompt in it.
        """
        ...
