"""The flows of examples/flows: what each is given, and fakes of what they call, as the example itself describes them.

An example is an object with

- `about`: a sentence for its reader;
- `flow`, `parameters`: what is run, and with what;
- `expected`: `content` and `outputs` of the run; `variables` and `remembered` (node, question, answer) afterwards;
- `fakes`: by the id of a node that calls, the inputs it must be `given` and the `answer`, or why it `fails`; under
  `model`, which models are `away`, and what one `says` to messages that hold all texts of `when`;
- `earlier`: by node, questions and answers of the history; `variables`: those that were set before;
- `answers`: by question node, what its user does; `subflows`: by flow id, the example that stands for it;
- `person`: `uid` and `chatId` of the request that would be made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chalicelib.core.errors import Unavailable
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion, Usage
from chalicelib.flows.dsl.values import default_of
from chalicelib.flows.engine.call import Call, Execute, Result
from chalicelib.flows.engine.errors import CODE_RESULT, TOOL_FAILED, NodeError
from chalicelib.flows.engine.steps import Answer, Question
from chalicelib.flows.nodes.model_services import ModelServices
from chalicelib.flows.nodes.models import model_nodes
from chalicelib.flows.nodes.outputs import fitting, misfits_of, outputs_of

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "flows"


def names() -> list[str]:
    """The examples there are."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    """An example."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


@dataclass
class Fakes:
    """What the nodes of one run of an example call.

    Attributes
    ----------
    used
        The ids of the nodes that called.
    """

    example: Mapping[str, Any]
    used: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.variables: dict[str, Any] = dict(self.example.get("variables", {}))

    def kinds(self) -> dict[str, Execute]:
        """The work of each node type; the nodes that ask a model are the real ones, with a model that is told what to
        say."""
        models = model_nodes(ModelServices(lambda _: self, lambda *_: self, lambda *_: "key"))
        return {
            **{kind: self._remembering(execute) for kind, execute in models.items()},
            "plugin": self._tool,
            "hotplug-plugin": self._tool,
            "agent": self._agent,
            "code": self._code,
            "node-variable": self._variable,
        }

    def answer(self, question: Question) -> Answer:
        """What the user does about a question."""
        self.used.append(question.node_id)
        return Answer(**self.example["answers"][question.node_id])

    # -- a language model --------------------------------------------------------------------------------------

    configured = True

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        model = self.example["fakes"]["model"]
        if options.model in model.get("away", ()):
            raise Unavailable("The language model is away.", code="llm.unavailable")
        text = "\n".join(message.content for message in messages)
        (said,) = [one["text"] for one in model["says"] if all(part in text for part in one["when"])]
        self.used.append("model")
        return Completion(said, Usage(7, 5, 1), options.model or "model", "stop")

    def _remembering(self, execute: Execute) -> Execute:
        """The work of a node with what was said before, as a run hands it over."""
        memory = {
            node_id: [
                ChatMessage(role, text)
                for turn in turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            for node_id, turns in self.example.get("earlier", {}).items()
        }
        return lambda call: execute(replace(call, scope=replace(call.scope, memory=memory)))

    # -- what is called ----------------------------------------------------------------------------------------

    def _answer(self, call: Call) -> Any:
        fake = self.example["fakes"][call.node.id]
        assert dict(call.inputs) == fake["given"]
        self.used.append(call.node.id)
        if "fails" in fake:
            raise NodeError(TOOL_FAILED, fake["fails"], is_transient=False)
        return fake["answer"]

    def _tool(self, call: Call) -> Result:
        return Result(outputs_of(call.node, self._answer(call), "The answer"))

    def _agent(self, call: Call) -> Result:
        return Result(fitting(self._answer(call), call.node.outputs, "The reply"))

    def _code(self, call: Call) -> Result:
        module: dict[str, Any] = {}
        exec(call.node.params["code"], module)
        result = module["main"](**call.inputs)
        if misfits_of(result, call.node.outputs):
            raise NodeError(CODE_RESULT, "does not fit")
        return Result({one.name: result[one.name] for one in call.node.outputs})

    def _variable(self, call: Call) -> Result:
        if call.node.params["method"] == "set":
            self.variables |= call.inputs
            return Result(dict(call.inputs))
        return Result(
            {one.name: self.variables.get(one.name, default_of(one.schema)) for one in call.node.outputs}
        )
