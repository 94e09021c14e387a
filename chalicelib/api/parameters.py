"""Path and query parameters: what each may look like, decoded and checked before a handler sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from chalicelib.apps.models import ALIAS_PATTERN
from chalicelib.core.errors import BadRequest, NotFound, Violation
from chalicelib.core.ids import ULID_PATTERN
from chalicelib.core.paging import DEFAULT_LIMIT, MAX_LIMIT
from chalicelib.plugins.models import PLUGIN_ID_PATTERN

NUMBER_ID = "^[1-9][0-9]{0,18}$"
VERSION_PATTERN = "^[0-9A-Za-z.+-]{1,32}$"

# Sibling routes must use one name for a variable (API Gateway refuses others), so one table serves them all.
PATH: dict[str, str] = {
    "aliasId": ALIAS_PATTERN,
    "credentialId": NUMBER_ID,
    "pluginId": PLUGIN_ID_PATTERN,
    "installId": ULID_PATTERN,
    "configId": ULID_PATTERN,
    "executionId": ULID_PATTERN,
    "version": VERSION_PATTERN,
    "name": "^[A-Za-z][A-Za-z0-9_-]{0,63}$",
    "job": "^[a-z][a-z_]{1,31}$",
}
_COMPILED = {name: re.compile(pattern.rstrip("$") + r"\Z") for name, pattern in PATH.items()}

PAGE: dict[str, Any] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cursor": {"type": "string", "minLength": 1, "maxLength": 1024},
}


def path_parameters(raw: Mapping[str, str]) -> dict[str, str]:
    """Decode and match path parameters; API Gateway passes them as they stood in the path.

    Raises
    ------
    errors.NotFound
        For an id that cannot exist: `..`, `%2F` or NUL must never reach a storage key or a file name.
    """
    found = {}
    for name, text in raw.items():
        value = unquote(text, errors="strict") if _is_utf8(text) else ""
        if not _COMPILED[name].match(value):
            raise NotFound("There is no such resource.")
        found[name] = value
    return found


def _is_utf8(text: str) -> bool:
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def query_parameters(raw: Mapping[str, list[str]] | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return typed query parameters.

    Parameters
    ----------
    raw
        multiValueQueryStringParameters.
    schema
        Name → JSON Schema; `integer` and `boolean` are read from their text.

    Raises
    ------
    errors.BadRequest
        With every violation: unknown names, repeated ones, values out of range.
    """
    from chalicelib.core.schemas import violations

    problems: list[Violation] = []
    values: dict[str, Any] = {}
    for name, texts in (raw or {}).items():
        if name not in schema:
            problems.append(Violation(f"/query/{_escape(name)}", "query.unknown", "no such parameter"))
        elif len(texts) != 1:
            problems.append(Violation(f"/query/{name}", "query.repeated", "given more than once"))
        else:
            values[name] = _coerce(texts[0], schema[name].get("type"))
            problems += violations(dict(schema[name]), values[name], f"/query/{name}")
    if problems:
        raise BadRequest("The query does not hold.", code="request.query", errors=problems)
    for name, rule in schema.items():
        if "default" in rule:
            values.setdefault(name, rule["default"])
    return values


def _coerce(text: str, kind: str | None) -> Any:
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _escape(name: str) -> str:
    return name[:64].replace("~", "~0").replace("/", "~1")
