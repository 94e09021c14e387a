"""References of inputs to outputs of other nodes: whether these are there, come before, and are declared."""

from __future__ import annotations

from collections.abc import Iterator

from chalicelib.flows.dsl.declared import Declared, fits, output_schemas, schema_at
from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.graph import Ancestors
from chalicelib.flows.dsl.model import Input, Ref
from chalicelib.flows.dsl.reading import Draft, DraftNode
from chalicelib.flows.dsl.spelling import Steps


def references(draft: Draft) -> Iterator[tuple[int, int, Input, Ref]]:
    """All references: the number of the node, the place of the input, the input, and what it refers to."""
    for number, node in enumerate(draft.nodes):
        for place, given in zip(node.places, node.inputs, strict=True):
            if isinstance(given.value, Ref):
                yield number, place, given, given.value


def referenced(draft: Draft) -> list[int]:
    """The nodes that are referred to and exist."""
    found = (draft.by_id.get(ref.node_id) for _, _, _, ref in references(draft))
    return [number for number in found if number is not None]


def check_references(draft: Draft, before: Ancestors, findings: Findings, warnings: Findings) -> None:
    """Report references to what is not there or not yet there, and warn of types that differ.

    Parameters
    ----------
    before
        The ancestors of nodes, where what comes before an iteration or a loop also comes before its body.
    """
    known: dict[int, dict[str, Declared]] = {}
    for number, place, given, ref in references(draft):
        node = draft.nodes[number]
        field, content = f"inputs.{given.name}", node.steps("inputs", place, "schema", "value", "content")
        source = draft.by_id.get(ref.node_id)
        if source is None:
            message = f"there is no node {shown(ref.node_id)}"
            findings.add("ref.node", node.id, field, message, (*content, "nodeId"))
            continue
        if not before.leads(source, number):
            message = f"{shown(ref.node_id)} never comes before it"
            findings.add("ref.node", node.id, field, message, (*content, "nodeId"))
        if source not in known:
            target = draft.nodes[source]
            known[source] = output_schemas(target.type, tuple(target.outputs))
        _check_output(node, given, ref, draft.nodes[source], known[source], (content, findings, warnings))


def _check_output(
    node: DraftNode,
    given: Input,
    ref: Ref,
    source: DraftNode,
    outputs: dict[str, Declared],
    report: tuple[Steps, Findings, Findings],
) -> None:
    content, findings, warnings = report
    field, name = f"inputs.{given.name}", str(ref.path[0])
    where = (*content, "name")
    if name not in outputs:
        if source.outputs_known and source.type:
            message = f"{shown(source.id)} has no output {shown(name)}"
            findings.add("ref.output", node.id, field, message, where)
        return
    found = schema_at(outputs[name], ref.path[1:])
    if found is None:
        message = f"output {shown(name)} of {shown(source.id)} has nothing at that path"
        findings.add("ref.output", node.id, field, message, where)
    elif not fits(found, given.schema):
        message = f"is declared {given.schema['type']}, but refers to {found['type']}"
        warnings.add("ref.output", node.id, field, message, where)
