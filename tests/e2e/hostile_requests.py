"""Requests that no honest client sends, byte for byte, and what each must be answered."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.e2e.hostile import Hostile
from tests.e2e.hostile_agents import agent_requests
from tests.e2e.hostile_flows import flow_requests
from tests.e2e.hostile_runs import run_requests
from tests.e2e.hostile_tools import tool_requests

VALIDATE = "/api/v1/plugins/validate-manifest"
APPS = "/api/v1/apps"
INSTALL = "/api/v1/plugins/install"
PLUGIN = "/api/v1/plugins/plugin_nothing_000000"
JSON = {"Content-Type": "application/json"}
MEGABYTE = 1024 * 1024


def all_requests() -> list[Hostile]:
    """Return every request, each under a name of its own."""
    return [
        *_paths(), *_methods(), *_queries(), *_headers(), *_framing(), *_json(), *_types(), *_forms(), *tool_requests(),
        *agent_requests(), *flow_requests(), *run_requests(),
    ]  # fmt: skip


def _paths() -> Iterator[Hostile]:
    targets = {
        "traversal": f"{PLUGIN}/versions/..%2f..%2fetc%2fpasswd",
        "dots": "/api/v1/plugins/..",
        "encoded dots": "/api/v1/plugins/%2e%2e/apps",
        "nul": "/api/v1/plugins/%00",
        "nul after an id": "/api/v1/plugins/plugin_nothing_000000%00",
        "line feed after an id": "/api/v1/plugins/plugin_nothing_000000%0a",
        "a header in the path": "/api/v1/plugins/x%0d%0aSet-Cookie:%20a=b",
        "overlong utf-8": "/api/v1/plugins/%c0%ae%c0%ae",
        "broken utf-8": "/api/v1/plugins/%ff%fe",
        "a surrogate": "/api/v1/plugins/%ed%a0%80",
        "unicode": "/api/v1/plugins/%E2%80%AEplugin_%F0%9F%92%A9",
        "full-width letters": "/api/v1/plugins/%EF%BD%90lugin_nothing_000000",
        "a bad escape": "/api/v1/plugins/%zz%",
        "a double slash": "/api/v1//plugins",
        "a leading double slash": "//api/v1/plugins",
        "upper case": "/API/V1/plugins",
        "a path parameter": "/api/v1/plugins;a=b",
        "a long path": "/api/v1/plugins/" + "a" * 8000,
        "a number beyond 64 bits": "/api/v1/apps/admin/credentials/9999999999999999999",
        "a number in other digits": "/api/v1/apps/admin/credentials/%D9%A1%D9%A2",
        "a template": "/api/v1/plugins/{pluginId}",
        "statement": "/api/v1/plugins/x'%20OR%20'1'='1",
    }
    for name, target in targets.items():
        method = "DELETE" if "credentials" in target else "GET"
        yield Hostile(f"path: {name}", frozenset({404}), method, target=target)
    yield Hostile("path: raw bytes", frozenset({400}), target="/api/v1/plugins/\xff\xfe")
    yield Hostile("path: a space", frozenset({400}), target="/api/v1/plug ins")
    yield Hostile("path: no slash", frozenset({400}), target="api/v1/me")
    yield Hostile("path: absolute", frozenset({200}), target="http://localhost/api/v1/me")
    # As API Gateway does: a final slash is ignored, and a fragment is none of the server's business.
    yield Hostile("path: a final slash", frozenset({200}), target="/api/v1/me/")
    yield Hostile("path: a fragment", frozenset({200}), target="/api/v1/me#x")


def _methods() -> Iterator[Hostile]:
    for method in ("HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "PATCH"):
        yield Hostile(f"method: {method}", frozenset({405}), method)
    yield Hostile("method: CONNECT", frozenset({400, 405}), "CONNECT")
    yield Hostile("method: overridden", frozenset({405}), "PUT", headers=(("X-HTTP-Method-Override", "GET"),))


def _queries() -> Iterator[Hostile]:
    refused = {
        "repeated": "limit=1&limit=2",
        "unknown": "limits=1",
        "an array": "limit[]=1",
        "nul": "limit=%00",
        "empty": "limit=",
        "a float": "limit=1.0",
        "an exponent": "limit=1e1",
        "other digits": "limit=%EF%BC%91",
        "negative": "limit=-1",
        "huge": "limit=99999999999999999999999999",
        "no cursor": "cursor=",
        "a made-up cursor": "cursor=AAAA",
        "a cursor of nul": "cursor=%00",
        "a cursor of surrogates": "cursor=%ed%a0%80",
        "a cursor of broken padding": "cursor=a.b.c.=",
        "a long cursor": "cursor=" + "A" * 1100,
        "a status that is none": "status=3",
        "a flag for a number": "status=true",
        "a time without an offset": "updatedSince=2026-01-01T00:00:00",
        "a day that is none": "updatedSince=2026-02-30T00:00:00Z",
        "a time before time": "updatedSince=0001-01-01T00:00:00%2B23:59",
        "a time after time": "updatedSince=9999-12-31T23:59:59-23:59",
        "an offset that is none": "updatedSince=2026-01-01T00:00:00%2B99:99",
    }
    for name, query in refused.items():
        yield Hostile(f"query: {name}", frozenset({400}), target=f"/api/v1/plugins?{query}")
    accepted = {
        "a quote": "q='%22%3B--",
        "wildcards": "q=%25_%5c%5c%25",
        "nul": "q=a%00b",
        "an emoji": "q=%F0%9F%92%A9",
        "broken utf-8": "q=%ff",
        "no value": "&&",
    }
    for name, query in accepted.items():
        yield Hostile(f"query in order: {name}", frozenset({200}), target=f"/api/v1/plugins?{query}")
    yield Hostile(
        "query: a run since the year 1",
        frozenset({404}),
        target=f"{PLUGIN}/executions?since=0001-01-01T00:00:00%2B23:59",
    )


def _headers() -> Iterator[Hostile]:
    refused = {
        "another scheme": "Basic CREDENTIAL",
        "no secret": "Bearer key:",
        "long": "Bearer " + "a" * 10_000,
        "beyond ascii": "Bearer \xe9:\xe9",
        "broken base64": "Bearer ====",
        "base64 of nul": "Bearer AAAAAAAA",
        "two pairs": "Bearer CREDENTIAL, Bearer CREDENTIAL",
    }
    for name, value in refused.items():
        yield Hostile(f"authorization: {name}", frozenset({401}), headers=(("Authorization", value),))
    twice = (("Authorization", "Bearer CREDENTIAL"), ("authorization", "Bearer wrong:wrong"))
    yield Hostile("authorization: twice, wrong last", frozenset({401}), headers=twice)
    body = json.dumps({"aliasId": "hostile", "name": "x"}).encode()
    for name, key in {
        "empty": "",
        "long": "k" * 129,
        "a space": "a b",
        "beyond ascii": "\xe9",
        "tab": "a\tb",
    }.items():
        headers = (("Idempotency-Key", key), *JSON.items())
        yield Hostile(f"idempotency-key: {name}", frozenset({400}), "POST", APPS, headers, body)
    for name, tag in {
        "unquoted": "abc",
        "half": '"abc',
        "a star and more": '*, "a"',
        "many": ", ".join(['"a"'] * 17),
        "long": f'"{"a" * 10_000}"',
        "beyond ascii": '"\xe9"',
        "empty": "",
    }.items():
        yield Hostile(f"if-match: {name}", frozenset({400}), "DELETE", PLUGIN, (("If-Match", tag),))
    for name, tag in {"star": "*", "weak": 'W/"a"', "list": '"a", "b"', "nothing quoted": '""'}.items():
        yield Hostile(
            f"if-match of nothing: {name}", frozenset({404}), "DELETE", PLUGIN, (("If-Match", tag),)
        )
    for name, tag in {"garbage": "\xe9\xe9", "long": '"' + "a" * 9000, "unquoted": "abc"}.items():
        yield Hostile(f"if-none-match: {name}", frozenset({200}), headers=(("If-None-Match", tag),))


def _framing() -> Iterator[Hostile]:
    start = b"POST /api/v1/plugins/validate-manifest HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    start += b"Authorization: Bearer CREDENTIAL\r\nContent-Type: application/json\r\n"
    bad = frozenset({400})
    for name, rest, body in (
        ("two lengths", b"Content-Length: 2\r\nContent-Length: 3", b"{}"),
        ("length and chunks", b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        ("a negative length", b"Content-Length: -1", b""),
        ("a signed length", b"Content-Length: +2", b"{}"),
        ("a length in words", b"Content-Length: two", b""),
        ("an unknown coding", b"Transfer-Encoding: gzip", b""),
        ("a bad chunk", b"Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
        ("a chunk with more than it said", b"Transfer-Encoding: chunked", b"1\r\n{}\r\n0\r\n\r\n"),
        ("no chunks", b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
        ("a folded header", b"X-A: b\r\n c", b""),
        ("a header without a colon", b"X-A", b""),
        ("a space before the colon", b"X-A : b", b""),
        ("nul in a header", b"X-A: a\x00b", b""),
    ):
        yield Hostile(f"framing: {name}", bad, head=start + rest, body=body)
    chunks = b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX-Trailer: a\r\n\r\n"
    yield Hostile(
        "framing: chunks", frozenset({422}), head=start + b"Transfer-Encoding: chunked", body=chunks
    )
    yield Hostile("framing: http/2", bad, head=b"GET /health HTTP/2.0\r\nHost: a")
    yield Hostile("framing: no version", bad, head=b"GET /health\r\nHost: a")
    yield Hostile(
        "framing: long headers", frozenset({431}), head=b"GET /health HTTP/1.1\r\nA: " + b"a" * 70_000
    )


def _json() -> Iterator[Hostile]:
    bad = {
        "empty": b"",
        "space": b"  ",
        "cut off": b'{"name": "a"',
        "deep": b"[" * 100_000,
        "deep and closed": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "nan": b'{"name": NaN}',
        "infinity": b'{"name": -Infinity}',
        "beyond floats": b'{"a": 1e999}',
        "a long number": b'{"a": ' + b"9" * 10_000 + b"}",
        "twice the same key": b'{"name": "a", "name": "b"}',
        "two documents": b"{}{}",
        "a comment": b"/**/{}",
        "broken utf-8": b'{"name": "\xff"}',
        "utf-16": '{"a": 1}'.encode("utf-16"),
        "a lone surrogate": b'{"name": "\\ud800"}',
        "single quotes": b"{'a': 1}",
        "overlong utf-8": b'{"name": "\xc0\xae"}',
    }
    for name, body in bad.items():
        # What is not UTF-8 has become U+FFFD by the time a function sees it, and fails as what it is then.
        statuses = frozenset({400, 422} if "utf-8" in name else {400})
        yield Hostile(f"json: {name}", statuses, "POST", VALIDATE, tuple(JSON.items()), body)
        yield Hostile(f"json to a create: {name}", statuses, "POST", APPS, tuple(JSON.items()), body)
    for name, body in {
        "null": b"null",
        "a list": b"[]",
        "a string": b'"a"',
        "a number": b"0",
        "nothing in it": b"{}",
        "nul": b'{"aliasId": "hostile", "name": "a\\u0000b"}',
        "a long alias": b'{"aliasId": "' + b"a" * 9000 + b'", "name": "a"}',
        "other types": b'{"aliasId": ["a"], "name": {"a": 1}}',
        "more than known": b'{"aliasId": "hostile", "name": "a", "role": 1}',
        "prototype": b'{"aliasId": "hostile", "name": "a", "__proto__": {"a": 1}}',
        "true for 1": b'{"aliasId": "h-i", "name": "a", "isTenant": true}',
    }.items():
        yield Hostile(
            f"json that does not hold: {name}", frozenset({422}), "POST", APPS, tuple(JSON.items()), body
        )
    for size in (MEGABYTE, 5 * MEGABYTE, 10 * MEGABYTE, 11 * MEGABYTE):
        body = b'{"name": "' + b"a" * size + b'"}'
        yield Hostile(f"json: {size} bytes", frozenset({413}), "POST", APPS, tuple(JSON.items()), body)


def _types() -> Iterator[Hostile]:
    for name, value in {
        "text": "text/plain",
        "xml": "application/xml",
        "a form": "application/x-www-form-urlencoded",
        "multipart": "multipart/form-data; boundary=a",
        "nothing": "",
        "a list": "application/json, text/plain",
        "garbage": ";;;=",
        "long": "a/" + "b" * 9000,
        "beyond ascii": "\xe9/\xe9",
    }.items():
        statuses = frozenset({415} if value else {415, 422})
        yield Hostile(f"type: {name}", statuses, "POST", APPS, (("Content-Type", value),), b"{}")
    for name, value in {
        "charset": "application/json; charset=utf-16",
        "vendor": "application/x+json",
    }.items():
        yield Hostile(
            f"type in order: {name}", frozenset({422}), "POST", APPS, (("Content-Type", value),), b"{}"
        )


def _part(head: str, content: bytes = b"local") -> bytes:
    return b"--X\r\n" + head.encode("latin-1") + b"\r\n\r\n" + content + b"\r\n"


def _forms() -> Iterator[Hostile]:
    source = _part('Content-Disposition: form-data; name="source"')
    file = 'Content-Disposition: form-data; name="file"; filename="{}"'
    end = b"--X--\r\n"
    nested = _part(
        'Content-Disposition: form-data; name="source"\r\nContent-Type: multipart/mixed; boundary=Y', b"--Y--"
    )
    forms = {
        "empty": b"",
        "no end": source,
        "only an end": end,
        "another boundary": b"--Y\r\n\r\n\r\n--Y--\r\n",
        "ten thousand parts": b"".join(
            _part(f'Content-Disposition: form-data; name="n{number}"') for number in range(10_000)
        )
        + end,
        "nested": nested + end,
        "a part without a name": _part("Content-Type: text/plain") + end,
        "a part without headers": b"--X\r\n\r\nlocal\r\n" + end,
        "the same name twice": source + source + end,
        "a name of broken utf-8": _part('Content-Disposition: form-data; name="\xff\xfe"') + end,
        "a value of broken utf-8": _part('Content-Disposition: form-data; name="source"', b"\xff\xfe") + end,
        "a long header": _part('Content-Disposition: form-data; name="source"; x="' + "a" * 100_000 + '"')
        + end,
        "ten thousand headers": _part("A: b\r\n" * 10_000 + 'Content-Disposition: form-data; name="source"')
        + end,
        "line feeds alone": source.replace(b"\r\n", b"\n") + end,
        "something else": b"not a form at all",
        "no file": source + end,
        "no zip": source + _part(file.format("a.zip")) + end,
        "a file by a path": source + _part(file.format("../../../../etc/passwd")) + end,
        "a file with nul": source + _part(file.format("a\x00.zip")) + end,
        "a file of broken utf-8": source + _part(file.format("\xff.zip")) + end,
        "a long file name": source + _part(file.format("a" * 5000)) + end,
        "a file without a name": source + _part(file.format("")) + end,
        "base64": source
        + _part(file.format("a.zip") + "\r\nContent-Transfer-Encoding: base64", b"UEsDBA==")
        + end,
        "more than known": source + _part('Content-Disposition: form-data; name="x"') + end,
        "a file for the source": _part(file.format("a").replace('"file"', '"source"')) + end,
        "a bare manifest of nul": source
        + _part('Content-Disposition: form-data; name="manifest"', b"\x00")
        + _part(file.format("plugin.py"))
        + end,
        "a preamble": b"hello\r\n" + source + end,
    }
    content_type = "multipart/form-data; boundary=X"
    for name, body in forms.items():
        headers = (("Content-Type", content_type),)
        for target in (INSTALL, VALIDATE):
            where = target.rpartition("/")[2]
            yield Hostile(f"form to {where}: {name}", frozenset({400, 422}), "POST", target, headers, body)
    for name, value in {
        "no boundary": "multipart/form-data",
        "an empty boundary": "multipart/form-data; boundary=",
        "a long boundary": "multipart/form-data; boundary=" + "a" * 71,
        "a quoted one": 'multipart/form-data; boundary="',
        "boundary of broken utf-8": "multipart/form-data; boundary=\xff",
    }.items():
        yield Hostile(
            f"form: {name}", frozenset({400}), "POST", INSTALL, (("Content-Type", value),), source + end
        )
    big = source + _part(file.format("a.zip"), b"PK\x03\x04" + b"a" * 5 * MEGABYTE) + end
    yield Hostile("form: 5 MB", frozenset({413}), "POST", INSTALL, (("Content-Type", content_type),), big)
