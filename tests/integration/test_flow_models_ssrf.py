"""Server-side request forgery (CWE-918) through the `url` of a node that asks a language model: each vector fails the
node, and a listener proves that nothing was connected to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chalicelib.core import process
from chalicelib.core.llm.model import NoLlm
from chalicelib.core.llm.openai import OpenAiLlm
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.flows.engine.call import Call
from chalicelib.flows.engine.errors import LLM_FAILED, NodeError
from chalicelib.flows.nodes.model_services import ModelServices, model_services
from chalicelib.flows.nodes.models import model_nodes
from tests.conftest import create_schema
from tests.fakes.circuits import MemoryCircuits
from tests.flow_builders import output
from tests.model_calls import decision_call, extractor_call, intent, llm_call
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import REDIRECTS, VECTORS

CALLS = (llm_call({}), decision_call([intent("a", "A", default=True)]), extractor_call(output("n")))
# Without a URL it is the deployment's model that is asked, and here there is none.
NAMED = [vector for vector in VECTORS if vector.url]


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as set_trap:
        yield set_trap


def at(url: str, number: int) -> Call:
    """A call of one of the three types; its URL is what no check of a flow has looked at."""
    call = CALLS[number % len(CALLS)]
    params = {**call.node.params, "url": url, "model": "m", "credential": "key", "fallback": "two"}
    fresh = llm_call({}, seconds=2)
    return replace(fresh, node=replace(call.node, params=params), inputs=call.inputs)


def services(trap: Trap) -> ModelServices:
    out = AppHttp(trap.client(sleep=lambda _: None), Breaker(MemoryCircuits(), "me"), 1)
    return ModelServices(
        lambda _: NoLlm(), lambda app_id, url, model, key: OpenAiLlm(out, url, model, key), lambda *_: "sk-1"
    )


def failure(made: ModelServices, call: Call) -> NodeError:
    with pytest.raises(NodeError) as caught:
        model_nodes(made)[call.node.type](call)
    return caught.value


def test_no_model_stands_on_forbidden_ground(trap: Trap) -> None:
    made = services(trap)
    errors = {vector.id: failure(made, at(vector.url, n)) for n, vector in enumerate(NAMED)}
    trap.assert_untouched()
    assert {error.code for error in errors.values()} == {LLM_FAILED}
    assert not any(error.is_transient for error in errors.values())
    wrong = [vector.id for vector in NAMED if f"({vector.code})" not in errors[vector.id].message]
    assert wrong == []
    assert len(NAMED) >= 200


def test_no_error_repeats_the_url(trap: Trap) -> None:
    error = failure(services(trap), at("http://169.254.169.254/latest/meta-data/iam", 0))
    assert "169.254" not in error.message


@pytest.mark.parametrize("status", [302, 307])
def test_no_redirect_of_a_model_is_followed(trap: Trap, status: int) -> None:
    made = services(trap)
    numbers = range(0, len(REDIRECTS), 7)
    with trap.redirecting() as start:
        errors = [failure(made, at(start.url(status, number), number)) for number in numbers]
        assert start.server.connections == len(numbers)
        trap.assert_untouched()
    assert all("(llm.failed)" in error.message and not error.is_transient for error in errors)


def test_the_services_of_the_process_go_the_same_way(
    trap: Trap, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_schema(sqlite_url).close()
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", sqlite_url)
    process.forget()
    process.use_http(trap.client(sleep=lambda _: None))
    try:
        made = replace(model_services(), secret=lambda *_: "sk-1")
        for number, vector in enumerate(NAMED[::20]):
            assert f"({vector.code})" in failure(made, at(vector.url, number)).message, vector.id
        trap.assert_untouched()
    finally:
        process.forget()


def test_the_trap_sees_a_call_that_is_allowed(trap: Trap) -> None:
    error = failure(services(trap), at("http://llm.example/v1", 0))
    assert "(llm.unavailable)" in error.message or "(llm.timeout)" in error.message
    assert trap.accepted() >= 1
