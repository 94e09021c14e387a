from __future__ import annotations

import json
import time

import anyio
import pytest

from chalicelib.core.errors import UpstreamTimeout
from chalicelib.tools.mcp_client.connection import Connection, converse
from chalicelib.tools.mcp_client.dialect import Dialect
from chalicelib.tools.mcp_client.http_transport import Endpoint
from tests.fakes.streaming_http import JSON, URL, FakeAnswer, FakeHttp
from tests.mcp_by_hand import INITIALIZED

HANDSHAKE = Dialect("streamable_http", "2025-11-25")


def session(*further: FakeAnswer | None) -> FakeHttp:
    """A server that begins a session; None is an answer that never comes."""
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": INITIALIZED}).encode()
    headers = (*JSON, ("mcp-session-id", "s"))
    return FakeHttp(FakeAnswer(headers=headers, chunks=iter([message])), FakeAnswer(202), *further)


async def nothing(connection: Connection) -> str:
    await anyio.sleep(0.05)  # until the handshake is over
    return "done"


async def forever(connection: Connection) -> str:
    await anyio.sleep_forever()
    return "never"


def test_a_result_outlives_a_farewell_that_the_deadline_ends() -> None:
    http = session(None)
    assert anyio.run(converse, Endpoint(http, URL, {}, time.monotonic() + 0.5), HANDSHAKE, nothing) == "done"
    assert [asked["method"] for asked in http.asked] == ["POST", "POST", "DELETE"]
    assert http.calls[-1].closed.is_set()


def test_work_that_never_ends_is_ended() -> None:
    with pytest.raises(UpstreamTimeout):
        anyio.run(converse, Endpoint(session(None), URL, {}, time.monotonic() + 0.2), HANDSHAKE, forever)
