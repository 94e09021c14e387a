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

    Raises
    ------
    TooComplex
    """
    return _Filler().filled(value, shape)


def created(shape: Shape) -> dict[str, Any]:
    """Return the object that the document makes of nothing: what it fixes, and defaults beside that; empty where it
    fixes nothing."""
    made, fixes = _Filler().created(shape, ())
    return made if fixes else {}


class _Filler:
    """Fills one body, with one budget."""

    def __init__(self) -> None:
        self._left = MAX_CREATED

    def filled(self, value: Any, shape: Shape) -> Any:
        if isinstance(value, list):
            shapes = (shape.item(index) for index in range(len(value)))
            return [
                item if each is None else self.filled(item, each)
                for item, each in zip(value, shapes, strict=True)
            ]
        if not isinstance(value, dict):
            return value
        result = {}
        for name, item in value.items():
            member = shape.member(name)
            # OpenAPI 3.1, 4.8.24: it should not be sent. Who changes an answer and sends it back means no harm.
            if member is None or not member.read_only:
                result[name] = item if member is None else self.filled(item, member)
        for name in shape.names:
            if name not in value:
                result.update(self._absent(name, shape, ())[0])
        return result

    def created(self, shape: Shape, path: tuple[Shape, ...]) -> tuple[dict[str, Any], bool]:
        """Return an object, and whether anything in it is fixed. `path` are the shapes of the objects around it: a
        cycle is not gone through again."""
        self._left -= 1
        if self._left < 0:
            raise TooComplex
        result: dict[str, Any] = {}
        fixes = False
        for name in shape.names:
            added, fixed = self._absent(name, shape, (*path, shape))
            result.update(added)
            fixes = fixes or fixed
        return result, fixes

    def _absent(self, name: str, shape: Shape, path: tuple[Shape, ...]) -> tuple[dict[str, Any], bool]:
        member = shape.member(name)
        if member is None or member.read_only:
            return {}, False
        if member.defaults:
            return {name: member.defaults[0]}, member.origin == FIXED
        if name not in shape.required or member in path or len(path) == MAX_DEPTH:
            return {}, False
        made, fixes = self.created(member, path)
        return ({name: made}, True) if fixes else ({}, False)


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
