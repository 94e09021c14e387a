"""Cases of runs that are written as JSON: a flow in few words, what its nodes are told to do, and what must come of it.

A case is an object with `name` and

- `nodes`: by id, each with `in`, `out`, `retry`, and everything else its `nodeParam`. The suffix `::1` may be left out,
  and `start` and `end` are short for the nodes of these types. A start has a parameter `query` and a code node an
  output `result` unless others are named. The name of an input or an output may be followed by its type, `n: integer`,
  and that of an output by `!` where it is required. An input is `$node.path` for a reference, an object with `$` for
  one with more of a schema, anything else for a literal. The `cases` of an if-else are expressions by branch,
  `a contains b and c empty`, or `else`;
- `edges`: chains like `start > if-else -yes> message > end`, where `-fail>` is a failure edge; without them the nodes
  follow one another;
- `parameters`, `answers` to questions (such a case only runs durable), `subflows` by id;
- `does`: by a node's key or id, what its attempts do, the last one again and again; see `Scripted`;
- `state`, `outputs`, `content`, `error` (code, message, node) that are expected, where they are told;
- `trace`: what every node that ended was, by its key: its state, or an object with `state`, `outputs`, `attempts`,
  `code`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chalicelib.core.llm.model import Usage
from chalicelib.flows.engine.call import Call, Exchange, Execute, Result
from chalicelib.flows.engine.errors import Interrupt, NodeError
from chalicelib.flows.engine.outcome import Outcome
from chalicelib.flows.engine.steps import Answer, Question
from tests.flow_builders import Data, case, condition, edge, literal, node, output, ref
from tests.flow_runs import Told

CORPUS = Path(__file__).parent / "corpus" / "flow_runs"
_SHORT = {"start": "node-start", "end": "node-end"}
_BRANCHES = {
    "if-else": "branch_one_of",
    "decision-making": "intent-one-of",
    "question-answer": "option-one-of",
}
_OUTPUTS = {"node-start": ["query"], "code": ["result"]}
_ARROW = re.compile(r"-?(\S*)>")
SCRIPTED = (
    "code", "llm", "plugin", "hotplug-plugin", "agent", "decision-making", "extractor-parameter", "node-variable",
)  # fmt: skip


def cases(subject: str) -> Iterator[Data]:
    """The cases of one file of the corpus."""
    yield from json.loads((CORPUS / f"{subject}.json").read_text(encoding="utf-8"))


def node_id(short: str) -> str:
    """An id in full."""
    kind, mark, suffix = short.partition("::")
    return f"{_SHORT.get(kind, kind)}::{suffix if mark else 1}"


def key_of(short: str) -> str:
    """The key of a node in full: `iteration[0]/code` is `iteration::1[0]/code::1`."""
    parts = []
    for part in short.split("/"):
        inside = re.fullmatch(r"(.*?)(\[\d+\]|>)?", part)
        assert inside is not None
        parts.append(node_id(inside[1]) + (inside[2] or ""))
    return "/".join(parts)


def flow_of(given: Mapping[str, Any]) -> Data:
    """A flow's data."""
    nodes = [_node(short, told) for short, told in given["nodes"].items()]
    edges = given.get("edges", [" > ".join(given["nodes"])])
    return {"nodes": nodes, "edges": [one for chain in edges for one in _edges(chain)]}


def _edges(chain: str) -> Iterator[Data]:
    tokens = chain.split()
    for source, arrow, target in zip(tokens[::2], tokens[1::2], tokens[2::2], strict=False):
        found = _ARROW.fullmatch(arrow)
        assert found is not None, chain
        yield edge(node_id(source), node_id(target), _handle(node_id(source), found[1]))


def _handle(source: str, branch: str) -> str:
    if branch.startswith("fail"):
        return f"fail_one_of::{branch}"
    return f"{_BRANCHES[source.partition('::')[0]]}::{branch}" if branch else ""


def _node(short: str, told: Mapping[str, Any]) -> Data:
    full, told = node_id(short), dict(told)
    inputs = [_input(named, value) for named, value in told.pop("in", {}).items()]
    kind = full.partition("::")[0]
    declared = told.pop("out", _OUTPUTS.get(kind, ()))
    if kind in ("code", "ifly-code"):
        told = {"code": "def main(**inputs):\n    return inputs\n", **told}
    outputs = [
        _output(named, more)
        for named, more in (
            declared.items() if isinstance(declared, dict) else [(one, {}) for one in declared]
        )
    ]
    retry = told.pop("retry", None)
    if retry is not None:
        retry = {"shouldRetry": True, **retry}
    if isinstance(told.get("cases"), dict):
        told["cases"] = [_case(branch, text) for branch, text in told["cases"].items()]
    if isinstance(told.get("until"), str):
        made = _case("until", told["until"])
        told["until"] = {name: made[name] for name in ("logicalOperator", "conditions")}
    for name in ("IterationStartNodeId", "LoopStartNodeId"):
        if name in told:
            told[name] = node_id(told[name])
    for name in ("intentChains", "optionAnswer"):
        if name in told:
            prefix = _BRANCHES[kind]
            told[name] = [{**one, "id": f"{prefix}::{one['id']}"} for one in told[name]]
    return node(full, told, inputs=inputs, outputs=outputs, retry=retry)


def _typed(named: str) -> tuple[str, str]:
    name, _, kind = named.partition(":")
    return name.strip(), kind.strip() or "string"


def _input(named: str, value: Any) -> Data:
    name, kind = _typed(named)
    more: Data = {}
    if isinstance(value, dict) and "$" in value:
        more = {key: one for key, one in value.items() if key != "$"}
        value = f"${value['$']}"
    if isinstance(value, str) and re.match(r"\$[a-z]", value):
        source, _, path = value[1:].partition(".")
        return ref(name, node_id(source), path, kind, name, **more)
    return literal(name, value, kind, name, **more)


def _output(named: str, more: Data) -> Data:
    name, kind = _typed(named.removesuffix("!"))
    made = output(name, kind, required=named.endswith("!"))
    made["schema"] |= more
    return made


def _case(branch: str, text: str) -> Data:
    if text == "else":
        return case(branch, level=999)
    joined = "or" if text == "or" or " or " in text else "and"
    made = [one.split() for one in re.split(r" (?:and|or) ", text)] if text not in ("and", "or") else []
    return case(branch, *(condition(*one) for one in made), operator=joined)


class Scripted:
    """The nodes that work outside the interpreter, as one case tells them to be; of one run.

    An attempt does one of: `gives` outputs, `fails` with a code (`message`, `final`), `raises` an exception of a type
    that no node knows, `interrupts` with a code, `sleeps` past its deadline. With `branch`, `says`, `asks` and
    `tokens` it also chooses a branch, adds to the content, is remembered, and is used. What is told nothing gives its
    inputs back, as far as they are declared; a variable is set and got.

    Attributes
    ----------
    attempts
        How many there were, by the node's key.
    """

    def __init__(self, does: Mapping[str, Any]) -> None:
        self._does = {key_of(short): told for short, told in does.items()}
        self._variables: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.attempts: Counter[str] = Counter()
        self.unused = set(self._does)

    def kinds(self) -> dict[str, Execute]:
        """What runs the nodes of each type."""
        return dict.fromkeys(SCRIPTED, self)

    def __call__(self, call: Call) -> Result:
        with self._lock:
            self.attempts[call.key] += 1
            name = call.key if call.key in self._does else call.node.id
            self.unused.discard(name)
            told = self._does.get(name)
        if told is None:
            return self._plain(call)
        attempts = told if isinstance(told, list) else [told]
        return self._done(call, attempts[min(call.attempt, len(attempts)) - 1])

    def _done(self, call: Call, told: Mapping[str, Any]) -> Result:
        if "fails" in told:
            raise NodeError(
                told["fails"], told.get("message", "it fails"), is_transient=not told.get("final", False)
            )
        if "raises" in told:
            raise {"ValueError": ValueError, "TimeoutError": TimeoutError, "KeyError": KeyError}[
                told["raises"]
            ]("a secret")
        if "interrupts" in told:
            raise Interrupt(told["interrupts"], "it is over")
        if told.get("sleeps"):
            time.sleep(max(0.0, call.deadline - time.monotonic()) + 0.1)
            return Result({"result": "too late"})
        branch = f"intent-one-of::{told['branch']}" if "branch" in told else ""
        exchange = Exchange(*told["asks"]) if "asks" in told else None
        usage = Usage(*told.get("tokens", (0, 0, 0)))
        return Result(told.get("gives", self._plain(call).outputs), branch, told.get("says"), usage, exchange)

    def _plain(self, call: Call) -> Result:
        if call.node.type == "node-variable":
            with self._lock:
                if call.node.params["method"] == "set":
                    self._variables |= call.inputs
                    return Result(dict(call.inputs))
                return Result(
                    {
                        one.name: self._variables[one.name]
                        for one in call.node.outputs
                        if one.name in self._variables
                    }
                )
        declared = {one.name for one in call.node.outputs}
        return Result({name: value for name, value in call.inputs.items() if name in declared})


def answers_of(given: Mapping[str, Any]) -> Any:
    """What answers the questions of a case one after the other."""
    waiting: dict[str, Answer] = {}
    left = [Answer(one["action"], one.get("content")) for one in given["answers"]]

    def answer(question: Question) -> Answer:
        if question.key not in waiting:
            waiting[question.key] = left.pop(0)
        return waiting[question.key]

    return answer


def account(outcome: Outcome, told: Told) -> Data:
    """All that a run tells and that does not depend on the clock."""
    error = outcome.error
    return {
        "state": outcome.state,
        "outputs": outcome.outputs,
        "content": outcome.content,
        "error": None if error is None else [error.code, error.message, error.node_id],
        "usage": outcome.usage,
        "trace": {
            record.key: {
                "state": record.state,
                "inputs": record.inputs,
                "outputs": record.outputs,
                "attempts": record.attempt,
                "code": record.error_code,
                "message": record.error_message,
                "usage": record.usage,
            }
            for record in told.records
        },
        "ended": Counter(record.key for record in told.records),
        "begun": Counter(told.begun),
        "remembered": sorted((node, one.question, one.answer) for node, one in told.exchanges),
        "progress": max(told.progress, default=0.0),
    }


def differences(given: Mapping[str, Any], found: Data) -> list[str]:
    """In what a run is not as its case says."""
    wrong = [
        f"{name}: {found[name]!r} is not {given[name]!r}"
        for name in ("state", "outputs", "content")
        if name in given and found[name] != given[name]
    ]
    error = given.get("error")
    if error is None:
        wrong += [f"error: {found['error']!r}"] if found["error"] else []
    else:
        code, message, blamed = (*error, None, None)[:3]
        blamed = blamed and node_id(blamed)
        if found["error"] is None:
            wrong.append("error: there is none")
        elif found["error"][0] != code or (message is not None and found["error"][1:] != [message, blamed]):
            wrong.append(f"error: {found['error']!r} is not {[code, message, blamed]!r}")
    if "tokens" in given and [found["usage"].input_tokens, found["usage"].output_tokens] != given["tokens"]:
        wrong.append(f"usage: {found['usage']!r}")
    if "trace" in given:
        wrong += _trace_differences(given["trace"], found["trace"])
    wrong += [f"{key} ended {times} times" for key, times in found["ended"].items() if times > 1]
    return wrong


def _trace_differences(given: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    expected = {key_of(short): told for short, told in given.items()}
    if expected.keys() != found.keys():
        yield f"ended: {sorted(found)} are not {sorted(expected)}"
    for key in expected.keys() & found.keys():
        told = {"state": expected[key]} if isinstance(expected[key], str) else dict(expected[key])
        outputs = told.pop("outputs", None)
        seen = found[key]
        for name, value in told.items():
            if seen[name] != value:
                yield f"{key} {name}: {seen[name]!r} is not {value!r}"
        plain = {
            name: one for name, one in seen["outputs"].items() if name not in ("errorCode", "errorMessage")
        }
        if outputs is not None and plain != outputs:
            yield f"{key} outputs: {plain!r} are not {outputs!r}"
