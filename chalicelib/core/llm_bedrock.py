"""A model of Amazon Bedrock, by the Converse API.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from chalicelib.core import guards
from chalicelib.core.errors import HotplugError, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.llm import SYSTEM, ChatMessage, ChatOptions, Completion, Usage

MAX_ATTEMPTS = 3
RETRY_AFTER_S = 5
_BUSY = frozenset(
    {
        "ThrottlingException",
        "ServiceUnavailableException",
        "InternalServerException",
        "ModelNotReadyException",
    }
)
_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_REFUSED = frozenset({"guardrail_intervened", "content_filtered"})


def bedrock_client(timeout_s: float) -> Any:
    """Return a new client whose attempts end within the time together."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=3,
        read_timeout=max(1.0, timeout_s / MAX_ATTEMPTS),
        retries={"total_max_attempts": MAX_ATTEMPTS, "mode": "standard"},
    )
    return boto3.client("bedrock-runtime", config=config)


class BedrockLlm:
    """One model of the deployment's own account; the function's role is its credential.

    Parameters
    ----------
    model
        A model's or an inference profile's id.
    client
        Makes a `bedrock-runtime` client for a time limit in seconds.
    """

    configured = True

    def __init__(self, model: str, client: Callable[[float], Any] = bedrock_client) -> None:
        self._model = model
        self._client = client

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions | None = None) -> Completion:
        """Ask the model; see `Llm.chat`."""
        guards.forbid_in_unit("a language model")
        from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

        asked = options or ChatOptions()
        model = asked.model or self._model
        try:
            answer = self._client(asked.timeout_s).converse(modelId=model, **_request(messages, asked))
        except (ReadTimeoutError, ConnectTimeoutError) as error:
            raise _late() from error
        except ClientError as error:
            raise _told(error) from error
        except BotoCoreError as error:
            # No credentials, no endpoint: the deployment's own fault, told by its kind.
            raise UpstreamFailed(
                f"The model could not be asked: {type(error).__name__}.", code="llm.failed"
            ) from error
        return _completion(answer, model)


def _request(messages: Sequence[ChatMessage], asked: ChatOptions) -> dict[str, Any]:
    system = [{"text": message.content} for message in messages if message.role == SYSTEM]
    if asked.json_schema is not None:
        # Converse promises no schema: the model is asked, and whoever asks checks.
        schema = json.dumps(asked.json_schema, ensure_ascii=False)
        system.append({"text": f"Answer with one JSON value alone, of this JSON Schema: {schema}"})
    inference: dict[str, Any] = {"maxTokens": asked.max_tokens}
    if asked.temperature is not None:
        inference["temperature"] = asked.temperature
    request: dict[str, Any] = {
        "messages": _alternating([message for message in messages if message.role != SYSTEM]),
        "inferenceConfig": inference,
    }
    if system:
        request["system"] = system
    if asked.top_k is not None:
        request["additionalModelRequestFields"] = {"top_k": asked.top_k}
    return request


def _alternating(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The conversation as Converse wants it: beginning with the user, and never two of one role in a row."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"].append({"text": message.content})
        elif turns or message.role == "user":
            turns.append({"role": message.role, "content": [{"text": message.content}]})
    return turns


def _completion(answer: dict[str, Any], model: str) -> Completion:
    reason = str(answer.get("stopReason") or "end_turn")
    if reason in _REFUSED:
        raise UpstreamFailed("The model refused to answer.", code="llm.refused")
    content = answer.get("output", {}).get("message", {}).get("content", [])
    texts = [part["text"] for part in content if "text" in part]
    if not texts:
        raise UpstreamFailed("The model's answer has no text.", code="llm.invalid_answer")
    thoughts = [
        part["reasoningContent"]["reasoningText"]["text"]
        for part in content
        if "reasoningText" in part.get("reasoningContent", {})
    ]
    used = answer.get("usage", {})
    return Completion(
        text="".join(texts),
        usage=Usage(int(used.get("inputTokens", 0)), int(used.get("outputTokens", 0)), 1),
        model=model,
        finish_reason=_REASONS.get(reason, reason),
        reasoning="".join(thoughts) or None,
    )


def _told(error: Any) -> HotplugError:
    """An error of the service by its code: its text may repeat the prompt."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "ModelTimeoutException":
        return _late()
    if code in _BUSY:
        return Unavailable("The model is busy.", code="llm.unavailable", retry_after=RETRY_AFTER_S)
    return UpstreamFailed(
        f"The model service refused the call: {code}.",
        code="llm.failed",
        extensions={"upstream": {"status": status}},
    )


def _late() -> UpstreamTimeout:
    return UpstreamTimeout("The model did not answer in time.", code="llm.timeout")
