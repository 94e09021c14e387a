"""Large public documents register, and every operation of them compiles, within bounded memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.core.json_schema.check import DIALECT
from chalicelib.core.json_schema.schemas import compile_schema
from chalicelib.tools.openapi.compile import Document, compile_operation, compile_operations
from chalicelib.tools.openapi.document import parse_document
from chalicelib.tools.openapi.limits import MAX_BYTES
from chalicelib.tools.openapi.operation import Operation, Schema
from chalicelib.tools.openapi.validation import check_document
from tests.real_documents.catalog import REAL_DOCUMENTS, RealDocument

COMPILED_OVER_PARSED = 3
"""All operations of a document together may take so many times what the document takes: definitions are shared."""


@pytest.mark.parametrize("real", REAL_DOCUMENTS, ids=lambda real: real.name)
def test_every_operation_of_a_real_document_compiles(
    real: RealDocument, record_property: Callable[[str, object], None]
) -> None:
    text = real.text()
    assert len(text.encode()) <= MAX_BYTES
    times = [time.perf_counter()]
    content = parse_document(text)
    if real.change is not None:
        assert check_document(content) != [], "the change is not needed"
        real.change(content)
    times.append(time.perf_counter())
    assert check_document(content) == []
    times.append(time.perf_counter())
    document = Document(content)
    summaries = compile_operations(document)
    assert len(summaries) == real.operations
    operations = [compile_operation(document, summary.operation_id) for summary in summaries]
    times.append(time.perf_counter())

    assert all(operation.server_url.startswith("https://") for operation in operations)
    is_valid = metaschema()
    definitions = {id(one): one for operation in operations for one in operation.definitions.values()}
    assert all(is_valid(definition) for definition in definitions.values())
    for operation in operations:
        for schema in schemas_of(operation):
            assert is_valid(schema), f"{operation.operation_id} has a schema that is not of Draft 2020-12"
            compile_schema(operation.closed(schema)).violations({})

    phases = dict(zip(("parse", "check", "compile"), _differences(times), strict=True))
    report = {
        "operations": len(operations),
        "bytes": len(text),
        "weight": document.weight,
        "warnings": sorted({warning for operation in operations for warning in operation.warnings})[:20],
        **{name: round(seconds, 3) for name, seconds in phases.items()},
    }
    for name, value in report.items():
        record_property(name, value)
    print(real.name, json.dumps(report))


@pytest.mark.parametrize("real", REAL_DOCUMENTS[:3], ids=lambda real: real.name)
def test_memory_is_bounded_by_the_document(real: RealDocument) -> None:
    text = real.text()
    tracemalloc.start()
    try:
        content = parse_document(text)
        parsed = tracemalloc.get_traced_memory()[0]
        if real.change is not None:
            real.change(content)
        check_document(content)
        document = Document(content)
        operations = [compile_operation(document, one.operation_id) for one in compile_operations(document)]
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert operations
    assert kept < COMPILED_OVER_PARSED * parsed
    assert peak < 2 * COMPILED_OVER_PARSED * parsed + 20_000_000
    # The hot cache decides by this estimate.
    assert document.weight > parsed / 3


def schemas_of(operation: Operation) -> Iterator[Schema]:
    yield from (parameter.schema for parameter in operation.parameters)
    contents = [*(operation.body.contents if operation.body else ())]
    contents += [content for response in operation.responses for content in response.contents]
    for content in contents:
        yield content.schema
        yield from (header.schema for one in content.encoding.values() for header in one.headers)


def metaschema() -> Any:
    """Whether a schema is one of Draft 2020-12: `check_schema` asks the same and takes minutes for all of them."""
    import jsonschema_rs

    return jsonschema_rs.validator_for({"$ref": DIALECT}, offline=True).is_valid


def _differences(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


@pytest.mark.parametrize("real", REAL_DOCUMENTS, ids=lambda real: real.name)
def test_a_real_document_registers_lists_its_operations_and_is_parsed_once(
    real: RealDocument, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the API; calls go to a server of this machine, whatever the document says."""
    from chalicelib.tools import loading
    from tests.http import Client, deployed
    from tests.internet import Server

    server = Server(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
    with deployed(sqlite_url, HOTPLUG_PRIVATE_ENDPOINTS=f"127.0.0.1:{server.port}") as deployment:
        client = Client(deployment.client.app, deployment.credential("acme", "publisher"))
        text: Any = real.text()
        if real.change is not None:
            text = parse_document(text)
            real.change(text)
        made = client.post("/api/v1/tools", {"name": real.name, "openapi": text})
        assert made.status == 201, made.body[:2000]
        assert len(made.json["operations"]) == real.operations
        tool = made.json["toolId"]
        here = parse_document(text)
        here["servers"] = [{"url": f"http://127.0.0.1:{server.port}"}]
        for item in here["paths"].values():
            item.pop("servers", None)
        here.pop("security", None)
        moved = client.patch(
            f"/api/v1/tools/{tool}/versions/V1.0", {"openapi": here}, headers={"If-Match": "*"}
        )
        assert moved.status == 200, moved.body[:2000]
        operation_id = moved.json["operations"][0]["operationId"]
        parsed: list[int] = []
        monkeypatch.setattr(loading, "Document", lambda content: parsed.append(1) or Document(content))
        for _ in range(2):
            answer = client.post(f"/api/v1/tools/{tool}/run", {"operationId": operation_id})
            # Whatever it needs: by then its document was parsed, or kept.
            assert answer.json["code"] in (
                "tool.upstream_error",
                "tool.invalid_arguments",
                "tool.credentials_missing",
            ), answer.body
        assert parsed == [1]
    server.close()
