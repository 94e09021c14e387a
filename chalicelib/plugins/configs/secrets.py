"""Which values of a config are secret, and their forms: sealed at rest, in the clear for the runtime, `***` for people.

A place is secret where a subschema that applies to it says `writeOnly: true` or `format: password`. Followed are
properties and items of every kind, also through allOf, anyOf, oneOf, if/then/else, dependentSchemas and `$ref`: what
any alternative calls secret is secret. Not followed are `not` and `contentSchema`, which describe no value that is
there. A secret may be any JSON value; it is sealed as a whole.

At rest a config is `{"values": …, "secrets": {pointer: {"type", "sealed"}}}`: the secret places hold null and the
pointers say where they are, so that nothing a publisher writes can be taken for a ciphertext, and a secret stays one
when a later version's schema no longer says so.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from chalicelib.core.errors import Violation
from chalicelib.core.json_schema.patterns import compile_pattern
from chalicelib.core.keys.secret_box import SecretBox
from chalicelib.core.strict_json import escape

MASK = "***"
_IN_PLACE_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("if", "then", "else")
Box = Callable[[], SecretBox]
Place = tuple[str, str]


def secret_places(schema: Any, values: dict[str, Any]) -> list[str]:
    """Return the JSON pointers of the secret values in a config, none inside another.

    Parameters
    ----------
    schema
        A configSchema that `core.schemas.check_schema` found good.
    """
    return list(_walk(schema, [schema], values, ""))


def _walk(root: Any, schemas: Iterable[Any], value: Any, pointer: str) -> Iterator[str]:
    applied = _applied(root, schemas)
    marked = any(schema.get("writeOnly") is True or schema.get("format") == "password" for schema in applied)
    if marked and pointer:
        yield pointer
        return
    if isinstance(value, dict):
        for name, item in value.items():
            place = f"{pointer}/{escape(name)}"
            if marked:
                # The whole config is secret: scopes are still merged by its top-level keys.
                yield place
            else:
                yield from _walk(root, _of_member(applied, name), item, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(root, _of_item(applied, index), item, f"{pointer}/{index}")


def _applied(root: Any, schemas: Iterable[Any]) -> list[dict[str, Any]]:
    """Every subschema that applies to the same value, each once: alternatives would multiply with the depth."""
    found: dict[int, dict[str, Any]] = {}
    pending = list(schemas)
    while pending:
        schema = pending.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue
        found[id(schema)] = schema
        for keyword in _IN_PLACE_LISTS:
            pending.extend(schema.get(keyword, ()))
        pending.extend(schema[keyword] for keyword in _IN_PLACE if keyword in schema)
        pending.extend(schema.get("dependentSchemas", {}).values())
        if "$ref" in schema:
            pending.append(_at(root, unquote(schema["$ref"][1:])))
    return list(found.values())


def _of_member(schemas: list[dict[str, Any]], name: str) -> Iterator[Any]:
    for schema in schemas:
        named = schema.get("properties", {})
        matching = [
            inner
            for text, inner in schema.get("patternProperties", {}).items()
            if compile_pattern(text).search(name)
        ]
        if name in named:
            yield named[name]
        yield from matching
        if name not in named and not matching:
            yield schema.get("additionalProperties")
            yield schema.get("unevaluatedProperties")


def _of_item(schemas: list[dict[str, Any]], index: int) -> Iterator[Any]:
    for schema in schemas:
        first = schema.get("prefixItems", ())
        yield first[index] if index < len(first) else schema.get("items")
        yield schema.get("contains")
        yield schema.get("unevaluatedItems")


def sealed(
    schema: Any, values: dict[str, Any], place: Place, box: Box, before: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[Violation]]:
    """Return a config in the form that is stored, and a violation for each `***` with nothing to keep.

    Parameters
    ----------
    values
        As the client gave them.
    place
        (plugin, config): with the field, what a ciphertext is bound to.
    box
        Of the config's app; called only where there is something to encrypt.
    before
        The stored config whose secrets `***` keeps.
    """
    kept_secrets = before["secrets"] if before else {}
    marked = secret_places(schema, values)
    # A place that was secret under an earlier schema is still shown as `***`, so it comes back as that.
    marked += [pointer for pointer in kept_secrets if _asks_to_keep(values, pointer, marked)]
    secrets: dict[str, Any] = {}
    problems: list[Violation] = []
    shown = copy.deepcopy(values)
    for pointer in marked:
        value = _at(values, pointer)
        lost = [
            inner for inner in kept_secrets if inner.startswith(f"{pointer}/") and _is_mask(values, inner)
        ]
        if value == MASK and pointer in kept_secrets:
            secrets[pointer] = kept_secrets[pointer]
        elif value == MASK or lost:
            # `lost`: a part that was a secret of its own, of what a later schema calls secret as a whole.
            message = f"{MASK} keeps a stored secret, and none is stored here"
            problems += [
                Violation(f"/configItems{field}", "config.nothing_to_keep", message)
                for field in lost or [pointer]
            ]
        else:
            text = json.dumps(value, ensure_ascii=False)
            secrets[pointer] = {"type": _type(value), "sealed": box().encrypt(text, (*place, pointer))}
        _put(shown, pointer, None)
    return {"values": shown, "secrets": secrets}, problems


def _asks_to_keep(values: dict[str, Any], pointer: str, marked: list[str]) -> bool:
    if any(pointer == place or pointer.startswith(f"{place}/") for place in marked):
        return False
    return _is_mask(values, pointer)


def _is_mask(values: dict[str, Any], pointer: str) -> bool:
    return _present(values, pointer) and bool(_at(values, pointer) == MASK)


def revealed(items: dict[str, Any], place: Place, box: Box) -> dict[str, Any]:
    """Return a stored config with its secrets in the clear; for the runtime and for validation, never kept."""
    values: dict[str, Any] = copy.deepcopy(items["values"])
    for pointer, secret in items["secrets"].items():
        _put(values, pointer, json.loads(box().decrypt(secret["sealed"], (*place, pointer))))
    return values


def masked(items: dict[str, Any], schema: Any) -> dict[str, Any]:
    """Return a stored config as people may see it: also what only the present schema calls secret is hidden."""
    values: dict[str, Any] = copy.deepcopy(items["values"])
    for pointer in items["secrets"]:
        _put(values, pointer, MASK)
    for pointer in secret_places(schema, values):
        _put(values, pointer, MASK)
    return values


_PLACEHOLDERS = {"string": MASK, "number": 0, "boolean": False, "null": None}


def opaque(items: dict[str, Any]) -> dict[str, Any]:
    """Return a stored config with a value of the right JSON type at each secret place, without opening any."""
    values: dict[str, Any] = copy.deepcopy(items["values"])
    for pointer, secret in items["secrets"].items():
        kind = secret["type"]
        _put(values, pointer, [] if kind == "array" else {} if kind == "object" else _PLACEHOLDERS[kind])
    return values


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


# -- pointers (RFC 6901) ----------------------------------------------------------------------------------------


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _step(value: Any, token: str) -> Any:
    return value[int(token)] if isinstance(value, list) else value[token]


def _at(value: Any, pointer: str) -> Any:
    for token in _tokens(pointer):
        value = _step(value, token)
    return value


def _present(value: Any, pointer: str) -> bool:
    for token in _tokens(pointer):
        if isinstance(value, list) and token.isdigit() and int(token) < len(value):
            value = value[int(token)]
        elif isinstance(value, dict) and token in value:
            value = value[token]
        else:
            return False
    return True


def _put(value: Any, pointer: str, new: Any) -> None:
    *parents, last = _tokens(pointer)
    for token in parents:
        value = _step(value, token)
    if isinstance(value, list):
        value[int(last)] = new
    else:
        value[last] = new
