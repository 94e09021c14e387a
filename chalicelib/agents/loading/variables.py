"""`${VAR}` in the texts of agent.yaml's config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.agents.spec import LoadError
from chalicelib.core.settings import ONE_MIB

MAX_CHARACTERS = ONE_MIB
"""Of all resolved texts together: a short text may name a long variable thousands of times."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass
class _Resolver:
    environment: Mapping[str, str]
    missing: set[str] = field(default_factory=set)
    malformed: list[str] = field(default_factory=list)
    size: int = 0

    def value(self, value: Any, pointer: str) -> Any:
        if isinstance(value, dict):
            return {name: self.value(item, f"{pointer}/{name}") for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, f"{pointer}/{index}") for index, item in enumerate(value)]
        return self.text(value, pointer) if isinstance(value, str) else value

    def text(self, text: str, pointer: str) -> str:
        parts: list[str] = []
        end = 0
        for found in _REFERENCE.finditer(text):
            parts += (text[end : found.start()], self.reference(found, pointer))
            end = found.end()
            self.count(parts[-1])
        parts.append(text[end:])
        self.count(parts[-1])
        return "".join(parts)

    def count(self, part: str) -> None:
        self.size += len(part)
        if self.size > MAX_CHARACTERS:
            raise LoadError(
                "agent.config", f"Its config holds more than {MAX_CHARACTERS} characters, resolved."
            )

    def reference(self, found: re.Match[str], pointer: str) -> str:
        if found[0] == "$${":
            return "${"
        named = _NAME.fullmatch(found[1]) if found[2] else None
        if named is None:
            self.malformed.append(pointer)
            return ""
        value = self.environment.get(named[1])
        if named[2] is not None:
            return value or named[2]
        if value is None:
            self.missing.add(named[1])
        return value or ""


def resolve(config: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of `config` in which every text, at any depth, has its variables' values.

    `${VAR}` is the variable's value, `${VAR:-text}` the same, or `text` where the variable is unset or empty (as in
    POSIX shells), `$${` a literal `${`. Names of members are left as they are, and so is what a value contains.

    Raises
    ------
    LoadError
        `agent.config`, naming every variable that is not set and every place that is malformed; never a value.
    """
    resolver = _Resolver(environment)
    resolved: dict[str, Any] = resolver.value(dict(config), "/config")
    problems = [f"{name} is not set" for name in sorted(resolver.missing)]
    problems += [f"{pointer} has a malformed ${{…}}" for pointer in resolver.malformed]
    if problems:
        raise LoadError("agent.config", f"Its config cannot be resolved: {'; '.join(problems)}.")
    return resolved
