"""One client for language models: Bedrock Converse, or any endpoint that speaks OpenAI's chat completions.

What is here knows neither: the messages, the answer, what it cost, and what is asked of a client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.core import guards, telemetry
from chalicelib.core.errors import Conflict, HotplugError, Invalid, Violation

DEFAULT_MAX_TOKENS = 2048
DEFAULT_TIMEOUT_S = 20.0
MAX_CHARACTERS = 1_000_000
"""Of all messages of a prompt together."""
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES = (SYSTEM, USER, ASSISTANT)


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
        object. Whoever asks checks the answer all the same.
    timeout_s
        Seconds for the call with all its retries.
    """

    model: str | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    top_k: int | None = None
    json_schema: Mapping[str, Any] | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S


class Llm(Protocol):
    """A language model, or the clear absence of one."""

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask."""
        ...

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions | None = None) -> Completion:
        """Ask the model. Not inside a unit of work.

        Raises
        ------
        errors.Conflict
            `llm.not_configured`.
        errors.Invalid
            `llm.invalid_prompt`; nothing was sent.
        errors.HotplugError
            `llm.failed`, `llm.refused`, `llm.invalid_answer` (502), `llm.timeout` (504), `llm.unavailable` (503 with
            Retry-After), and those of the outbound client; none holds anything of the prompt.
        """
        ...


class NoLlm:
    """There is no model: agents that can do without one ask `configured` first."""

    configured = False

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions | None = None) -> Completion:
        """Refuse; see `Llm.chat`."""
        raise Conflict("No language model is configured.", code="llm.not_configured")


class MeteredLlm:
    """A model, and what the calls of one invocation cost together; also tells operators of each call."""

    def __init__(self, inner: Llm) -> None:
        self._inner = inner
        self.usage = Usage()

    @property
    def configured(self) -> bool:
        """Whether there is a model to ask."""
        return self._inner.configured

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions | None = None) -> Completion:
        """Ask the model; see `Llm.chat`."""
        guards.forbid_in_unit("a language model")
        asked = options or ChatOptions()
        check_prompt(messages)
        telemetry.metric("llm.calls", 1)
        with telemetry.operation("llm.chat", messages=len(messages)) as operation:
            try:
                with operation.phase("model"):
                    completion = self._inner.chat(messages, asked)
            except HotplugError:
                telemetry.metric("llm.failures", 1)
                raise
            used = completion.usage
            operation.note(model=completion.model, tokensIn=used.input_tokens, tokensOut=used.output_tokens)
        telemetry.metric("llm.tokens_in", used.input_tokens)
        telemetry.metric("llm.tokens_out", used.output_tokens)
        self.usage += used
        return completion


def check_prompt(messages: Sequence[ChatMessage]) -> None:
    """Refuse what no model is asked.

    Raises
    ------
    errors.Invalid
        `llm.invalid_prompt`: no message, an unknown role, or more than `MAX_CHARACTERS`.
    """
    found = []
    if not messages:
        found.append(Violation("", "prompt.empty", "has no message"))
    found += [
        Violation(f"/{place}/role", "prompt.role", f"is none of {', '.join(ROLES)}")
        for place, message in enumerate(messages)
        if message.role not in ROLES
    ]
    if sum(len(message.content) for message in messages) > MAX_CHARACTERS:
        found.append(Violation("", "prompt.too_large", f"has more than {MAX_CHARACTERS} characters"))
    if found:
        raise Invalid("The prompt does not hold.", code="llm.invalid_prompt", errors=found)
