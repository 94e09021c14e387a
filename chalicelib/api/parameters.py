"""Path and query parameters: what each may look like, decoded and checked before a handler sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from chalicelib.agents.names import AGENT_NAME_PATTERN, TABLE_NAME_PATTERN, THREAD_ID_PATTERN
from chalicelib.apps.models import ALIAS_PATTERN, SECRET_NAME_PATTERN
from chalicelib.core.errors import BadRequest, NotFound, Violation
from chalicelib.core.ids import ULID_PATTERN
from chalicelib.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from chalicelib.plugins.names import PLUGIN_ID_PATTERN
from chalicelib.tools.names import SCHEME_PATTERN, SERVER_ID_PATTERN, TOOL_ID_PATTERN

# `type::suffix`, as in the flow's data.
NODE_ID_PATTERN = "^[a-z-]{1,64}::[0-9A-Za-z-]{1,190}$"
NUMBER_ID = "^[1-9][0-9]{0,18}$"
MAX_NUMBER_ID = 2**63 - 1
# Begins with a letter or digit: `..` is no version.
VERSION_PATTERN = "^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$"

# What the protocol recommends, and the colon that servers use to name a group.
TOOL_NAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$"

# Sibling routes must use one name for a variable (API Gateway refuses others), so one table serves them all.
PATH: dict[str, str] = {
    "aliasId": ALIAS_PATTERN,
    "credentialId": NUMBER_ID,
    "pluginId": PLUGIN_ID_PATTERN,
    "installId": ULID_PATTERN,
    "configId": ULID_PATTERN,
    "executionId": ULID_PATTERN,
    "version": VERSION_PATTERN,
    "name": SECRET_NAME_PATTERN,
    "toolId": TOOL_ID_PATTERN,
    "serverId": SERVER_ID_PATTERN,
    "toolName": TOOL_NAME_PATTERN,
    "scheme": SCHEME_PATTERN,
    "flowId": NUMBER_ID,
    "nodeId": NODE_ID_PATTERN,
    "runId": ULID_PATTERN,
    "job": "^[a-z][a-z_]{1,31}$",
    "agentName": AGENT_NAME_PATTERN,
    "threadId": THREAD_ID_PATTERN,
    "moveId": ULID_PATTERN,
    "table": TABLE_NAME_PATTERN,
}

PAGE: dict[str, Any] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": {"type": "string", "minLength": 1, "maxLength": 1024},
}

SINCE: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 40,
    "description": "An RFC 3339 time with its offset.",
}
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)

# jsonschema costs 126 ms of import, which a read that starts cold should not pay for the sake of `limit`. A
# query parameter is one scalar, so these keywords are all that it may use; `endpoint` refuses others.
_KEYWORDS = frozenset(
    {"type", "minimum", "maximum", "minLength", "maxLength", "enum", "pattern", "default", "description"}
)
_TYPES = {"string": str, "integer": int, "boolean": bool}


def resource(title: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a resource all of whose members are always present."""
    return {
        "title": title,
        "type": "object",
        "required": list(properties),
        "additionalProperties": False,
        "properties": dict(properties),
    }


def page_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a page of `item`, which must carry a title."""
    cursor = {"type": ["string", "null"]}
    return resource(f"{item['title']}Page", {"items": {"type": "array", "items": item}, "nextCursor": cursor})


def path_parameters(raw: Mapping[str, str]) -> dict[str, str]:
    """Decode and match path parameters; API Gateway passes them as they stood in the path.

    Raises
    ------
    errors.NotFound
        For an id that cannot exist: `..`, `%2F` or NUL must never reach a storage key or a file name.
    """
    found = {}
    for name, text in raw.items():
        value = _decoded(text)
        if not _compiled(PATH[name]).match(value) or (PATH[name] == NUMBER_ID and int(value) > MAX_NUMBER_ID):
            raise NotFound("There is no such resource.")
        found[name] = value
    return found


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return ""


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    # In Python `$` also matches before a last line feed.
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def check_declared(query: Mapping[str, Any]) -> None:
    """Refuse a declaration that this module would not enforce.

    Raises
    ------
    ValueError
        Naming the parameter; a rule that stands in the document alone would be a lie.
    """
    for name, schema in query.items():
        unknown = set(schema) - _KEYWORDS
        if unknown or schema.get("type") not in _TYPES:
            raise ValueError(
                f"query parameter {name}: {sorted(unknown) or schema.get('type')} is not supported"
            )


def query_parameters(raw: Mapping[str, list[str]] | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return typed query parameters.

    Parameters
    ----------
    raw
        multiValueQueryStringParameters.
    schema
        Name → JSON Schema of a scalar; `integer` and `boolean` are read from their text.

    Raises
    ------
    errors.BadRequest
        With every violation: unknown names, repeated ones, values out of range.
    """
    problems: list[Violation] = []
    values: dict[str, Any] = {}
    for name, texts in (raw or {}).items():
        if name not in schema:
            problems.append(Violation(f"/query/{_escape(name)}", "query.unknown", "no such parameter"))
        elif len(texts) != 1:
            problems.append(Violation(f"/query/{name}", "query.repeated", "given more than once"))
        else:
            values[name] = _typed(texts[0], schema[name]["type"])
            problems += _broken(f"/query/{name}", values[name], schema[name])
    if problems:
        raise BadRequest("The query does not hold.", code="request.query", errors=problems)
    for name, rule in schema.items():
        if "default" in rule:
            values.setdefault(name, rule["default"])
    return values


def moment(name: str, text: str | None) -> datetime | None:
    """Return the time in a query parameter that is declared as `SINCE`, in UTC; None where it was not given.

    Raises
    ------
    errors.BadRequest
        For what is no RFC 3339 time, or lies before the year 1 in UTC.
    """
    if text is None:
        return None
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        # OverflowError: year 1 with an offset that leads before it.
        pass
    problem = Violation(f"/query/{name}", "schema.format", "is no RFC 3339 time with its offset")
    raise BadRequest("The query does not hold.", code="request.query", errors=[problem])


def _typed(text: str, kind: str) -> Any:
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _broken(pointer: str, value: Any, rule: Mapping[str, Any]) -> list[Violation]:
    """Return the rules that one value breaks."""
    # Not isinstance: true is no integer.
    of_its_type = type(value) is _TYPES[rule["type"]]
    if not of_its_type:
        return [_violation(pointer, "type", rule)]
    held: dict[str, Callable[[Any], bool]] = {
        "minimum": lambda bound: value >= bound,
        "maximum": lambda bound: value <= bound,
        "minLength": lambda bound: len(value) >= bound,
        "maxLength": lambda bound: len(value) <= bound,
        "enum": lambda allowed: value in allowed,
        "pattern": lambda pattern: _compiled(pattern).search(value) is not None,
    }
    return [
        _violation(pointer, keyword, rule)
        for keyword, holds in held.items()
        if keyword in rule and not holds(rule[keyword])
    ]


def _violation(pointer: str, keyword: str, rule: Mapping[str, Any]) -> Violation:
    # Only here: a request that holds need not wait for what checks schemas.
    from chalicelib.core.json_schema.schemas import phrase

    return Violation(pointer, f"schema.{keyword}", phrase(keyword, rule[keyword]))


def _escape(name: str) -> str:
    return name[:64].replace("~", "~0").replace("/", "~1")
