"""What is done to an answer before it is passed on: nulls repaired, hidden members pruned."""

from __future__ import annotations

from typing import Any

from chalicelib.core.strict_json import MAX_REPORTED, escape
from chalicelib.tools.binding.shapes import Shape

_EMPTY: dict[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}


class Repairs:
    """Where something was changed: the first 100 pointers, and how many there are."""

    def __init__(self) -> None:
        self.pointers: list[str] = []
        self.count = 0

    def note(self, pointer: str) -> None:
        self.count += 1
        if len(self.pointers) < MAX_REPORTED:
            self.pointers.append(pointer)


def repaired(value: Any, shape: Shape | None, repairs: Repairs, pointer: str = "") -> Any:
    """Return a value whose nulls are the empty value of their type, where a type is declared that is not null.

    "" for a string, 0, false, [] and {}; of several types the first counts. Only what certainly applies is followed
    (`$ref`, `allOf`, `properties`, `items`): a branch of `anyOf` may be the one that allows null.

    Parameters
    ----------
    shape
        Without branches; None where nothing is said.
    """
    if shape is None:
        return value
    if value is None:
        types = shape.types or ()
        if not types or "null" in types:
            return None
        repairs.note(pointer)
        empty = _EMPTY.get(types[0])
        return type(empty)() if isinstance(empty, dict | list) else empty
    if isinstance(value, dict):
        return {
            name: repaired(item, shape.member(name), repairs, f"{pointer}/{escape(name)}")
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [
            repaired(item, shape.item(index), repairs, f"{pointer}/{index}")
            for index, item in enumerate(value)
        ]
    return value


def pruned(value: Any, shape: Shape | None, prunings: Repairs, pointer: str = "") -> Any:
    """Return a value without the members that its schema hides (`x-display: false`), in any branch that may apply.

    Parameters
    ----------
    shape
        With branches; None where nothing is said.
    """
    if shape is None:
        return value
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            member, place = shape.member(name), f"{pointer}/{escape(name)}"
            if member is not None and member.hidden:
                prunings.note(place)
            else:
                result[name] = pruned(item, member, prunings, place)
        return result
    if isinstance(value, list):
        kept = []
        for index, item in enumerate(value):
            each, place = shape.item(index), f"{pointer}/{index}"
            if each is not None and each.hidden:
                prunings.note(place)
            else:
                kept.append(pruned(item, each, prunings, place))
        return kept
    return value
