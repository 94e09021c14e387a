from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from chalicelib.core import guards
from chalicelib.core.errors import HotplugError, Invalid
from chalicelib.tools.mcp_client import client


class NoHttp:
    """Fails the test that reaches it."""

    def stream(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing may be sent")


@pytest.mark.parametrize(
    ("url", "headers", "code", "pointers"),
    [
        ("ftp://mcp.example.org/", {}, "http.invalid_url", ["/url"]),
        ("https://user:secret@mcp.example.org/", {}, "http.invalid_url", ["/url"]),
        ("https://mcp.example.org/#x", {}, "http.invalid_url", ["/url"]),
        (
            "https://mcp.example.org/",
            {"Mcp-Session-Id": "x", "X-Ok": "y", "ACCEPT": "*/*", "mcp-/~": "z"},
            "mcp.reserved_header",
            ["/headers/Mcp-Session-Id", "/headers/ACCEPT", "/headers/mcp-~1~0"],
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(
    url: str, headers: Mapping[str, str], code: str, pointers: list[str]
) -> None:
    with pytest.raises(Invalid) as caught:
        client.probe(NoHttp(), url, headers, timeout_s=1)
    assert caught.value.code == code
    assert [violation.pointer for violation in caught.value.errors] == pointers


def test_at_most_a_hundred_headers_are_complained_about() -> None:
    with pytest.raises(HotplugError) as caught:
        client.probe(NoHttp(), "https://m.example/", {f"mcp-{n}": "" for n in range(200)}, timeout_s=1)
    assert len(caught.value.errors) == 100


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_is_positive(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        client.list_tools(NoHttp(), "https://mcp.example.org/", {}, timeout_s=timeout_s)


def test_no_server_is_spoken_to_while_locks_are_held() -> None:
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        client.call_tool(NoHttp(), "https://mcp.example.org/", {}, "t", {}, timeout_s=1)
