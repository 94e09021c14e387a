"""agent.yaml: read within bounds, checked whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chalicelib.agents.names import AGENT_NAME_PATTERN
from chalicelib.agents.spec import AgentSpec, LoadError

FILE = "agent.yaml"
MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
_MAX_TOLD = 4_000

_NAMES = {"type": "array", "maxItems": 100, "uniqueItems": True}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": AGENT_NAME_PATTERN},
        "version": {
            "type": "string",
            "maxLength": 64,
            # SemVer, and what people write instead: 1, 1.2, v1.2.3.
            "pattern": r"^v?[0-9]+(\.[0-9]+){0,3}([-+][0-9A-Za-z.+-]+)?$",
        },
        "description": {"type": "string", "minLength": 1, "maxLength": 2000},
        "entry_class": {"type": "string", "maxLength": 200, "pattern": r"^[A-Za-z_][A-Za-z0-9_.]*$"},
        "author": {"type": "string", "maxLength": 200},
        "enabled": {"type": "boolean"},
        "dependencies": {**_NAMES, "items": {"type": "string", "pattern": AGENT_NAME_PATTERN}},
        "config": {"type": "object"},
        "plugins": {**_NAMES, "items": {"type": "string", "minLength": 1, "maxLength": 200}},
        "tools": {**_NAMES, "items": {"type": "string", "minLength": 1, "maxLength": 200}},
    },
    "required": ["name", "version", "description", "entry_class"],
    "additionalProperties": False,
}


def read(folder: Path) -> dict[str, Any]:
    """Return what the agent.yaml of a folder says, unchecked.

    Raises
    ------
    LoadError
        `agent.yaml`: unreadable, over 64 KiB, no UTF-8, no YAML, not one mapping, nested too deep, with a name given
        twice, an anchor or an alias (nine lines of them are a thousand million values), or a value that JSON has not.
    """
    try:
        with (folder / FILE).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(f"cannot be read ({type(error).__name__})") from None
    if len(raw) > MAX_BYTES:
        raise _refused(f"has more than {MAX_BYTES} bytes")
    try:
        document = _parsed(raw.decode())
    except UnicodeDecodeError:
        raise _refused("is not UTF-8") from None
    if not isinstance(document, dict):
        raise _refused("is not a mapping")
    return document


def is_disabled(document: Mapping[str, Any]) -> bool:
    """Whether the file says `enabled: false`; what else it says does not count then."""
    return document.get("enabled") is False


def is_name(text: str) -> bool:
    """Whether a text can be an agent's name."""
    return re.fullmatch(AGENT_NAME_PATTERN, text) is not None and not text.endswith("\n")


def check(document: dict[str, Any]) -> None:
    """Refuse a description that breaks the schema.

    Raises
    ------
    LoadError
        `agent.yaml`, with every violation.
    """
    from chalicelib.core.json_schema import schemas

    found = schemas.violations(SCHEMA, document)
    if found:
        told = "; ".join(f"{violation.pointer or '/'} {violation.message}" for violation in found)
        raise _refused(f"is refused: {told}"[:_MAX_TOLD])


def spec_of(document: Mapping[str, Any], folder: Path, module: str) -> AgentSpec:
    """Return what a checked description says, but for its `config`."""
    return AgentSpec(
        name=document["name"],
        version=document["version"],
        description=document["description"],
        entry_class=document["entry_class"],
        folder=folder,
        module=module,
        author=document.get("author", ""),
        enabled=document.get("enabled", True),
        dependencies=tuple(document.get("dependencies", ())),
        tools=frozenset(document.get("tools", ())),
        plugins=frozenset(document.get("plugins", ())),
    )


def _parsed(text: str) -> Any:
    import yaml

    # libyaml where the wheel has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml, yaml.parse(text, Loader=loader))
        reader = loader(text)
        try:
            node = reader.get_single_node()
            for problem in _doubled(yaml, node):
                raise _refused(problem)
            value = None if node is None else reader.construct_document(node)
        finally:
            reader.dispose()
    except yaml.YAMLError as error:
        # Not its text: that quotes the lines around the place, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise _refused(f"is not YAML: {getattr(error, 'problem', None) or 'a character'}{where}") from None
    except (ValueError, TypeError, OverflowError):
        # The constructors' own: a date such as 2024-99-99, a list as a name.
        raise _refused("has a value that cannot be read") from None
    for pointer in _beyond_json(value, ""):
        raise _refused(f"has a value at {pointer or '/'} that JSON has not; quote it")
    return value


def _check_events(yaml: Any, events: Iterator[Any]) -> None:
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused(f"has an anchor or an alias (line {event.start_mark.line + 1})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refused(f"is nested deeper than {MAX_DEPTH} levels")


def _doubled(yaml: Any, node: Any) -> Iterator[str]:
    """The library takes the last of two members of one name, silently."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _doubled(yaml, item)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield f"gives {key.value[:100]} twice (line {key.start_mark.line + 1})"
                seen.add(key.value)
            yield from _doubled(yaml, value)


def _beyond_json(value: Any, pointer: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                yield pointer
            else:
                yield from _beyond_json(item, f"{pointer}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _beyond_json(item, f"{pointer}/{index}")
    elif value is not None and not isinstance(value, str | bool | int | float):
        yield pointer


def _refused(message: str) -> LoadError:
    return LoadError("agent.yaml", f"Its agent.yaml {message}.")
