"""Whether an OpenAPI document may be registered: all that is wrong with it, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from chalicelib.core.errors import Violation
from chalicelib.tools.openapi.limits import MAX_REPORTED
from chalicelib.tools.openapi.metaschema import check_structure
from chalicelib.tools.openapi.operation_rules import check_components, check_operations
from chalicelib.tools.openapi.reference_rules import check_references

_SUPPORTED = re.compile(r"3\.[01]\.[0-9]{1,3}(-[0-9A-Za-z.-]{1,20})?")


def check_document(document: dict[str, Any]) -> list[Violation]:
    """Everything that keeps a document from being registered.

    It must be OpenAPI 3.0 or 3.1 by the official schema of its version (rule `openapi.structure`), with what Hotplug
    needs to call it: absolute servers, operationIds, references within the document, placeholders that are parameters.
    3.2 is refused: its new methods, locations and media types would be listed and could not be called.

    Parameters
    ----------
    document
        As `parse_document` returns it.

    Returns
    -------
    list
        At most 100, without repetitions; empty for a good document.
    """
    version = document.get("openapi")
    if not isinstance(version, str) or not _SUPPORTED.fullmatch(version):
        pointer = "/openapi" if "openapi" in document else ""
        return [Violation(pointer, "openapi.version", "is not an OpenAPI document of version 3.0 or 3.1")]
    found: Iterator[Violation] = chain(
        check_structure(document),
        check_operations(document),
        check_components(document),
        check_references(document),
    )
    return list(dict.fromkeys(islice(found, 4 * MAX_REPORTED)))[:MAX_REPORTED]
