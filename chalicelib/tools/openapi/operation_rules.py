"""Rules on paths, operations, parameters, servers and security."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.operations import (
    PLACEHOLDER,
    Entry,
    key_of,
    operations,
    parameters_of,
    resolved_parameters,
    servers_of,
)
from chalicelib.tools.openapi.servers import absolute_url, check_servers
from chalicelib.tools.openapi.structure import entries, members

MAX_OPERATIONS = 2_000
MAX_PARAMETERS = 1_000
"""In one list; the longest public one has 430."""
MAX_ALL_PARAMETERS = 200_000
"""Of all operations together, those of their paths included: many paths may refer to one long list."""
MAX_OPERATION_ID = 128
MAX_NAME = 256
MAX_PATH = 1_024

STYLES = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029]+")
_UNSAFE_IN_PATH = re.compile(r"[\x00-\x20\x7f\\#]")


def check_operations(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with the operations of a document, in time linear in it."""
    found = list(operations(document))
    if not found:
        yield Violation("/paths", "openapi.no_operation", "describes no operation")
    if len(found) > MAX_OPERATIONS:
        yield Violation("/paths", "openapi.too_large", f"describes more than {MAX_OPERATIONS} operations")
        return
    if sum(_count_parameters(entry) for entry in found) > MAX_ALL_PARAMETERS:
        yield Violation("/paths", "openapi.too_large", f"has more than {MAX_ALL_PARAMETERS} parameters")
        return
    for path in members(document.get("paths")):
        yield from _check_path(path)
    yield from _check_all_servers(document, found)
    yield from check_security("", document, document)
    seen = _Seen()
    for entry in found:
        yield from seen.check(entry)
        if entry.item_pointer not in seen.items:
            seen.items.add(entry.item_pointer)
            pointer = f"{entry.item_pointer}/parameters"
            yield from _check_list(document, pointer, entry.item.get("parameters"))
        yield from _check_list(document, f"{entry.pointer}/parameters", entry.operation.get("parameters"))
        yield from _check_placeholders(document, entry)
        yield from check_security(entry.pointer, entry.operation, document)


def _count_parameters(entry: Entry) -> int:
    return len(entries(entry.item.get("parameters"))) + len(entries(entry.operation.get("parameters")))


def _check_path(path: str) -> Iterator[Violation]:
    pointer = f"/paths/{escape(path)}"
    if len(path) > MAX_PATH:
        yield Violation(pointer, "openapi.path", f"is longer than {MAX_PATH} characters")
    elif not path.startswith("x-"):
        yield from (Violation(pointer, "openapi.path", fault) for fault in _path_faults(path))


def _path_faults(path: str) -> Iterator[str]:
    if not path.startswith("/"):
        yield "does not begin with a slash"
    if _UNSAFE_IN_PATH.search(path):
        yield "has a blank, a control character, a backslash or a fragment"
    route, _, query = path.partition("?")
    if "{" in query or "}" in query:
        yield "has a placeholder in its query"
    names = PLACEHOLDER.findall(route)
    if re.search(r"[{}]", PLACEHOLDER.sub("", route)):
        yield "has a brace without its pair"
    if "" in names:
        yield "has a placeholder without a name"
    if len(set(names)) < len(names):
        yield "has a placeholder twice"
    # A segment of dots would be resolved away, and with it what stands before it.
    if any(segment in (".", "..") for segment in route.split("/")):
        yield "has a segment of dots"


def _check_all_servers(document: dict[str, Any], found: list[Entry]) -> Iterator[Violation]:
    yield from check_servers("/servers", document.get("servers"))
    items: set[str] = set()
    for entry in found:
        if entry.item_pointer not in items:
            items.add(entry.item_pointer)
            yield from check_servers(f"{entry.item_pointer}/servers", entry.item.get("servers"))
        yield from check_servers(f"{entry.pointer}/servers", entry.operation.get("servers"))
    if any(not servers_of(document, entry) for entry in found) or not (found or document.get("servers")):
        yield Violation("/servers", "openapi.server_missing", "names no server")


class _Seen:
    """What must be unique among the operations of a document."""

    def __init__(self) -> None:
        self.items: set[str] = set()
        self._ids: dict[str, str] = {}
        self._routes: dict[tuple[str, str], str] = {}

    def check(self, entry: Entry) -> Iterator[Violation]:
        # OpenAPI 3.1, 4.8.8.2: templates that differ in the names of their placeholders only are the same path. Only
        # where they share a method is it unclear which operation is meant; public documents use that.
        route = PLACEHOLDER.sub("{}", entry.path), entry.method
        alike = self._routes.setdefault(route, entry.path)
        if alike != entry.path:
            message = f"is the same operation as that of {alike}, with other names"
            yield Violation(entry.pointer, "openapi.path_duplicate", message[:300])
        pointer = f"{entry.pointer}/operationId"
        name = entry.operation.get("operationId")
        if name is None or name == "":
            yield Violation(entry.pointer, "openapi.operation_id_missing", "has no operationId")
        elif isinstance(name, str):
            if len(name) > MAX_OPERATION_ID or not _PRINTABLE.fullmatch(name):
                message = f"is not 1 to {MAX_OPERATION_ID} characters of text"
                yield Violation(pointer, "openapi.operation_id", message)
            if name in self._ids:
                message = f"is that of {self._ids[name]} too"
                yield Violation(pointer, "openapi.operation_id_duplicate", message[:300])
            self._ids.setdefault(name, entry.pointer)


def _check_list(document: dict[str, Any], pointer: str, parameters: Any) -> Iterator[Violation]:
    if len(entries(parameters)) > MAX_PARAMETERS:
        yield Violation(pointer, "openapi.too_large", f"has more than {MAX_PARAMETERS} parameters")
        return
    seen: set[tuple[str, str]] = set()
    for index, (place, parameter) in enumerate(resolved_parameters(document, pointer, parameters)):
        key = key_of(parameter)
        if key in seen:
            message = f"is the second parameter {key[0][:100]!r} in {key[1][:20]}"
            yield Violation(f"{pointer}/{index}", "openapi.parameter_duplicate", message)
        seen.add(key)
        if place.startswith(pointer):
            yield from _check_parameter(place, parameter)
    # Those that are referred to are checked at their own place, once.


def check_components(document: dict[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with the parameters and the security schemes under `components`."""
    components = members(document.get("components"))
    for name, parameter in members(components.get("parameters")).items():
        if isinstance(parameter, dict) and "$ref" not in parameter:
            yield from _check_parameter(f"/components/parameters/{escape(name)}", parameter)
    for name, scheme in members(components.get("securitySchemes")).items():
        flow = members(members(members(scheme).get("flows")).get("clientCredentials"))
        url = flow.get("tokenUrl")
        # It may be relative to the server, whichever that is.
        if isinstance(url, str) and absolute_url(url, "https://server.invalid") is None:
            pointer = f"/components/securitySchemes/{escape(name)}/flows/clientCredentials/tokenUrl"
            yield Violation(
                pointer, "openapi.token_url", "is neither an http or https URL nor relative to one"
            )


def _check_parameter(pointer: str, parameter: dict[str, Any]) -> Iterator[Violation]:
    name, location = parameter.get("name"), parameter.get("in")
    if not isinstance(name, str) or location not in STYLES:
        return  # the metaschema has told so
    if not name or len(name) > MAX_NAME or not _PRINTABLE.fullmatch(name):
        yield Violation(
            f"{pointer}/name", "openapi.parameter_name", f"is not 1 to {MAX_NAME} characters of text"
        )
    elif location in ("header", "cookie") and not _TOKEN.fullmatch(name):
        # A line feed in a name would be the next header.
        yield Violation(f"{pointer}/name", "openapi.parameter_name", f"is no name of a {location}")
    style = parameter.get("style")
    if isinstance(style, str) and style not in STYLES[location]:
        message = f"is not a style of {location} parameters: {', '.join(STYLES[location])}"
        yield Violation(f"{pointer}/style", "openapi.parameter_style", message)
    if location == "path" and parameter.get("required") is not True:
        yield Violation(pointer, "openapi.parameter_required", "is in the path and not required")


def _check_placeholders(document: dict[str, Any], entry: Entry) -> Iterator[Violation]:
    names = set(PLACEHOLDER.findall(entry.path.partition("?")[0]))
    declared = {
        str(parameter.get("name")): pointer
        for pointer, parameter in parameters_of(document, entry)
        if parameter.get("in") == "path"
    }
    for name in sorted(names - declared.keys() - {""}):
        message = f"has no parameter for the placeholder {name[:100]!r}"
        yield Violation(entry.pointer, "openapi.path_parameter_missing", message)
    for name, pointer in declared.items():
        if name not in names:
            message = f"is no placeholder of {entry.path}"
            yield Violation(pointer, "openapi.path_parameter_unknown", message[:300])


def check_security(pointer: str, owner: dict[str, Any], document: dict[str, Any]) -> Iterator[Violation]:
    """Yield the security schemes that `owner` (an operation, or the document) asks for and nobody describes."""
    schemes = members(members(document.get("components")).get("securitySchemes"))
    for index, requirement in enumerate(entries(owner.get("security"))):
        for name in members(requirement):
            if name not in schemes:
                place = f"{pointer}/security/{index}/{escape(name)}"
                yield Violation(place, "openapi.security_unknown", "is not among the securitySchemes")
