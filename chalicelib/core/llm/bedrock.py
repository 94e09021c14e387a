"""Models of Amazon Bedrock over its Converse API.

The client is made from the function's own role; its endpoint is the region's, never one that a caller chose.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from chalicelib.core import guards
from chalicelib.core.aws_clients import new_client
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.llm.answer import usage_of
from chalicelib.core.llm.errors import failed, invalid_answer, refused, timed_out, unavailable
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion
from chalicelib.core.llm.request import check
from chalicelib.core.outbound.deadline import Deadline
from chalicelib.core.outbound.retry import RETRY_BASE_S, RETRY_CEILING_S

RETRIES = 2
CONNECT_TIMEOUT_S = 3

_FINISHED = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_REFUSED = frozenset({"guardrail_intervened", "content_filtered"})


class BedrockLlm:
    """A model of Bedrock.

    Parameters
    ----------
    client
        Returns a `bedrock-runtime` client that tries once and waits so many seconds for the answer.
    model
        Model id, inference profile or ARN for calls that name none.
    sleep
        How to wait between retries, in seconds.
    """

    def __init__(
        self, client: Callable[[int], Any], model: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._model = model
        self._sleep = sleep

    @property
    def configured(self) -> bool:
        return True

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """See `Llm.chat`."""
        import tenacity

        guards.forbid_in_unit("llm")
        check(messages, options)
        model = options.model or self._model
        asked = request(model, messages, options)
        deadline = Deadline.after(options.timeout_s)
        # Ours and not botocore's, whose retries know of no deadline.
        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(RETRIES + 1) | tenacity.stop_before_delay(options.timeout_s),
            wait=tenacity.wait_random_exponential(multiplier=RETRY_BASE_S, max=RETRY_CEILING_S),
            retry=tenacity.retry_if_exception_type(Unavailable),
            sleep=self._sleep,
            reraise=True,
        )
        return read_answer(again(lambda: self._converse(asked, deadline.bound(None))), model)

    def _converse(self, asked: dict[str, Any], left_s: float) -> Any:
        from botocore import exceptions as boto

        try:
            return self._client(math.ceil(left_s)).converse(**asked)
        except boto.ClientError as error:
            raise _refusal(error) from error
        except (boto.ReadTimeoutError, boto.ConnectTimeoutError) as error:
            raise timed_out() from error
        except (boto.HTTPClientError, boto.ConnectionError) as error:
            raise unavailable("Bedrock cannot be reached.") from error
        except boto.BotoCoreError as error:  # no credentials, no region, an answer that is not Bedrock's
            raise failed("Bedrock cannot be used by this deployment.") from error


def bedrock_client(read_timeout_s: int) -> Any:
    """Return a new client of the region's Bedrock, or of AWS_ENDPOINT_URL_BEDROCK_RUNTIME, that tries once."""
    return new_client(
        "bedrock-runtime",
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # A long answer on a silent connection is dropped by NAT after 350 s without it.
        tcp_keepalive=True,
    )


def request(model: str, messages: Sequence[ChatMessage], options: ChatOptions) -> dict[str, Any]:
    """Return the arguments of `converse`."""
    inference: dict[str, Any] = {"maxTokens": options.max_tokens}
    if options.temperature is not None:
        inference["temperature"] = options.temperature
    asked: dict[str, Any] = {"modelId": model, "messages": _turns(messages), "inferenceConfig": inference}
    if system := [{"text": message.content} for message in messages if message.role == "system"]:
        asked["system"] = system
    if fields := ({} if options.top_k is None else {"top_k": options.top_k}) | dict(options.extra):
        asked["additionalModelRequestFields"] = fields
    if options.json_schema:
        structure = {"jsonSchema": {"name": "answer", "schema": json.dumps(options.json_schema)}}
        asked["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    return asked


def _turns(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Converse wants user and assistant in turns: what one says in a row is one turn of several blocks."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        if not turns or turns[-1]["role"] != message.role:
            turns.append({"role": message.role, "content": []})
        turns[-1]["content"].append({"text": message.content})
    return turns


def read_answer(answer: Any, model: str) -> Completion:
    """Return what a model answered.

    Raises
    ------
    errors.UpstreamFailed
        `llm.refused`, `llm.invalid_answer`.
    """
    stopped = str(answer.get("stopReason", "unknown"))
    if stopped in _REFUSED:
        raise refused()
    message = (answer.get("output") or {}).get("message") or {}
    blocks = message.get("content") or []
    texts = [block["text"] for block in blocks if "text" in block]
    if not texts and stopped != "max_tokens":
        raise invalid_answer("it has no text")
    thoughts = [
        block["reasoningContent"].get("reasoningText") for block in blocks if "reasoningContent" in block
    ]
    reasoning = "".join(thought["text"] for thought in thoughts if thought)
    return Completion(
        text="".join(texts),
        usage=usage_of(answer.get("usage"), "inputTokens", "outputTokens"),
        model=model,
        finish_reason=_FINISHED.get(stopped, stopped),
        reasoning=reasoning or None,
    )


def _refusal(error: Any) -> HotplugError:
    """The message of the error stays here: it names the account, or repeats the request."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "ModelTimeoutException":
        return timed_out()
    if status == 429 or status >= 500:
        return unavailable(f"Bedrock answered with status {status}.", None, status)
    return failed(f"Bedrock answered with status {status}.", status)
