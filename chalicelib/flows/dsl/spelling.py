"""One spelling for the keys of a flow: those that are accepted in snake_case become camelCase.

Only keys that a schema of ours names are touched, at the places where it names them; what is a stranger's own (the
content of a literal, a custom output) stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Steps = tuple[str | int, ...]
"""A place in the data: the unescaped steps of its pointer."""

_HUMP = re.compile(r"(?<!^)(?=[A-Z])")


def snake(name: str) -> str:
    """`sourceNodeId` as `source_node_id`."""
    return _HUMP.sub("_", name).lower()


@dataclass(frozen=True)
class Spelling:
    """What keys are called at one place of the data, and below."""

    names: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, Spelling] = field(default_factory=dict)
    items: Spelling | None = None

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> Spelling:
        """What the properties of a schema are called; references are not followed."""
        properties = schema.get("properties", {})
        below = {name: cls.of(part) for name, part in properties.items()}
        return cls(
            {snake(name): name for name in properties if snake(name) != name},
            {name: spelling for name, spelling in below.items() if spelling.matters},
            cls.of(schema["items"]) if "items" in schema else None,
        )

    @property
    def matters(self) -> bool:
        """Whether any key can have two spellings."""
        return bool(self.names or self.below or (self.items and self.items.matters))

    def apply(self, value: Any) -> Any:
        """`value` with its keys in camelCase; a key that is given in both spellings keeps the first of ours."""
        if isinstance(value, dict) and (self.names or self.below):
            return self._members(value)
        if isinstance(value, list) and self.items is not None and self.items.matters:
            return [self.items.apply(item) for item in value]
        return value

    def _members(self, value: dict[str, Any]) -> dict[str, Any]:
        spelt: dict[str, Any] = {}
        for key, item in value.items():
            name = self.names.get(key, key)
            if name != key and name in value:
                continue
            spelt[name] = self.below[name].apply(item) if name in self.below else item
        return spelt


def original(data: Any, steps: Steps) -> Steps:
    """The steps of a pointer as the data spells them; from where they lead nowhere, as they are."""
    found: list[str | int] = []
    for step in steps:
        if isinstance(data, dict):
            if step not in data and isinstance(step, str) and snake(step) in data:
                step = snake(step)
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            data = None
        found.append(step)
    return tuple(found)
