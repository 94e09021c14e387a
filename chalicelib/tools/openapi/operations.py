"""The operations of a document and what belongs to each, its path's share included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.references import resolve, resolve_path_item
from chalicelib.tools.openapi.structure import METHODS, entries, members

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

# OpenAPI 3.1, 4.8.12.1: these header parameters are ignored, because media types and security say it.
IGNORED_HEADERS = frozenset({"accept", "authorization", "content-type"})


class Entry(NamedTuple):
    """An operation in its document."""

    pointer: str
    path: str
    method: str
    """Lower case, as the document has it."""
    item_pointer: str
    item: dict[str, Any]
    operation: dict[str, Any]


def operations(document: dict[str, Any]) -> Iterator[Entry]:
    """Yield every operation of `paths`, in the document's order; a path item that refers to nothing has none."""
    for path, item in members(document.get("paths")).items():
        if path.startswith("x-"):
            continue
        try:
            pointer, item = resolve_path_item(document, f"/paths/{escape(path)}", item)
        except LookupError:
            continue
        for method, operation in members(item).items():
            if method in METHODS and isinstance(operation, dict):
                yield Entry(f"{pointer}/{method}", path, method, pointer, item, operation)


def parameters_of(document: dict[str, Any], entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    """Return the parameters of an operation with their pointers: those of its path that it does not replace by name and
    location, then its own."""
    merged: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for pointer, parameter in (
        *resolved_parameters(document, f"{entry.item_pointer}/parameters", entry.item.get("parameters")),
        *resolved_parameters(document, f"{entry.pointer}/parameters", entry.operation.get("parameters")),
    ):
        merged[key_of(parameter)] = pointer, parameter
    return list(merged.values())


def resolved_parameters(
    document: dict[str, Any], pointer: str, parameters: Any
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the parameters of a list, references followed; those that refer to nothing are left out."""
    for index, parameter in enumerate(entries(parameters)):
        try:
            place, resolved = resolve(document, f"{pointer}/{index}", parameter)
        except LookupError:
            continue
        if isinstance(resolved, dict):
            yield place, resolved


def key_of(parameter: dict[str, Any]) -> tuple[str, str]:
    """Return what makes a parameter the same as another (OpenAPI 3.1, 4.8.12): name and location; of headers in lower
    case (RFC 9110, 5.1)."""
    name, location = str(parameter.get("name")), str(parameter.get("in"))
    return (name.lower() if location == "header" else name), location


def servers_of(document: dict[str, Any], entry: Entry) -> list[Any]:
    """Return the servers that hold for an operation: its own, else its path's, else the document's."""
    for owner in (entry.operation, entry.item, document):
        servers = entries(owner.get("servers"))
        if servers:
            return servers
    return []
