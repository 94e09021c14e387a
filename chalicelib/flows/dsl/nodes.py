"""What a single node must be beyond its schemas: parameters that refer to its own inputs, templates, outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.flows.dsl.branches import branch_list
from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.model import WITHOUT_OUTPUTS, plain_handle
from chalicelib.flows.dsl.params import (
    DEFAULT_KIND,
    DEFAULT_LEVEL,
    OTHER_KIND,
    OUTPUT_COUNTS,
    UNARY_OPERATORS,
)
from chalicelib.flows.dsl.reading import DraftNode
from chalicelib.flows.dsl.spelling import Steps
from chalicelib.flows.dsl.structure import field_text
from chalicelib.flows.dsl.templates import Template, TemplateError
from chalicelib.flows.dsl.values import conforms

Problem = tuple[Steps, str]

_TEMPLATES: dict[str, tuple[str, ...]] = {
    "message": ("template",),
    "llm": ("template", "systemTemplate"),
    "decision-making": ("template", "systemTemplate"),
    "extractor-parameter": ("template", "systemTemplate", "instruction"),
    "question-answer": ("question",),
}
_WITH_OUTPUT_MODE = frozenset({"node-end", "iteration-node-end", "loop-node-end"})


def check_node(node: DraftNode, findings: Findings) -> None:
    """Report what is wrong within one node; parts that could not be read were reported already."""
    _check_counts(node, findings)
    if node.params is not None:
        for steps, message in _param_problems(node, node.params):
            place = field_text("nodeParam", steps)
            findings.add("param.schema", node.id, place, message, node.steps("nodeParam", *steps))
        for name in template_names(node.type, node.params):
            _check_template(node, name, node.params[name], findings)
    if node.retry.should_retry and node.retry.error_strategy == 1:
        _check_custom_output(node, findings)


def template_names(node_type: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The parameters of a node that are templates and are used."""
    if node_type in _WITH_OUTPUT_MODE:
        return ("template",) if params.get("outputMode") == 1 else ()
    if node_type == "text-joiner":
        return ("prompt",) if params["mode"] == 0 else ()
    return tuple(name for name in _TEMPLATES.get(node_type, ()) if name in params)


def _check_template(node: DraftNode, name: str, text: str, findings: Findings) -> None:
    place, steps = f"nodeParam.{name}", node.steps("nodeParam", name)
    try:
        names = Template.parse(text).names
    except TemplateError as error:
        findings.add("template.name", node.id, place, str(error), steps)
        return
    if not node.inputs_known:
        return
    known = {given.name for given in node.inputs}
    for unknown in (name for name in names if name not in known):
        findings.add("template.name", node.id, place, f"there is no input {shown(unknown)}", steps)


def _check_counts(node: DraftNode, findings: Findings) -> None:
    least, most = OUTPUT_COUNTS.get(node.type, (0, None))
    count = len(node.outputs)
    if node.outputs_known and (count < least or (most is not None and count > most)):
        wanted = "exactly one output" if most == 1 else "at least one output"
        findings.add("param.schema", node.id, "outputs", f"needs {wanted}", node.steps("outputs"))
    needs_input = node.type == "iteration" or (
        node.type == "text-joiner" and node.params is not None and node.params["mode"] == 1
    )
    if needs_input and node.inputs_known and not node.inputs:
        findings.add("param.schema", node.id, "inputs", "needs at least one input", node.steps("inputs"))


def _param_problems(node: DraftNode, params: dict[str, Any]) -> Iterator[Problem]:
    listed = branch_list(node.type, params)
    if listed is not None:
        yield from _branch_problems(node.type, *listed)
    if node.inputs_known:
        ids = Counter(given.id for given in node.inputs)
        for index, case in enumerate(params.get("cases", ()) if node.type == "if-else" else ()):
            yield from _condition_problems(ids, case, ("cases", index))
        if node.type == "loop" and "until" in params:
            yield from _condition_problems(ids, params["until"], ("until",))


def _branch_problems(node_type: str, name: str, branches: list[dict[str, Any]]) -> Iterator[Problem]:
    if not branches:
        yield (name,), "needs at least one option"
    seen: set[str] = set()
    defaults = 0
    for index, branch in enumerate(branches):
        branch_id = plain_handle(branch["id"])
        if branch_id in seen:
            yield (name, index, "id"), "is the id of an earlier branch"
        seen.add(branch_id)
        defaults += is_default(node_type, branch)
        if defaults > 1 and is_default(node_type, branch):
            yield (name, index), "is a second default"


def is_default(node_type: str, branch: Mapping[str, Any]) -> bool:
    """Whether a case, an intent or an option is the one that is taken when no other is."""
    if node_type == "if-else":
        return bool(branch.get("level") == DEFAULT_LEVEL)
    key = "intentType" if node_type == "decision-making" else "type"
    return bool(branch.get(key, OTHER_KIND) == DEFAULT_KIND)


def _condition_problems(ids: Counter[str], holder: dict[str, Any], where: Steps) -> Iterator[Problem]:
    for index, condition in enumerate(holder.get("conditions", ())):
        here = (*where, "conditions", index)
        names = ["leftVarIndex"]
        if condition["compareOperator"] not in UNARY_OPERATORS or condition.get("rightVarIndex"):
            names.append("rightVarIndex")
        for name in names:
            count = ids[condition.get(name) or ""] if condition.get(name) else 0
            if count != 1:
                found = "several inputs have" if count else "no input has"
                yield (*here, name), f"{found} the id {shown(condition.get(name) or '')!r}"


def _check_custom_output(node: DraftNode, findings: Findings) -> None:
    if not node.outputs_known:
        return
    outputs = {} if node.type in WITHOUT_OUTPUTS else {output.name: output for output in node.outputs}
    place, custom = "retryConfig.customOutput", node.retry.custom_output
    here = ("retryConfig", "customOutput")
    for name, value in custom.items():
        if name not in outputs:
            message = "is not a declared output"
            findings.add("output.custom", node.id, f"{place}.{name}", message, node.steps(*here, name))
            continue
        for misfit in conforms(value, outputs[name].schema)[:1]:
            at = f" at {misfit.pointer}" if misfit.pointer else ""
            findings.add(
                "output.custom", node.id, f"{place}.{name}", misfit.message + at, node.steps(*here, name)
            )
    for name in (name for name, output in outputs.items() if output.required and name not in custom):
        findings.add("output.custom", node.id, f"{place}.{name}", "is required", node.steps(*here, name))
