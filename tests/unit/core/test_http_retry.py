from __future__ import annotations

import time

import pytest

from chalicelib.core.errors import Forbidden, UpstreamTimeout
from tests.internet import OK, A, Internet, client

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "failure", [BUSY, BUSY.replace(b"503", b"502"), BUSY.replace(b"503", b"504"), b"", b"junk\r\n"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_passing_failure_is_tried_again_with_growing_jitter(
    failure: bytes, method: str, internet: Internet
) -> None:
    slept: list[float] = []
    server = internet.serve("a.example", 80, failure, failure, OK)
    answer = client(internet, sleep=slept.append).request(method, "http://a.example/", headers={}, retries=2)
    assert (answer.status, server.connections) == (200, 3)
    assert len(slept) == 2
    assert 0 <= slept[0] <= 0.2
    assert 0 <= slept[1] <= 0.4


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_is_not_idempotent_is_sent_once(method: str, internet: Internet) -> None:
    server = internet.serve("a.example", 80, BUSY, OK)
    assert client(internet).request(method, "http://a.example/", headers={}, retries=5).status == 503
    assert server.connections == 1


def test_the_last_answer_is_returned_when_no_retry_is_left(internet: Internet) -> None:
    server = internet.serve("a.example", 80, BUSY)
    out = client(internet, sleep=lambda _: None)
    assert out.request("GET", "http://a.example/", headers={}, retries=2).status == 503
    assert out.request("GET", "http://a.example/", headers={}).status == 503
    assert server.connections == 4


@pytest.mark.parametrize(
    "answer", [BUSY.replace(b"Busy\r\n", b"Busy\r\nRetry-After: 9\r\n"), BUSY.replace(b"503", b"500"), OK]
)
def test_other_answers_are_not_asked_again(answer: bytes, internet: Internet) -> None:
    server = internet.serve("a.example", 80, answer)
    client(internet).request("GET", "http://a.example/", headers={}, retries=3)
    assert server.connections == 1


def test_a_refusal_is_not_tried_again(internet: Internet) -> None:
    internet.names["a.example"] = [("10.0.0.1",), (A,)]
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://a.example/", headers={}, retries=3)
    assert internet.resolved == ["a.example"]


def test_no_retry_begins_after_the_whole_time(internet: Internet) -> None:
    server = internet.serve("a.example", 80, lambda conn, request: time.sleep(1))
    with pytest.raises(UpstreamTimeout):
        client(internet, total_timeout_s=0.3).request("GET", "http://a.example/", headers={}, retries=5)
    assert server.connections == 1
