"""Parts of a flow against their schemas: the verdict from one validator, the reasons from another.

`jsonschema-rs` judges a part in microseconds, which 10,000 nodes need; `core.schemas` says where and why, one violation
at a time and with a budget, and only for parts that are not valid.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from chalicelib.core.json_schema import schemas
from chalicelib.core.json_schema.check import count_objects
from chalicelib.flows.dsl import envelope
from chalicelib.flows.dsl.findings import Findings
from chalicelib.flows.dsl.limits import MAX_DEPTH, MAX_EXPLAINED
from chalicelib.flows.dsl.params import PARAMS
from chalicelib.flows.dsl.spelling import Spelling, Steps

SCHEMAS: dict[str, dict[str, Any]] = {
    "inputs": envelope.INPUTS,
    "input": envelope.INPUT,
    "outputs": envelope.OUTPUTS,
    "output": envelope.OUTPUT,
    "nodeMeta": envelope.META,
    "retryConfig": envelope.RETRY,
    "edge": envelope.EDGE,
    **{f"nodeParam {kind}": schema for kind, schema in PARAMS.items()},
}
"""The parts of a flow that have a schema."""

_SCALARS = frozenset({str, int, float, bool, type(None)})


@functools.cache
def _verdict(part: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(SCHEMAS[part], offline=True)


@functools.cache
def spelling(part: str) -> Spelling:
    """The spelling of a part's keys."""
    return Spelling.of(SCHEMAS[part])


def is_valid(part: str, value: Any) -> bool:
    """Whether a value, in our spelling, is a `part` of a flow."""
    return bool(_verdict(part).is_valid(value))


@dataclass
class Explainer:
    """Adds to the findings what is wrong with invalid parts, as long as its budget lasts."""

    findings: Findings
    budget: int = MAX_EXPLAINED

    def explain(self, part: str, value: Any, node: str, steps: Steps, place: str) -> None:
        """Say what is wrong with a part that is not valid.

        Parameters
        ----------
        value
            The part in our spelling.
        steps
            Where it stands in the data.
        place
            The field that it is.
        """
        self.budget -= count_objects(value)
        found = []
        if self.budget >= 0 and not self.findings.full:
            found = schemas.violations(SCHEMAS[part], value)
        for violation in found:
            below = _steps(violation.pointer)
            field = field_text(place, below, value)
            self.findings.add("param.schema", node, field, violation.message, (*steps, *below))
        if not found:
            # The budget is used up, or the two validators disagree: it is refused all the same.
            self.findings.add("param.schema", node, place, "is not as its schema demands", steps)


def field_text(place: str, below: Steps, value: Any = None) -> str:
    """`nodeParam.cases[0].id`; a member of a list of inputs or outputs goes by its name, where it has one."""
    if below and place in ("inputs", "outputs") and isinstance(below[0], int) and isinstance(value, list):
        member = value[below[0]] if below[0] < len(value) else None
        name = member.get("name") if isinstance(member, dict) else None
        if isinstance(name, str) and name:
            below = (name, *below[1:])
    return place + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in below)


def json_fault(data: Any) -> str | None:
    """Why data is not JSON of a depth that may be recursed into; None where it is. Level by level, not recursing."""
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                if not set(map(type, value)) <= {str}:
                    return "has a name that is no text"
                below.extend(value.values())
            elif kind is list:
                below.extend(value)
            elif kind not in _SCALARS:
                return f"holds a {kind.__name__}, which is not JSON"
        if not below:
            return None
        level = below
    return f"is nested deeper than {MAX_DEPTH} levels"


def _steps(pointer: str) -> Steps:
    """The steps of a pointer of ours; digits are indices, since no name in a schema of ours is a number."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    return tuple(int(part) if part.isascii() and part.isdigit() and len(part) < 7 else part for part in parts)
