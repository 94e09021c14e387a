"""How a node asks a language model: which one, with what messages, for how long, and what its failures mean."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chalicelib.apps.models import WEBHOOK_SECRET_NAME
from chalicelib.core.errors import HotplugError, NotFound
from chalicelib.core.llm.model import DEFAULT_MAX_TOKENS, ChatMessage, ChatOptions, Completion, Llm, Usage
from chalicelib.core.llm.request import MAX_OPTION_CHARACTERS
from chalicelib.core.strict_json import canonical
from chalicelib.flows.engine.call import Call, Exchange
from chalicelib.flows.engine.errors import LLM_FAILED, NodeError, NodeTimeout, node_error
from chalicelib.flows.nodes.prompts import Prompt

if TYPE_CHECKING:
    from chalicelib.flows.nodes.model_services import ModelServices

ROUNDS = 10
"""Questions and answers that are given to the model where the node does not say how many."""
FIRST_SHARE = 0.6
"""Of the time that is left, what the first model may take where another stands by."""
LEAST_S = 0.1
"""With less time than this, another model is not begun with."""

_LONGEST_S = 300.0
_MAX_VIOLATIONS = 3
_AWAY = frozenset({"llm.unavailable", "llm.timeout", "http.circuit_open"})
_FINAL = frozenset({"llm.failed", "llm.refused", "llm.not_configured"})
_AGAIN = frozenset({408, 409, 425})
# What endpoints answer that do not know `response_format`, or not this kind of it ...
_FORMAT_STATUSES = frozenset({400, 422})
# ... and the codes of failures that may be about that.
_FORMAT_REASONS = frozenset({None, "invalid_request_error", "unsupported_parameter", "unsupported_value"})

_HOW = (
    "No language model is configured: give the deployment one (HOTPLUG_LLM_MODEL with HOTPLUG_LLM_URL, or "
    "HOTPLUG_LLM_PROVIDER=bedrock), or the node a url and a model."
)


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Parameters
    ----------
    is_cut_off
        It had to stop at `maxTokens`.
    """

    text: str
    reasoning: str
    usage: Usage
    is_cut_off: bool = False

    def fault(self, message: str, code: int) -> NodeError:
        """Return the error of an answer that cannot be used."""
        why = " The answer was cut off at maxTokens." if self.is_cut_off else ""
        return NodeError(code, message + why)


def ask(services: ModelServices, call: Call, prompt: Prompt) -> Answer:
    """Ask the node's model, and once its `fallback` where that one is away.

    Raises
    ------
    engine.errors.NodeError
        23300; 22302 where the time of the node is over.
    """
    if not prompt.user.strip():
        raise NodeError(LLM_FAILED, "The prompt for the language model is empty.", is_transient=False)
    try:
        llm = _model(services, call)
        messages = [*prompt.system_messages(), *_earlier(call), ChatMessage("user", prompt.user)]
        completion = _complete(llm, messages, _options(call, prompt), call)
    except HotplugError as error:
        raise _failure(error, call) from error
    is_cut_off = completion.finish_reason == "length"
    if is_cut_off and not completion.text.strip():
        message = "The language model spent all of maxTokens before it said anything."
        raise NodeError(LLM_FAILED, message)
    return Answer(completion.text, completion.reasoning or "", completion.usage, is_cut_off)


def exchange(call: Call, prompt: Prompt, answer: Answer) -> Exchange | None:
    """Return what is to be remembered of this; None where the node or the run keeps no history."""
    return Exchange(prompt.user, answer.text) if _rounds(call) is not None and answer.text.strip() else None


# -- which model ------------------------------------------------------------------------------------------------------


def _model(services: ModelServices, call: Call) -> Llm:
    """The key is the author's, who wrote the URL that it is sent to. The calls are the caller's: what fails for one
    app must not close the way for the others."""
    params, app_id = call.node.params, call.scope.caller.app_id
    url, model = params.get("url"), params.get("model")
    if not url:
        if params.get("credential"):
            # Ignored, it would leave the author in the belief that this key is used, and pays.
            raise _wrong("nodeParam.credential is for an endpoint of its own: nodeParam.url is missing.")
        llm = services.llm(app_id)
        if not llm.configured:
            raise _wrong(_HOW)
        return llm
    if not model:
        raise _wrong("nodeParam.url needs nodeParam.model: the endpoint's name of a model.")
    key = _key(services, call, url)
    return services.llm_at(app_id, url, model, lambda: key)


def _key(services: ModelServices, call: Call, url: str) -> str | None:
    name = call.node.params.get("credential")
    if not name:
        return None
    try:
        if name == WEBHOOK_SECRET_NAME:
            # It signs what the service sends; nobody who edits flows may have it sent anywhere.
            raise NotFound
        return services.secret(call.scope.author.app_id, name, url)
    except NotFound as error:
        message = f"nodeParam.credential: the flow's app has no secret named {name}."
        raise _wrong(message) from error


def _wrong(message: str) -> NodeError:
    return NodeError(LLM_FAILED, message, is_transient=False)


# -- what it is told --------------------------------------------------------------------------------------------------


def _earlier(call: Call) -> list[ChatMessage]:
    rounds = _rounds(call)
    if not rounds:
        return []
    # A model is told nothing that is blank (core/llm/request.py); and it is always the user who begins.
    said = [message for message in call.scope.memory.get(call.node.id, ()) if message.content.strip()]
    said = said[-2 * rounds :]
    begins = next((place for place, message in enumerate(said) if message.role == "user"), len(said))
    return said[begins:]


def _rounds(call: Call) -> int | None:
    """How many earlier questions and answers the model is given; None where there is no history at all."""
    params = call.node.params
    if not (is_told(params) and call.scope.history):
        return None
    newer: Mapping[str, Any] = params.get("enableChatHistoryV2") or {}
    return int(newer.get("rounds", ROUNDS)) if newer.get("isEnabled") else ROUNDS


def is_told(params: Mapping[str, Any]) -> bool:
    """Return whether a node with these parameters wants to know what was said before."""
    newer: Mapping[str, Any] = params.get("enableChatHistoryV2") or {}
    return bool(newer.get("isEnabled") or params.get("enableChatHistory"))


def _options(call: Call, prompt: Prompt) -> ChatOptions:
    params, schema = call.node.params, prompt.schema
    if schema is not None and len(canonical(schema)) > MAX_OPTION_CHARACTERS // 2:
        schema = None  # it stands in the prompt as well
    return ChatOptions(
        model=params.get("model") or None,
        max_tokens=int(params.get("maxTokens", DEFAULT_MAX_TOKENS)),
        temperature=params.get("temperature"),
        top_k=int(params["topK"]) if "topK" in params else None,
        json_schema=schema,
    )


# -- asking -----------------------------------------------------------------------------------------------------------


def _complete(llm: Llm, messages: Sequence[ChatMessage], options: ChatOptions, call: Call) -> Completion:
    fallback = call.node.params.get("fallback")
    if not fallback:
        return _chat(llm, messages, options, call.deadline)
    now = time.monotonic()
    try:
        return _chat(llm, messages, options, now + (call.deadline - now) * FIRST_SHARE)
    except HotplugError as error:
        if error.code not in _AWAY or call.deadline - time.monotonic() < LEAST_S:
            raise
        away = error
    try:
        return _chat(llm, messages, replace(options, model=fallback), call.deadline)
    except HotplugError as error:
        if _is_over(error, call):
            raise
        # The first one's: it decides whether another attempt makes sense.
        message = f"{_told(away)} The fallback model failed as well: {_told(error)}"
        raise NodeError(LLM_FAILED, message) from error


def _chat(llm: Llm, messages: Sequence[ChatMessage], options: ChatOptions, until: float) -> Completion:
    try:
        return llm.chat(messages, replace(options, timeout_s=_left(until)))
    except HotplugError as error:
        if options.json_schema is None or not _may_refuse_format(error):
            raise
    # Many endpoints know no formats. The prompt says the same, and the answer is read with care either way.
    return llm.chat(messages, replace(options, json_schema=None, timeout_s=_left(until)))


def _left(until: float) -> float:
    return max(0.05, min(_LONGEST_S, until - time.monotonic()))


def _may_refuse_format(error: HotplugError) -> bool:
    upstream = error.extensions.get("upstream", {})
    status, reason = upstream.get("status"), upstream.get("reason")
    return error.code == "llm.failed" and status in _FORMAT_STATUSES and reason in _FORMAT_REASONS


# -- failures ---------------------------------------------------------------------------------------------------------


def _failure(error: HotplugError, call: Call) -> NodeError:
    if _is_over(error, call):
        return NodeTimeout(call.node.retry.timeout_s)
    if error.code in _FINAL:
        may_help = error.extensions.get("upstream", {}).get("status") in _AGAIN
    else:
        may_help = node_error(error, LLM_FAILED).is_transient
    return NodeError(LLM_FAILED, _told(error), is_transient=may_help)


def _is_over(error: HotplugError, call: Call) -> bool:
    """Whether it was the node's time that ended the call: then it is the node's error and not the model's."""
    return error.code == "llm.timeout" and call.deadline - time.monotonic() <= 0.05


def _told(error: HotplugError) -> str:
    reason = error.extensions.get("upstream", {}).get("reason")
    said = [f"{one.pointer} {one.message}".strip() for one in error.errors[:_MAX_VIOLATIONS]]
    more = "; ".join([*([reason] if reason else []), *said])
    return f"{error.detail}{' ' + more + '.' if more else ''} ({error.code})"
