"""Declared schemas followed along a path, as `values.project` follows the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chalicelib.flows.dsl.model import IMPLIED_OUTPUTS, STANDARD_OUTPUTS, WITHOUT_OUTPUTS, Output
from chalicelib.flows.dsl.paths import Path

Declared = Mapping[str, Any]

ANY: Final[Declared] = {}
"""The schema of what nothing is declared about."""


def output_schemas(node_type: str, outputs: tuple[Output, ...]) -> dict[str, Declared]:
    """The schemas of all that a reference to a node may name, by name."""
    declared = {} if node_type in WITHOUT_OUTPUTS else {output.name: output.schema for output in outputs}
    return {**STANDARD_OUTPUTS, **IMPLIED_OUTPUTS.get(node_type, {}), **declared}


def schema_at(schema: Declared, path: Path) -> Declared | None:
    """The schema of what stands at a path, `ANY` where nothing is declared; None where the path cannot resolve.

    It cannot where there are `properties`, but not the name, and below a type that holds nothing.
    """
    projections = 0
    for step in path:
        while isinstance(step, str) and schema.get("type") == "array":
            projections += 1
            schema = schema.get("items", ANY)
        if not schema:
            break
        found = _below(schema, step)
        if found is None:
            return None
        schema = found
    for _ in range(projections):
        schema = {"type": "array", "items": schema} if schema else {"type": "array"}
    return schema


def _below(schema: Declared, step: str | int) -> Declared | None:
    if schema.get("type") == "array" and isinstance(step, int):
        found: Declared = schema.get("items", ANY)
        return found
    if schema.get("type") == "object" and isinstance(step, str):
        properties = schema.get("properties")
        return properties.get(step) if properties else ANY
    return None


def fits(given: Declared, wanted: Declared) -> bool:
    """Whether a value of one declared type is, as far as types tell, one of another."""
    kinds = given.get("type"), wanted.get("type")
    return None in kinds or kinds[0] == kinds[1] or kinds == ("integer", "number")
