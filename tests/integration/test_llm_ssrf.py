"""Server-side request forgery (CWE-918) through the URL of a language model: each vector is refused with its code, and
a listener proves that nothing was connected to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from chalicelib.core import process
from chalicelib.core.errors import HotplugError
from chalicelib.core.llm.model import ChatMessage, ChatOptions, Llm
from chalicelib.core.llm.openai import OpenAiLlm
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from tests.conftest import create_schema
from tests.fakes.circuits import MemoryCircuits
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, INVALID, REDIRECTS, VECTORS

HELLO = [ChatMessage("user", "hello")]
SOON = ChatOptions(timeout_s=2)


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as set_trap:
        yield set_trap


def model_at(url: str, trap: Trap) -> Llm:
    out = AppHttp(trap.client(sleep=lambda _: None), Breaker(MemoryCircuits(), "me"), 1)
    return OpenAiLlm(out, url, "m", lambda: "key")


def code_of(url: str, trap: Trap) -> str:
    try:
        model_at(url, trap).chat(HELLO, SOON)
    except HotplugError as error:
        return error.code
    return "answered"


def test_no_model_stands_on_forbidden_ground(trap: Trap) -> None:
    codes = {vector.id: code_of(vector.url, trap) for vector in VECTORS}
    trap.assert_untouched()
    assert codes == {vector.id: vector.code for vector in VECTORS}
    counted = Counter(codes.values())
    assert counted[FORBIDDEN] >= 80 and counted[INVALID] >= 100


@pytest.mark.parametrize("status", [302, 307])
def test_no_redirect_of_a_model_is_followed(trap: Trap, status: int) -> None:
    numbers = range(0, len(REDIRECTS), 7)
    with trap.redirecting() as start:
        codes = [code_of(start.url(status, number), trap) for number in numbers]
        assert start.server.connections == len(numbers)
        trap.assert_untouched()
    assert set(codes) == {"llm.failed"}


def test_what_flows_name_goes_the_same_way(
    trap: Trap, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_schema(sqlite_url).close()
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", sqlite_url)
    process.forget()
    process.use_http(trap.client(sleep=lambda _: None))
    try:
        for vector in VECTORS[::20]:
            with pytest.raises(HotplugError) as caught:
                process.llm_at(1, vector.url, "m", lambda: "key").chat(HELLO, SOON)
            assert caught.value.code == vector.code, vector.id
        trap.assert_untouched()
    finally:
        process.forget()


def test_the_trap_sees_a_call_that_is_allowed(trap: Trap) -> None:
    assert code_of("http://llm.example/v1", trap) in ("llm.unavailable", "llm.timeout")
    assert trap.accepted() >= 1
