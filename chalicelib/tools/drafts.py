"""A document before it is stored: parsed, checked and summed up outside of any unit of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.core.errors import Invalid, Violation
from chalicelib.tools.openapi.document import parse_document
from chalicelib.tools.openapi.index import Document
from chalicelib.tools.openapi.validation import check_document

MOST_REPORTED = 100


@dataclass(frozen=True)
class DocumentDraft:
    """What a version stores of its document.

    Parameters
    ----------
    text
        The document as JSON.
    operations, security_schemes
        A summary of each, in the document's order.
    checksum
        SHA-256 hex of `text`.
    size
        Bytes of `text`.
    """

    text: str
    operations: list[dict[str, Any]]
    security_schemes: list[dict[str, Any]]
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
        `tool.invalid_document` with every violation.
    """
    try:
        document = parse_document(source)
        if found := check_document(document):
            raise Invalid("The OpenAPI document does not hold.", code="tool.invalid_document", errors=found)
    except Invalid as error:
        placed = [replace(one, pointer=pointer + one.pointer) for one in error.errors]
        raise Invalid(error.detail, code=error.code, errors=placed) from error
    return Document(document)


def draft(source: Any, pointer: str = "/openapi") -> DocumentDraft:
    """Return what is to be stored of a caller's document; see `read_checked`."""
    document = read_checked(source, pointer)
    text = json.dumps(document.source, ensure_ascii=False, separators=(",", ":"))
    encoded = text.encode()
    return DocumentDraft(
        text=text,
        operations=[one.as_dict() for one in document.operations],
        security_schemes=[{"name": one.name, "kind": one.kind} for one in document.security_schemes],
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
