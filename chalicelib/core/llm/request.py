"""What may be asked of a language model: checked before anything is sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from chalicelib.core.errors import Invalid, Violation

if TYPE_CHECKING:
    from chalicelib.core.llm.model import ChatMessage, ChatOptions

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_MESSAGES = 1_000
# Of `json_schema` and `extra` together, as JSON.
MAX_OPTION_CHARACTERS = 100_000
MAX_TOKENS = 1_000_000
MAX_TIMEOUT_S = 300
MAX_MODEL_LENGTH = 256
MAX_KEY_LENGTH = 4096
ROLES = ("system", "user", "assistant")
# Ours: a caller who set them through `extra` would get an answer that is not read as it was meant, or another model.
RESERVED = frozenset(
    {"max_tokens", "messages", "model", "n", "response_format", "stream", "temperature", "top_k"}
)

_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}")


def check(messages: Sequence[ChatMessage], options: ChatOptions) -> None:
    """Refuse what no model can answer.

    Raises
    ------
    errors.Invalid
        `llm.prompt_too_large`, or `llm.invalid_request` with every violation.
    """
    characters = sum(len(message.content) for message in messages)
    if characters > MAX_PROMPT_CHARACTERS or len(messages) > MAX_MESSAGES:
        raise Invalid(
            f"A prompt has at most {MAX_MESSAGES} messages and {MAX_PROMPT_CHARACTERS} characters.",
            code="llm.prompt_too_large",
        )
    violations = [*_messages(messages), *_options(options), *_json_options(options)]
    if violations:
        raise Invalid("The request is refused.", code="llm.invalid_request", errors=violations)


def _messages(messages: Sequence[ChatMessage]) -> Iterator[Violation]:
    if all(message.role == "system" for message in messages):
        yield Violation("/messages", "llm.no_message", "nothing is said but by the system")
    for number, message in enumerate(messages):
        if message.role not in ROLES:
            yield Violation(f"/messages/{number}/role", "llm.role", f"not one of {', '.join(ROLES)}")
        if not message.content.strip():
            # Bedrock refuses it, and a model that is told nothing makes something up.
            yield Violation(f"/messages/{number}/content", "llm.empty_message", "says nothing")
        elif not _is_unicode(message.content):
            yield Violation(f"/messages/{number}/content", "llm.encoding", "holds an unpaired surrogate")


def _options(options: ChatOptions) -> Iterator[Violation]:
    if options.model is not None and not is_model(options.model):
        message = f"not 1 to {MAX_MODEL_LENGTH} printable characters"
        yield Violation("/model", "llm.model", message)
    if not 1 <= options.max_tokens <= MAX_TOKENS:
        yield Violation("/maxTokens", "llm.range", f"not between 1 and {MAX_TOKENS}")
    if options.temperature is not None and not 0 <= options.temperature <= 2:
        yield Violation("/temperature", "llm.range", "not between 0 and 2")
    if options.top_k is not None and not 1 <= options.top_k <= 1_000:
        yield Violation("/topK", "llm.range", "not between 1 and 1000")
    if not (math.isfinite(options.timeout_s) and 0 < options.timeout_s <= MAX_TIMEOUT_S):
        yield Violation("/timeoutS", "llm.range", f"not above 0 and at most {MAX_TIMEOUT_S}")


def _json_options(options: ChatOptions) -> Iterator[Violation]:
    for name in sorted(RESERVED & set(options.extra)):
        yield Violation(f"/extra/{name}", "llm.reserved", "this field has an option of its own")
    try:
        text = json.dumps([options.json_schema, options.extra], allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        yield Violation("/extra", "llm.json", "the schema or a further field is no JSON value")
        return
    if len(text) > MAX_OPTION_CHARACTERS or not _is_unicode(text):
        yield Violation("/extra", "llm.json", f"not {MAX_OPTION_CHARACTERS} characters of Unicode at most")


def is_model(name: str) -> bool:
    """Return whether this may be the name of a model: it stands in a URL (Bedrock) and in log lines."""
    return 0 < len(name) <= MAX_MODEL_LENGTH and name.isprintable()


def is_key(text: str) -> bool:
    """Return whether a header can carry this as a bearer token."""
    return _KEY.fullmatch(text) is not None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
