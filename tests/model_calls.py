"""Calls of nodes that ask a language model, for tests: real nodes of a checked flow, and models that are told what to
say."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.errors import NotFound
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion, Llm, Usage
from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.dsl.model import Node, plain_handle
from chalicelib.flows.engine.call import Call, Result, Scope
from chalicelib.flows.nodes.model_services import Key, ModelServices
from chalicelib.flows.nodes.models import model_nodes
from tests import flow_builders as build

CALLER, AUTHOR = 7, 8
SCOPE = Scope(
    "run-1",
    Caller(CALLER, "caller", 1, "caller", "r"),
    Caller(AUTHOR, "author", 2, "publisher", "r"),
    99,
    "user-1",
    "chat-1",
)
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


class Scripted:
    """A model that answers, or fails, with what it was given, the last one for ever."""

    configured = True

    def __init__(self, *answers: str | Completion | Exception) -> None:
        self._answers = list(answers)
        self._lock = threading.Lock()
        self.asked: list[tuple[Sequence[ChatMessage], ChatOptions]] = []

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        with self._lock:
            self.asked.append((messages, options))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return said(answer) if isinstance(answer, str) else answer

    @property
    def messages(self) -> list[tuple[str, str]]:
        """What the first call said: roles and texts."""
        return [(message.role, message.content) for message in self.asked[0][0]]

    @property
    def options(self) -> ChatOptions:
        """Of the first call."""
        return self.asked[0][1]


def said(text: str, finish_reason: str = "stop", reasoning: str | None = None) -> Completion:
    """What a model answered, for seven tokens and five."""
    return Completion(text, Usage(7, 5, 1), "m", finish_reason, reasoning)


class World:
    """What nodes are given from outside, and what they asked of it.

    Parameters
    ----------
    llm
        The deployment's model, and that of every endpoint.
    secrets
        Of the author's app.
    earlier
        What was said before.
    """

    def __init__(
        self, llm: Llm, secrets: Mapping[str, str] | None = None, earlier: Sequence[ChatMessage] = ()
    ) -> None:
        self.llm = llm
        self.secrets = secrets or {}
        self.earlier = earlier
        self.used: list[tuple[Any, ...]] = []
        self.services = ModelServices(self._of_deployment, self._at, self._secret)

    def _of_deployment(self, app_id: int) -> Llm:
        self.used.append(("deployment", app_id))
        return self.llm

    def _at(self, app_id: int, url: str, model: str | None, key: Key) -> Llm:
        self.used.append(("at", app_id, url, model, key()))
        return self.llm

    def _secret(self, app_id: int, name: str, url: str) -> str:
        self.used.append(("secret", app_id, name))
        if app_id != AUTHOR or name not in self.secrets:
            raise NotFound(f"The app has no secret named {name}.", code="secret.not_found")
        return self.secrets[name]

    def run(self, asked: Call) -> Result:
        """Run a node, with what was said before in its memory."""
        scope = replace(asked.scope, memory={asked.node.id: self.earlier})
        return model_nodes(self.services)[asked.node.type](replace(asked, scope=scope))


def node_of(node_id: str, params: dict[str, Any], *outputs: dict[str, Any], **inputs: Any) -> Node:
    """A node as the engine gets it: of a flow that may be published."""
    declared = [build.literal(name, value, _KINDS[type(value)]) for name, value in inputs.items()]
    handles = tuple(plain_handle(intent["id"]) for intent in params.get("intentChains", ())) or ("",)
    one = build.node(node_id, params, inputs=declared, outputs=list(outputs))
    checked = check_flow(build.around(one, handles=handles))
    assert checked.flow is not None, checked.violations
    return checked.flow.nodes[node_id]


def call_of(node: Node, inputs: Mapping[str, Any], seconds: float = 5, scope: Scope = SCOPE) -> Call:
    """An attempt of a node."""
    return Call(scope, node, node.id, inputs, 1, time.monotonic() + seconds)


def llm_call(params: dict[str, Any], *outputs: dict[str, Any], seconds: float = 5, **inputs: Any) -> Call:
    """A call of an llm node; by default with the prompt `hello` and the output `output`."""
    node = node_of(
        "llm::1", {"template": "hello"} | params, *(outputs or (build.output("output"),)), **inputs
    )
    return call_of(node, inputs, seconds)


def intent(suffix: str, name: str, description: str = "", *, default: bool = False) -> dict[str, Any]:
    """An intent of a decision."""
    kind = 1 if default else 2
    return {
        "id": f"intent-one-of::{suffix}",
        "name": name,
        "description": description,
        "intentType": kind,
    }


def decision_call(
    intents: Sequence[dict[str, Any]],
    *outputs: dict[str, Any],
    params: dict[str, Any] | None = None,
    **inputs: Any,
) -> Call:
    """A call of a decision-making node; by default about the input `query`."""
    given = inputs or {"query": "my parcel is late"}
    made = {"intentChains": list(intents), **(params or {})}
    return call_of(node_of("decision-making::1", made, *outputs, **given), given)


def extractor_call(*outputs: dict[str, Any], params: dict[str, Any] | None = None, **inputs: Any) -> Call:
    """A call of an extractor-parameter node; by default about the input `text`."""
    given = inputs or {"text": "two apples, please"}
    return call_of(node_of("extractor-parameter::1", params or {}, *outputs, **given), given)
