"""What is done to a body before it is checked: defaults, fixed values, and what only the server writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.core.strict_json import MAX_DEPTH, canonical, escape
from chalicelib.tools.binding.findings import Findings
from chalicelib.tools.binding.shapes import Shape, TooComplex
from chalicelib.tools.openapi.operation import FIXED

MAX_CREATED = 1_000
"""Objects made only to hold fixed values: required objects in required objects double with every level."""


def visit(value: Any, shape: Shape, pointer: str) -> Iterator[tuple[Any, Shape, str]]:
    """Yield every value under (and with) `value` of which a schema says something, with its shape and pointer.

    The depth is bounded (`check_json`).
    """
    yield value, shape, pointer
    for step, member, child in _members(value, shape):
        yield from visit(member, child, f"{pointer}/{escape(step)}")


def check_fixed(value: Any, shape: Shape, pointer: str, found: Findings) -> None:
    """Refuse another value where the document fixes one (`x-from: 2`), in any branch that may apply."""
    for item, each, place in visit(value, shape, pointer):
        if each.origin == FIXED and not is_fixed(item, each):
            found.add(place, "argument.fixed", "is fixed by the document")


def is_fixed(value: Any, shape: Shape) -> bool:
    """Return whether a value is one that the document fixes for its place."""
    return any(canonical(value) == canonical(default) for default in shape.defaults)


def filled(value: Any, shape: Shape) -> Any:
    """Return a body with the defaults of absent members, without members that are `readOnly`.

    Only what certainly applies is followed (`$ref`, `allOf`, `properties`, `items`): a default in a branch of `anyOf`
    is one only if the branch is chosen. A default is taken as it is written, nothing is filled into it. Of objects that
    are absent themselves only those are made that are required and hold fixed values.
    """
    if isinstance(value, list):
        shapes = (shape.item(index) for index in range(len(value)))
        return [
            item if child is None else filled(item, child) for item, child in zip(value, shapes, strict=True)
        ]
    if not isinstance(value, dict):
        return value
    result = {}
    for name, item in value.items():
        child = shape.member(name)
        # OpenAPI 3.1, 4.8.24: it should not be sent. Who changes an answer and sends it back means no harm.
        if child is None or not child.read_only:
            result[name] = item if child is None else filled(item, child)
    for name in shape.names:
        if name not in value:
            result.update(_absent(name, shape))
    return result


def fixed_only(shape: Shape) -> dict[str, Any]:
    """Return the object that holds what the document fixes, and nothing else; empty where it fixes nothing."""
    return _fixed_only(shape, (), [MAX_CREATED])


def _absent(name: str, shape: Shape) -> dict[str, Any]:
    child = shape.member(name)
    if child is None or child.read_only:
        return {}
    if child.defaults:
        return {name: child.defaults[0]}
    created = fixed_only(child) if name in shape.required else {}
    return {name: filled(created, child)} if created else {}


def _fixed_only(shape: Shape, path: tuple[Shape, ...], left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    if left[0] < 0:
        raise TooComplex
    result = {}
    for name in shape.names:
        child = shape.member(name)
        if child is None or child.read_only or child in path or len(path) == MAX_DEPTH:
            continue
        if child.origin == FIXED and child.defaults:
            result[name] = child.defaults[0]
        elif name in shape.required and (inner := _fixed_only(child, (*path, child), left)):
            result[name] = inner
    return result


def _members(value: Any, shape: Shape) -> Iterator[tuple[str | int, Any, Shape]]:
    steps: Iterator[tuple[str | int, Any, Shape | None]]
    if isinstance(value, dict):
        steps = ((name, item, shape.member(name)) for name, item in value.items())
    elif isinstance(value, list):
        steps = ((index, item, shape.item(index)) for index, item in enumerate(value))
    else:
        return
    for step, item, child in steps:
        if child is not None:
            yield step, item, child
