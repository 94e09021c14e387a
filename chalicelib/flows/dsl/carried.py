"""What iterations and loops carry into their bodies and out of them, by name."""

from __future__ import annotations

from chalicelib.flows.dsl.bodies import FLOW, Bodies, body_ends
from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.model import LOOP
from chalicelib.flows.dsl.reading import Draft, DraftNode


def check_carried(draft: Draft, bodies: Bodies, findings: Findings) -> None:
    """Report outputs of a body's start that its owner has no input for, and outputs of the owner that no end fills.

    The start of a body gives out what the owner takes in: for an iteration one item of each array, for a loop the
    latest value of each variable. The owner's outputs are the inputs of the body's end; a loop's variables that the
    end leaves alone keep their values, so they are outputs as well.
    """
    for owner, members in bodies.members.items():
        if owner == FLOW:
            continue
        node = draft.nodes[owner]
        taken = {given.name for given in node.inputs}
        if node.inputs_known:
            _check_outputs(
                draft.nodes[bodies.starts[owner]], taken, f"{shown(node.id)} has no input", findings
            )
        for end in (draft.nodes[number] for number in body_ends(draft, node.type, members)):
            given = {one.name for one in end.inputs}
            if node.type == LOOP:
                given |= taken
            if end.inputs_known and (node.type != LOOP or node.inputs_known):
                _check_outputs(node, given, f"{shown(end.id)} has no input", findings)


def _check_outputs(node: DraftNode, known: set[str], missing: str, findings: Findings) -> None:
    for place, output in enumerate(node.outputs):
        if output.name not in known:
            steps = node.steps("outputs", place, "name")
            message = f"{missing} {shown(output.name)}"
            findings.add("ref.output", node.id, f"outputs.{output.name}", message, steps)
