from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.errors import Forbidden, UpstreamTimeout
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.plugins.runtime.faults import Deadline
from chalicelib.plugins.runtime.network import MAX_CALLS, Gateway, OutboundFetcher, Response
from chalicelib.plugins.runtime.service import Runtime
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, REDIRECTS, VECTORS
from tests.unit.plugins.runtime.support import Bench, ObjectServer

HOSTS = ("hooks.example",)


class RecordingFetcher:
    """Answers with what it was asked; raises `error` where it has one."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_ms: int,
        allowed_hosts: Collection[str],
    ) -> Response:
        self.calls.append(
            {"method": method, "url": url, "headers": dict(headers), "body": body, "timeout_ms": timeout_ms}
        )
        if self.error:
            raise self.error
        if "hooks.example" not in url:
            raise Forbidden("The URL leads to a host that was not granted.", code="http.host_not_granted")
        return Response(201, [("X-One", "1"), ("x-one", "2")], b"\xffbody:" + (body or b""))


@pytest.fixture
def fetcher() -> RecordingFetcher:
    return RecordingFetcher()


@pytest.fixture
def network(server: ObjectServer, tmp_path: Path, fetcher: RecordingFetcher) -> Iterator[Bench]:
    runtime = Runtime(tmp_path / "cache", network=True, fetcher=fetcher)
    yield Bench(runtime, server, tmp_path / "cache")
    runtime.close()


def test_a_call_is_made_with_what_the_plugin_asked(fetcher: RecordingFetcher) -> None:
    gateway = Gateway(fetcher, HOSTS, Deadline.after(60_000))

    answer = gateway.call(
        {
            "method": "POST",
            "url": "https://hooks.example/x",
            "headers": {"A": "b"},
            "body": "ü",
            "timeoutMs": 50,
        }
    )

    assert fetcher.calls == [
        {
            "method": "POST",
            "url": "https://hooks.example/x",
            "headers": {"A": "b"},
            "body": "ü".encode(),
            "timeout_ms": 50,
        }
    ]
    assert answer == {
        "status": 201,
        "headers": {"x-one": "1, 2"},
        "bodyBase64": base64.b64encode(b"\xffbody:" + "ü".encode()).decode(),
    }


def test_no_call_outlasts_the_execution(fetcher: RecordingFetcher) -> None:
    gateway = Gateway(fetcher, HOSTS, Deadline.after(200))

    gateway.call({"method": "GET", "url": "https://hooks.example/", "timeoutMs": 60_000})

    assert fetcher.calls[0]["timeout_ms"] <= 200


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"method": "GET"},
        {"method": "GET", "url": 7},
        {"method": "GET", "url": "https://hooks.example/", "headers": ["a"]},
        {"method": "GET", "url": "https://hooks.example/", "headers": {"a": 1}},
        {"method": "GET", "url": "https://hooks.example/", "body": {"a": 1}},
        {"method": "GET", "url": "https://hooks.example/", "bodyBase64": "not base64"},
    ],
)
def test_a_malformed_request_is_told_so(fetcher: RecordingFetcher, request_: dict[str, Any]) -> None:
    answer = Gateway(fetcher, HOSTS, Deadline.after(1_000)).call(request_)

    assert answer["error"]["code"] == "http.bad_request"
    assert fetcher.calls == []


def test_calls_are_counted(fetcher: RecordingFetcher) -> None:
    gateway = Gateway(fetcher, HOSTS, Deadline.after(60_000))
    answers = [gateway.call({"method": "GET", "url": "https://hooks.example/"}) for _ in range(MAX_CALLS + 1)]

    assert "error" not in answers[-2]
    assert answers[-1]["error"]["code"] == "http.too_many_calls"
    assert len(fetcher.calls) == MAX_CALLS


@pytest.mark.parametrize("error", [Forbidden("no", code="http.forbidden_address"), UpstreamTimeout("late")])
def test_a_refusal_has_its_code(fetcher: RecordingFetcher, error: Forbidden) -> None:
    fetcher.error = error

    answer = Gateway(fetcher, HOSTS, Deadline.after(1_000)).call(
        {"method": "GET", "url": "https://hooks.example/"}
    )

    assert answer == {"error": {"code": error.code, "message": error.detail}}


def test_the_real_fetcher_checks_the_host_before_anything_else() -> None:
    with pytest.raises(Forbidden) as caught:
        OutboundFetcher().fetch(
            "GET",
            "http://169.254.169.254/",
            headers={},
            body=None,
            timeout_ms=500,
            allowed_hosts=("hooks.example",),
        )

    assert caught.value.code == "http.host_not_granted"


PYTHON = """
class Plugin:
    def execute(self, action, params, context):
        answer = context.http.request("POST", params["url"], {"A": "b"}, "text", timeout_ms=300)
        return [answer["status"], answer["headers"], answer["body"], answer["content"].hex()]
"""

WAT = r"""
(module
  (import "hotplug" "http_request" (func $request (param i32 i32) (result i32)))
  (import "hotplug" "http_response" (func $response (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 100) "@@REQUEST@@")
  (data (i32.const 2000) "{\"result\":")
  (func $put (param $ptr i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $ptr))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (local $len i32)
    (local.set $len (call $request (i32.const 100) (i32.const @@LENGTH@@)))
    (if (i32.ne (call $response (i32.const 4000) (i32.const 3)) (i32.const -1)) (then unreachable))
    (drop (call $response (i32.const 4000) (local.get $len)))
    (call $put (i32.const 2000) (i32.const 10))
    (call $put (i32.const 4000) (local.get $len))
    (i32.store8 (i32.const 90) (i32.const 125))
    (call $put (i32.const 90) (i32.const 1))))
"""


def wat(url: str) -> str:
    text = json.dumps({"method": "POST", "url": url, "body": "text"})
    return WAT.replace("@@REQUEST@@", text.replace('"', '\\"')).replace("@@LENGTH@@", str(len(text)))


def test_python_plugins_reach_granted_hosts(network: Bench, fetcher: RecordingFetcher) -> None:
    event = network.python_event(PYTHON, network=list(HOSTS), params={"url": "https://hooks.example/x"})

    answer = network.run(event)

    assert answer["result"] == [201, {"x-one": "1, 2"}, "\ufffdbody:text", (b"\xffbody:text").hex()]
    assert fetcher.calls[0]["timeout_ms"] == 300


def test_wasm_plugins_reach_granted_hosts(network: Bench) -> None:
    answer = network.run(network.wasm_event(wat("https://hooks.example/x"), network=list(HOSTS)))

    assert answer["result"] == {
        "status": 201,
        "headers": {"x-one": "1, 2"},
        "bodyBase64": base64.b64encode(b"\xffbody:text").decode(),
    }


def test_other_hosts_are_refused(network: Bench) -> None:
    python = network.run(
        network.python_event(PYTHON, network=list(HOSTS), params={"url": "https://other.example/"})
    )
    wasm = network.run(network.wasm_event(wat("https://other.example/"), network=list(HOSTS)))

    assert python["error"]["code"] == "http.host_not_granted"
    assert wasm["result"]["error"]["code"] == "http.host_not_granted"


@pytest.mark.parametrize("hosts", [[], list(HOSTS)], ids=["no-grant", "no-network"])
def test_without_grant_or_network_nothing_is_called(
    network: Bench, bench: Bench, fetcher: RecordingFetcher, hosts: list[str]
) -> None:
    place = network if not hosts else bench
    url = "https://hooks.example/x"

    python = place.run(place.python_event(PYTHON, network=hosts, params={"url": url}))
    wasm = place.run(place.wasm_event(wat(url), network=hosts))

    assert python["error"]["code"] == "http.not_granted"
    assert wasm["result"]["error"]["code"] == "http.not_granted"
    assert fetcher.calls == []


def test_a_thread_that_outlives_its_execution_cannot_call(network: Bench) -> None:
    source = """
import os, threading, time
class Plugin:
    seen = []
    def execute(self, action, params, context):
        def late():
            while context.http.turn is not None:
                time.sleep(0.001)
            try:
                context.http.request("GET", "https://hooks.example/")
            except Exception as error:
                self.seen.append(error.code)
        if action == "start":
            threading.Thread(target=late).start()
            return os.getpid()
        return self.seen
"""
    event = network.python_event(source, network=list(HOSTS))
    child = network.run({**event, "action": "start"})["result"]
    # Between executions the child is stopped. It is let go here, so that the thread runs before the next one begins.
    os.kill(child, signal.SIGCONT)
    end = time.monotonic() + 20
    while "Threads:\t1\n" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < end, "the thread does not end"
        time.sleep(0.01)
    assert network.run({**event, "action": "look"})["result"] == ["http.closed"]


# -- where no plugin gets, whatever was granted ----------------------------------------------------------------

TRYING = """
class Plugin:
    def execute(self, action, params, context):
        return [self.code(url, context) for url in params["urls"]]

    def code(self, url, context):
        try:
            return context.http.request("GET", url)["status"]
        except Exception as error:
            return getattr(error, "code", repr(error))
"""


def granted(url: str, code: str) -> list[str]:
    """Grant the very host, so that nothing but its address can be the reason."""
    return [parse_url(url).authority] if code == FORBIDDEN else []


def test_every_vector_is_refused_by_the_gateway() -> None:
    with Trap() as trap:
        fetcher = OutboundFetcher(trap.client())
        answers = {
            vector.id: Gateway(
                fetcher, [*HOSTS, *granted(vector.url, vector.code)], Deadline.after(60_000)
            ).call({"method": "GET", "url": vector.url})
            for vector in VECTORS
        }
        trap.assert_untouched()
    codes = {name: answer.get("error", answer).get("code") for name, answer in answers.items()}
    assert codes == {vector.id: vector.code for vector in VECTORS}


def test_every_vector_is_refused_to_a_python_plugin(server: ObjectServer, tmp_path: Path) -> None:
    # What is no text cannot be sent to it as a parameter.
    vectors = [vector for vector in VECTORS if "\ud800" not in vector.url]
    codes: list[str] = []
    with Trap(expected=[("127.0.0.1", parse_url(server.url).port)]) as trap:
        runtime = Runtime(tmp_path / "cache", network=True, fetcher=OutboundFetcher(trap.client()))
        bench = Bench(runtime, server, tmp_path / "cache")
        for begin in range(0, len(vectors), MAX_CALLS):
            part = vectors[begin : begin + MAX_CALLS]
            hosts = [host for vector in part for host in granted(vector.url, vector.code)]
            event = bench.python_event(
                TRYING, network=[*HOSTS, *hosts], params={"urls": [vector.url for vector in part]}
            )
            codes += bench.run(event)["result"]
        runtime.close()
        trap.assert_untouched()
    assert dict(zip([vector.id for vector in vectors], codes, strict=True)) == {
        vector.id: vector.code for vector in vectors
    }


def test_no_redirect_leads_a_plugin_there() -> None:
    with Trap() as trap, trap.redirecting() as start:
        fetcher = OutboundFetcher(trap.client())
        codes = {}
        for number, vector in enumerate(REDIRECTS):
            hosts = [start.host, *(granted(vector.url, vector.code) if "://" in vector.url else [])]
            answer = Gateway(fetcher, hosts, Deadline.after(60_000)).call(
                {"method": "GET", "url": start.url(302, number)}
            )
            codes[vector.id] = answer.get("error", answer).get("code")
        trap.assert_untouched()
    # A reference without a host of its own was granted nothing.
    refused = {"http.host_not_granted", FORBIDDEN}
    assert {name for name in codes if codes[name] is None} == set()
    for vector in REDIRECTS:
        expected = refused if vector.kind == "reference" and vector.code == FORBIDDEN else {vector.code}
        assert codes[vector.id] in expected, vector
