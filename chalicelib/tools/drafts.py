"""A document before it is stored: parsed, checked and summed up outside of any unit of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.outbound.addresses import origin_of
from chalicelib.tools.openapi.compile import Document, OperationSummary, compile_operations
from chalicelib.tools.openapi.document import parse_document
from chalicelib.tools.openapi.operation import SecurityScheme
from chalicelib.tools.openapi.operations import servers_of
from chalicelib.tools.openapi.security import described_schemes
from chalicelib.tools.openapi.servers import server_url
from chalicelib.tools.openapi.validation import check_document

MOST_REPORTED = 100
# What the API offers for reading of a tool: a hundred hosts are a directory, not an API.
MOST_ORIGINS = 100


@dataclass(frozen=True)
class DocumentDraft:
    """What a version stores of its document.

    Parameters
    ----------
    text
        The document as JSON.
    operations, security_schemes
        A summary of each, in the document's order.
    origins
        Where its operations and its token endpoints are.
    checksum
        SHA-256 hex of `text`.
    size
        Bytes of `text`.
    """

    text: str
    operations: list[dict[str, Any]]
    security_schemes: list[dict[str, Any]]
    origins: list[str]
    checksum: str
    size: int


def read_checked(source: Any, pointer: str = "/openapi") -> Document:
    """Return a caller's document, ready to compile operations from.

    Parameters
    ----------
    source
        A JSON object, or text in JSON or YAML.
    pointer
        Where it stands in the request; violations begin with it.

    Raises
    ------
    errors.Invalid
        `tool.invalid_document` with every violation, at most a hundred.
    """
    try:
        content = parse_document(source)
        found = check_document(content)
    except Invalid as error:
        found = list(error.errors)
    if found:
        placed = [replace(one, pointer=pointer + one.pointer) for one in found]
        raise Invalid("The OpenAPI document does not hold.", code="tool.invalid_document", errors=placed)
    return Document(content)


def draft(source: Any, pointer: str = "/openapi") -> DocumentDraft:
    """Return what is to be stored of a caller's document; see `read_checked`."""
    document = read_checked(source, pointer)
    text = json.dumps(document.content, ensure_ascii=False, separators=(",", ":"))
    encoded = text.encode()
    schemes = schemes_of(document)
    origins = _origins(document)
    if len(origins) > MOST_ORIGINS:
        message = f"leads to more than {MOST_ORIGINS} hosts"
        raise Invalid(
            "The OpenAPI document does not hold.",
            code="tool.invalid_document",
            errors=[Violation(f"{pointer}/servers", "openapi.too_many_hosts", message)],
        )
    return DocumentDraft(
        text=text,
        operations=[_summary(one) for one in compile_operations(document)],
        security_schemes=[{"name": one.name, "kind": one.kind} for one in schemes],
        origins=origins,
        checksum=hashlib.sha256(encoded).hexdigest(),
        size=len(encoded),
    )


def draft_all(sources: Sequence[Any], places: Sequence[str]) -> list[DocumentDraft]:
    """Return what is to be stored of several documents.

    Raises
    ------
    errors.Invalid
        `tool.invalid_document` with the violations of all of them, at most a hundred.
    """
    drafts: list[DocumentDraft] = []
    found: list[Violation] = []
    for source, place in zip(sources, places, strict=True):
        try:
            drafts.append(draft(source, place))
        except Invalid as error:
            found += error.errors
            if len(found) >= MOST_REPORTED:
                break
    if found:
        raise Invalid(
            "An OpenAPI document does not hold.", code="tool.invalid_document", errors=found[:MOST_REPORTED]
        )
    return drafts


def schemes_of(document: Document) -> tuple[SecurityScheme, ...]:
    """Return the security schemes of a document, as its first operation's server sees them."""
    servers = _servers(document)
    return described_schemes(document.content, servers[0] if servers else "")


def _servers(document: Document) -> list[str]:
    found = dict.fromkeys(server_url(servers_of(document.content, entry)[0]) for entry in document)
    return list(found)


def _origins(document: Document) -> list[str]:
    """Where a credential of this document may go; a token URL may be relative to the server of an operation."""
    urls: set[str] = set()
    for server in _servers(document):
        urls.add(server)
        urls.update(one.token_url for one in described_schemes(document.content, server) if one.token_url)
        if len(urls) > MOST_ORIGINS:
            break
    return sorted({origin_of(url) for url in urls})


def _summary(one: OperationSummary) -> dict[str, Any]:
    return {
        "operationId": one.operation_id,
        "method": one.method,
        "path": one.path,
        "summary": one.summary,
        "deprecated": one.deprecated,
        "tags": list(one.tags),
    }
