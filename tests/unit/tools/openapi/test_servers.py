from __future__ import annotations

import pytest

from chalicelib.tools.openapi.servers import absolute_url, server_url


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("https://a.example/", {}, "https://a.example"),
        ("https://a.example/v1//", {}, "https://a.example/v1"),
        ("http://a.example:8080", {}, "http://a.example:8080"),
        ("https://{h}.example/{b}", {"h": "x", "b": "v2"}, "https://x.example/v2"),
        ("{s}://a.example/{s}", {"s": "https"}, "https://a.example/https"),
        # A default is not looked into for further variables.
        ("https://{h}/", {"h": "{h}.example"}, "https://{h}.example"),
    ],
)
def test_the_url_of_a_server(url: str, variables: dict[str, str], expected: str) -> None:
    server = {"url": url, "variables": {name: {"default": value} for name, value in variables.items()}}
    assert server_url(server) == expected


BASE = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://id.example.com/token", "https://id.example.com/token"),
        ("/oauth/token", "https://api.example.com/oauth/token"),
        ("oauth/token", "https://api.example.com/v1/oauth/token"),
        ("../token?tenant=1", "https://api.example.com/token?tenant=1"),
        ("//id.example.com/token", "https://id.example.com/token"),
        ("", "https://api.example.com/v1/"),
        ("ftp://id.example.com/token", None),
        ("javascript:alert(1)", None),
        ("https://u:p@id.example.com/", None),
        ("https://id.example.com/#x", None),
        ("https://[::1", None),
        ("http://", None),
        ("https:http://id.example.com/", None),
        ("https:id.example.com/token", None),
        ("https:///id.example.com/token", None),
        ("///id.example.com/token", None),
        ("token:80/", None),
        (" ", None),
        (" https://id.example.com/token", None),
        ("ht\ntps://id.example.com/token", None),
        ("/token:80", "https://api.example.com/token:80"),
        ("/a\\b", None),
        ("/" + "x" * 3_000, None),
    ],
)
def test_a_url_relative_to_a_server(url: str, expected: str | None) -> None:
    assert absolute_url(url, BASE) == expected
