"""agent.yaml: read, checked with every violation, its `${VAR}`s resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalicelib.agents.names import AGENT_NAME_PATTERN, RESERVED, SHARED_OWNER
from chalicelib.agents.spec import AgentSpec, LoadError
from chalicelib.plugins.names import PLUGIN_ID_PATTERN
from chalicelib.tools.names import TOOL_ID_PATTERN

FILE = "agent.yaml"
MAX_BYTES = 64 * 1024
_NAMES: dict[str, Any] = {
    "type": "array",
    "maxItems": 100,
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1, "maxLength": 128},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "version", "description", "entry_class"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": AGENT_NAME_PATTERN},
        "version": {"type": "string", "pattern": "^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$"},
        "description": {"type": "string", "minLength": 1, "maxLength": 1000},
        "entry_class": {"type": "string", "maxLength": 200, "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"},
        "author": {"type": "string", "maxLength": 200},
        "enabled": {"type": "boolean"},
        "dependencies": {**_NAMES, "items": {"type": "string", "pattern": AGENT_NAME_PATTERN}},
        "config": {"type": "object"},
        "tools": {**_NAMES, "description": f"{TOOL_ID_PATTERN}, or a name in the calling app"},
        "plugins": {**_NAMES, "description": f"{PLUGIN_ID_PATTERN}, or a name in the calling app"},
    },
}
# `$${` is a `${` that stays; `${NAME:-other}` has a value for where the variable is not set.
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def read_spec(folder: Path, module: str, environment: Mapping[str, str]) -> AgentSpec:
    """Return what an agent's agent.yaml says.

    One that says `enabled: false` is not looked at further: it may be half-written.

    Parameters
    ----------
    module
        The import name of its package.
    environment
        Where `${VAR}` comes from.

    Raises
    ------
    LoadError
        `agent.yaml` with every violation, `agent.reserved_name`, `agent.config` with every variable that is not set.
    """
    given = _read(folder / FILE)
    if given.get("enabled") is False:
        texts = {key: str(given.get(key, "")) for key in ("version", "description", "entry_class")}
        name = str(given.get("name", folder.name))
        return AgentSpec(
            name, texts["version"], texts["description"], texts["entry_class"], folder, module, enabled=False
        )
    _check(given)
    # An agent `shared_x` would name its tables as shared ones are named.
    if given["name"] in RESERVED or given["name"].startswith(f"{SHARED_OWNER}_"):
        raise LoadError("agent.reserved_name", f"The name {given['name']} is reserved.")
    return AgentSpec(
        name=given["name"],
        version=given["version"],
        description=given["description"],
        entry_class=given["entry_class"],
        folder=folder,
        module=module,
        author=given.get("author", ""),
        dependencies=tuple(given.get("dependencies", ())),
        config=resolve(given.get("config", {}), environment),
        tools=frozenset(given.get("tools", ())),
        plugins=frozenset(given.get("plugins", ())),
    )


def resolve(config: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return a config with each `${VAR}` in its texts, at every depth, replaced by the variable's value.

    Raises
    ------
    LoadError
        `agent.config`, naming every variable that is not set; never a value.
    """
    missing: set[str] = set()

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        value = environment.get(found[1], found[2])
        if value is None:
            missing.add(found[1])
            return ""
        return value

    def resolved(value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(replaced, value)
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if isinstance(value, dict):
            return {key: resolved(each) for key, each in value.items()}
        return value

    result = {key: resolved(value) for key, value in config.items()}
    if missing:
        raise LoadError("agent.config", f"Not set in the environment: {', '.join(sorted(missing))}.")
    return result


def _read(path: Path) -> dict[str, Any]:
    from chalicelib.tools.openapi.yaml_reader import read

    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError("agent.yaml", f"{FILE} cannot be read: {type(error).__name__}.") from error
    if len(raw) > MAX_BYTES:
        raise LoadError("agent.yaml", f"{FILE} has more than {MAX_BYTES} bytes.")
    value, found = read(text)
    if not found and not isinstance(value, dict):
        raise LoadError("agent.yaml", f"{FILE} holds no mapping.")
    if found:
        raise LoadError("agent.yaml", f"{FILE}: " + "; ".join(one.message for one in found))
    result: dict[str, Any] = value
    return result


def _check(given: dict[str, Any]) -> None:
    from chalicelib.core.schemas import violations

    found = violations(given, SCHEMA)
    if found:
        told = "; ".join(f"{one.pointer or '/'} {one.message}" for one in found)
        raise LoadError("agent.yaml", f"{FILE} does not hold: {told}")
