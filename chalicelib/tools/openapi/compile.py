"""From a checked document to its operations: all of them listed, each compiled when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chalicelib.core import errors
from chalicelib.tools.openapi.contents import (
    compile_content,
    compile_parameter,
    fixed_parameters,
    media_types,
)
from chalicelib.tools.openapi.dialect import Converted, Converter, weigh
from chalicelib.tools.openapi.operation import Content, Operation, Parameter, RequestBody, ResponseSpec
from chalicelib.tools.openapi.operations import (
    IGNORED_HEADERS,
    Entry,
    operations,
    parameters_of,
    servers_of,
)
from chalicelib.tools.openapi.references import resolve
from chalicelib.tools.openapi.security import compile_security
from chalicelib.tools.openapi.servers import server_url
from chalicelib.tools.openapi.structure import entries, members


@dataclass(frozen=True)
class OperationSummary:
    """What a list of operations tells of one."""

    operation_id: str
    method: str
    """Upper case."""
    path: str
    summary: str
    deprecated: bool
    tags: tuple[str, ...]


class Document:
    """A checked document with an index of its operations and the schemas converted so far.

    It is only read, but for what it remembers, so requests and threads share it; nothing in `content` may be changed.

    Parameters
    ----------
    content
        As `parse_document` returned it, and `check_document` found it good.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.converter = Converter(content)
        self._entries = {str(entry.operation.get("operationId")): entry for entry in operations(content)}
        self._weight = weigh(content)

    @property
    def weight(self) -> int:
        """Bytes of memory, about; it grows with the schemas that compiled operations refer to."""
        return self._weight + self.converter.weight

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, operation_id: str) -> Entry:
        """The operation in the document.

        Raises
        ------
        errors.NotFound
            `tool.operation_not_found`.
        """
        if operation_id not in self._entries:
            raise errors.NotFound("The tool has no operation of this id.", code="tool.operation_not_found")
        return self._entries[operation_id]


def compile_operations(document: Document) -> tuple[OperationSummary, ...]:
    """List all operations in the document's order; no schema is looked at."""
    return tuple(
        OperationSummary(
            operation_id=str(entry.operation.get("operationId")),
            method=entry.method.upper(),
            path=entry.path,
            summary=_text(entry.operation, "summary") or _text(entry.item, "summary"),
            deprecated=entry.operation.get("deprecated") is True,
            tags=_tags(entry.operation),
        )
        for entry in document
    )


def compile_operation(document: Document, operation_id: str) -> Operation:
    """Compile one operation. Its definitions are shared with the other operations of the document.

    Raises
    ------
    errors.NotFound
        `tool.operation_not_found`.
    """
    entry = document.entry(operation_id)
    compilation = _Compilation(document, entry)
    route, _, query = entry.path.partition("?")
    fixed = fixed_parameters(query)
    own = [one for one in compilation.parameters() if not any(_is_same(one, other) for other in fixed)]
    body, responses = compilation.body(), compilation.responses()
    servers = servers_of(document.content, entry)
    server = server_url(servers[0]) if servers else ""
    definitions, warnings = document.converter.close(compilation.converted)
    return Operation(
        operation_id=operation_id,
        method=entry.method.upper(),
        path=route,
        server_url=server,
        parameters=(*own, *fixed),
        body=body,
        responses=responses,
        security=compile_security(document.content, entry.operation, server),
        definitions=definitions,
        summary=_text(entry.operation, "summary") or _text(entry.item, "summary"),
        description=_text(entry.operation, "description") or _text(entry.item, "description"),
        deprecated=entry.operation.get("deprecated") is True,
        tags=_tags(entry.operation),
        warnings=warnings,
    )


class _Compilation:
    """The parts of one operation, and every schema in them."""

    def __init__(self, document: Document, entry: Entry) -> None:
        self._document = document
        self._entry = entry
        self.converted: list[Converted] = []

    def schema(self, schema: Any, pointer: str) -> Any:
        converted = self._document.converter.convert(schema, pointer)
        self.converted.append(converted)
        return converted.schema

    def warn(self, pointer: str, message: str) -> None:
        self.converted.append(Converted(True, warnings=(f"{pointer}: {message}"[-300:],)))

    def parameters(self) -> list[Parameter]:
        return [
            compile_parameter(parameter, pointer, self.schema)
            for pointer, parameter in parameters_of(self._document.content, self._entry)
            if not _is_ignored(parameter)
        ]

    def body(self) -> RequestBody | None:
        pointer = f"{self._entry.pointer}/requestBody"
        pointer, body = self._resolve(pointer, self._entry.operation.get("requestBody"))
        contents = self._contents(f"{pointer}/content", body.get("content"))
        if not contents:
            return None
        return RequestBody(body.get("required") is True, contents, _text(body, "description"))

    def responses(self) -> tuple[ResponseSpec, ...]:
        found = []
        for status, response in members(self._entry.operation.get("responses")).items():
            if not status.startswith("x-"):
                pointer, value = self._resolve(f"{self._entry.pointer}/responses/{status}", response)
                contents = self._contents(f"{pointer}/content", value.get("content"))
                status = "default" if status == "default" else status.upper()
                found.append(ResponseSpec(status, contents, _text(value, "description")))
        return tuple(found)

    def _resolve(self, pointer: str, value: Any) -> tuple[str, dict[str, Any]]:
        try:
            place, resolved = resolve(self._document.content, pointer, value)
        except LookupError:
            return pointer, {}
        return place, members(resolved)

    def _contents(self, pointer: str, content: Any) -> tuple[Content, ...]:
        return tuple(
            compile_content(self._document.content, name, value, place, self.schema)
            for name, value, place in media_types(pointer, content, self.warn)
        )


def _is_ignored(parameter: dict[str, Any]) -> bool:
    return parameter.get("in") == "header" and str(parameter.get("name")).lower() in IGNORED_HEADERS


def _is_same(one: Parameter, other: Parameter) -> bool:
    return (one.name, one.location) == (other.name, other.location)


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    return text if isinstance(text, str) else ""


def _tags(operation: dict[str, Any]) -> tuple[str, ...]:
    return tuple(tag for tag in entries(operation.get("tags")) if isinstance(tag, str))
