"""Nodes that ask a language model, on the wire: what a real server is sent, and what its answers are to the flow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.core import process, telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.llm.model import Llm, NoLlm, Usage
from chalicelib.core.llm.openai import OpenAiLlm
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.circuit import Policy
from chalicelib.core.outbound.client import HttpOut
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import LLM_FAILED, NODE_FAILED, NodeError, NodeTimeout
from chalicelib.flows.nodes.model_services import Key, ModelServices, model_services
from chalicelib.flows.nodes.models import model_nodes
from tests import flow_builders as build
from tests import flow_runs
from tests.fakes.circuits import MemoryCircuits
from tests.flow_builders import output
from tests.http import Deployment, deployed
from tests.internet import Answer
from tests.model_calls import SCOPE, decision_call, extractor_call, intent, llm_call
from tests.model_server import (
    ModelServer,
    after,
    completion,
    echoing,
    failed,
    hang_up,
    http,
    replying,
    said,
    silence,
    trickling,
)

KEY = "sk-Zq7~never/shown+anywhere="
PROMPT = "a prompt that nobody else may read"


class World:
    """Nodes whose endpoints are real, and whose client does not rest between its retries."""

    def __init__(self, server: ModelServer, policy: Policy) -> None:
        self.server = server
        self._http = HttpOut(private_endpoints=[server.endpoint], sleep=lambda _: None)
        self._breaker = Breaker(MemoryCircuits(), "me", policy)
        services = ModelServices(lambda _: NoLlm(), self._at, lambda app_id, name, url: KEY)
        self._nodes = model_nodes(services)

    def _at(self, app_id: int, url: str, model: str | None, key: Key) -> Llm:
        return OpenAiLlm(AppHttp(self._http, self._breaker, app_id), url, model, key)

    def run(self, call: Call) -> Result:
        params = {"url": self.server.url, "model": "one", "credential": "llm-key", **call.node.params}
        return self._nodes[call.node.type](replace(call, node=replace(call.node, params=params)))

    def run_here(self, call: Call) -> Result:
        """Run a node whose own URL leads nowhere."""
        return self.run(
            replace(call, node=replace(call.node, params={**call.node.params, "url": self.server.url}))
        )

    def failure(self, call: Call) -> NodeError:
        with pytest.raises(NodeError) as caught:
            self.run(call)
        return caught.value


@contextmanager
def serving(*answers: Answer, failures: int = 100) -> Iterator[World]:
    with ModelServer(*answers) as server:
        yield World(server, Policy(failures=failures, cool_down_s=30))


def asked_call(**params: Any) -> Call:
    return llm_call({"template": "{{q}}", **params}, q=PROMPT)


# -- what arrives -----------------------------------------------------------------------------------------------------


def test_the_request_of_an_llm_node() -> None:
    with serving(said("fine")) as world:
        call = asked_call(systemTemplate="s", temperature=0.5, maxTokens=9, topK=3)
        result = world.run(call)
        (asked,) = world.server.asked
    assert asked.json == {
        "model": "one",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": PROMPT}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 3,
        "stream": False,
    }
    assert asked.header("Authorization") == f"Bearer {KEY}"
    assert (result.outputs["output"], result.usage) == ("fine", Usage(7, 5, 1))


def test_the_reasoning_of_an_endpoint_is_an_output() -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    with serving(completion(message)) as world:
        assert world.run(asked_call()).outputs == {"output": "4", "REASONING_CONTENT": "2 and 2"}


def test_a_decision_on_the_wire() -> None:
    with serving(said('{"id": "intent-one-of::b"}')) as world:
        result = world.run(
            decision_call([intent("a", "A"), intent("b", "B", default=True)], output("class_name"))
        )
        asked = world.server.asked[0].json
    assert (result.branch, result.outputs) == ("intent-one-of::b", {"class_name": "B"})
    schema = asked["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["id"]["enum"] == ["intent-one-of::a", "intent-one-of::b"]


def test_an_extraction_by_an_endpoint_that_knows_no_formats() -> None:
    def choose(asked: Any) -> Answer:
        return failed(400, "unsupported_parameter") if "response_format" in asked else said('{"n": "42"}')

    with serving(replying(choose)) as world:
        result = world.run(extractor_call(output("n", "integer")))
        assert ["response_format" in asked.json for asked in world.server.asked] == [True, False]
    assert (result.outputs, result.usage) == ({"n": 42}, Usage(7, 5, 1))


def test_threads_may_ask_at_once() -> None:
    def choose(asked: Any) -> Answer:
        return after(0.2, said(asked["messages"][-1]["content"]))

    with serving(replying(choose)) as world:
        calls = [llm_call({"template": "{{q}}"}, q=f"number {number}") for number in range(16)]
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(world.run, calls))
        assert [result.outputs["output"] for result in results] == [f"number {n}" for n in range(16)]
        assert time.monotonic() - began < 16 * 0.2


# -- in a flow --------------------------------------------------------------------------------------------------------

HISTORY = {"enableChatHistoryV2": {"isEnabled": True, "rounds": 3}}


def in_a_flow(retry: dict[str, Any]) -> dict[str, Any]:
    """Start, a decision, an llm node in JSON mode on one of its branches, end."""
    model = {"model": "one", "url": "http://filled-in.example", "credential": "llm-key"}
    choose = build.node(
        "decision-making::1",
        {**model, "intentChains": [intent("a", "A"), intent("b", "B", default=True)]},
        inputs=[build.ref("query", build.START, "query")],
        outputs=[output("class_name")],
    )
    answer = build.node(
        "spark-llm::1",
        {**model, **HISTORY, "template": "{{q}}", "respFormat": 2},
        inputs=[build.ref("q", build.START, "query")],
        outputs=[output("o", "object")],
        retry=retry,
    )
    finish = build.end(
        build.ref("chosen", choose["id"], "class_name"),
        build.ref("o", answer["id"], "o", "object"),
        build.ref("code", answer["id"], "errorCode", "integer"),
    )
    edges = [
        build.edge(build.START, choose["id"]),
        build.edge(choose["id"], answer["id"], "intent_chain|intent-one-of::a"),
        build.edge(choose["id"], build.END, "intent-one-of::b"),
        build.edge(answer["id"], build.END),
    ]
    return build.flow([build.start(), choose, answer, finish], edges)


def express(world: World, data: dict[str, Any]) -> tuple[Any, Any]:
    kinds = {"llm": world.run_here, "decision-making": world.run_here}
    return flow_runs.express(data, {"query": PROMPT}, kinds)


def test_a_flow_takes_the_branch_and_asks_again_for_json() -> None:
    chose = said('{"id": "intent-one-of::a"}')
    with serving(chose, said("no json"), failed(400, "invalid_request_error"), said('{"a": 1}')) as world:
        outcome, told = express(
            world, in_a_flow({"shouldRetry": True, "maxRetries": 1, "errorStrategy": 0, "backoff": 0})
        )
        assert outcome.state == "succeeded", outcome.error
    assert outcome.outputs == {"chosen": "A", "o": {"a": 1}, "code": 0}
    assert [(name, one.question, one.answer) for name, one in told.exchanges] == [
        ("spark-llm::1", PROMPT, '{"a": 1}')
    ]


def test_a_flow_goes_on_with_what_it_has_for_a_model_that_fails() -> None:
    custom = {"shouldRetry": True, "maxRetries": 2, "errorStrategy": 1, "customOutput": {"o": {"none": True}}}
    with serving(said("intent-one-of::a"), failed(401)) as world:
        outcome, _ = express(world, in_a_flow(custom))
        # A wrong key stays wrong: it is not asked again.
        assert len(world.server.asked) == 2
    assert outcome.outputs == {"chosen": "A", "o": {"none": True}, "code": LLM_FAILED}


def test_a_branch_that_is_not_taken_costs_nothing() -> None:
    with serving(said("no idea")) as world:
        outcome, told = express(world, in_a_flow({}))
        assert len(world.server.asked) == 1
    assert (outcome.outputs, told.exchanges) == ({"chosen": "B", "o": {}, "code": 0}, [])


# -- what becomes of failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "is_transient", "times"),
    [
        (failed(400, "context_length_exceeded"), "llm.failed", False, 1),
        (failed(401, "invalid_api_key"), "llm.failed", False, 1),
        (failed(404, "model_not_found"), "llm.failed", False, 1),
        (failed(429, "rate_limit_exceeded"), "llm.unavailable", True, 3),
        (failed(500), "llm.unavailable", True, 3),
        (failed(503), "llm.unavailable", True, 3),
        (hang_up, "llm.unavailable", True, 3),
        (http(b"{not json"), "llm.invalid_answer", True, 1),
        (http(b'{"choices": []}'), "llm.invalid_answer", True, 1),
        (completion({"role": "assistant", "content": None, "refusal": "no"}), "llm.refused", False, 1),
    ],
)  # fmt: skip
def test_answers_that_are_none(answer: Answer, code: str, is_transient: bool, times: int) -> None:
    with serving(answer) as world:
        error = world.failure(asked_call())
        assert (error.code, error.is_transient) == (LLM_FAILED, is_transient)
        assert code in error.message
        assert len(world.server.asked) == times


def test_json_mode_on_the_wire() -> None:
    with serving(said("not json"), said('{"a": 1}')) as world:
        call = asked_call(respFormat=2)
        assert world.failure(call).code == LLM_FAILED
        assert world.run(call).outputs["output"] == '{"a": 1}'
        assert world.server.asked[0].json["response_format"] == {"type": "json_object"}
        assert "JSON" in world.server.asked[0].json["messages"][0]["content"]


@pytest.mark.parametrize("answer", [silence, trickling(said("slow"), 0.05)], ids=["silence", "trickling"])
def test_no_answer_takes_longer_than_the_node_allows(answer: Answer) -> None:
    with serving(answer) as world:
        call = llm_call({}, seconds=0.5)
        error = world.failure(call)
        assert time.monotonic() - call.deadline < 0.5
    assert isinstance(error, NodeTimeout) and error.code == NODE_FAILED


def test_a_fallback_answers_for_a_model_that_is_away_or_silent() -> None:
    def choose(asked: Any) -> Answer:
        return {"one": failed(429), "mute": silence}.get(asked["model"], said("from the other"))

    with serving(replying(choose)) as world:
        assert world.run(asked_call(fallback="two")).outputs["output"] == "from the other"
        assert [asked.json["model"] for asked in world.server.asked] == ["one", "one", "one", "two"]
        late = llm_call({"model": "mute", "fallback": "two"}, seconds=1)
        assert world.run(late).outputs["output"] == "from the other"
        assert time.monotonic() < late.deadline


def test_an_endpoint_that_keeps_failing_is_left_alone() -> None:
    with serving(failed(503), failures=1) as world:
        assert "503" in world.failure(asked_call()).message
        error = world.failure(asked_call())
        assert (error.message, error.is_transient) == (
            "The language model is left alone for a while. (llm.unavailable)",
            True,
        )
        assert len(world.server.asked) == 3
        # Another app's runs of the same flow go on: its calls are its own.
        scope = replace(SCOPE, caller=Caller(77, "another", 1, "caller", "r"))
        world.failure(replace(asked_call(), scope=scope))
        assert len(world.server.asked) == 6


def test_neither_key_nor_prompt_is_ever_told(capsys: pytest.CaptureFixture[str]) -> None:
    quoting = http(json.dumps({"choices": [{"message": {"content": 3, "said": [KEY, PROMPT]}}]}).encode())
    answers = (
        *(echoing(status) for status in (400, 401, 429, 500)),
        quoting,
        said(f"{KEY} {PROMPT}"),
        hang_up,
    )
    found: list[str] = []
    for answer in answers:
        with serving(answer) as world:
            error = world.failure(asked_call(respFormat=2, fallback="two"))
            assert KEY.encode() in world.server.asked[0].raw and PROMPT.encode() in world.server.asked[0].raw
            found += [repr(error), error.message, repr(vars(error))]
            telemetry.exception("node.failed", error)
    logged = capsys.readouterr().out
    assert logged.count("node.failed") == len(answers)
    assert [text for text in (*found, logged) if KEY in text or PROMPT in text] == []


# -- wired ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(said("fine")) as made:
        yield made


@pytest.fixture
def deployment(sqlite_url: str, tmp_path: Path, server: ModelServer) -> Iterator[Deployment]:
    key_file = tmp_path / "master.key"
    key_file.write_bytes(os.urandom(32))
    with deployed(
        sqlite_url, HOTPLUG_KEY_FILE=str(key_file), HOTPLUG_PRIVATE_ENDPOINTS=server.endpoint
    ) as made:
        for alias in ("author", "caller"):
            made.client.post("/api/v1/apps", {"aliasId": alias, "name": alias})
        yield made


def caller_of(alias_id: str) -> Caller:
    with process.database().reads() as session:
        app_id = session.scalars(select(App.id).where(App.alias_id == alias_id)).one()
    return Caller(app_id, alias_id, 1, "caller", "r")


def test_a_key_is_the_secret_of_the_flows_author(
    deployment: Deployment, server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = replace(SCOPE, caller=caller_of("caller"), author=caller_of("author"))
    params = {"url": server.url, "model": "m", "credential": "llm-key"}
    call = replace(llm_call(params), scope=scope)
    work = model_nodes(model_services())["llm"]
    deployment.client.put("/api/v1/apps/caller/secrets/llm-key", {"value": "the caller's"})
    # GIVEN an author without such a secret WHEN the node runs THEN it names it, and nothing is sent
    with pytest.raises(NodeError) as caught:
        work(call)
    assert (caught.value.code, caught.value.is_transient, server.asked) == (LLM_FAILED, False, [])
    assert "llm-key" in caught.value.message
    # AND one that may be sent nowhere, or elsewhere, is not sent here: whoever edits flows gets no secret out of them
    for elsewhere in ([], ["api.example.com"], ["127.0.0.1:1"]):
        put = deployment.client.put("/api/v1/apps/author/secrets/llm-key", {"value": KEY, "hosts": elsewhere})
        assert (put.status, put.json["hosts"]) == (200, elsewhere)
        with pytest.raises(NodeError, match=r"secret\.other_host") as refused:
            work(call)
        assert (refused.value.is_transient, server.asked) == (False, [])
    # AND where an admin has named the host, that key is sent, and told to nobody
    deployment.client.put("/api/v1/apps/author/secrets/llm-key", {"value": KEY, "hosts": [server.endpoint]})
    assert work(call).outputs["output"] == "fine"
    assert server.asked[0].header("Authorization") == f"Bearer {KEY}"
    logged = capsys.readouterr().out
    assert '"llm.chat"' in logged and KEY not in logged
    assert f'"app_id":{scope.caller.app_id}' in logged.replace(" ", "")


def test_the_webhook_secret_is_no_key(deployment: Deployment, server: ModelServer) -> None:
    made = deployment.client.post("/api/v1/apps/author/webhook-secret", {})
    assert made.json["secret"].startswith("whsec_")
    scope = replace(SCOPE, caller=caller_of("caller"), author=caller_of("author"))
    call = replace(llm_call({"url": server.url, "model": "m", "credential": "$webhook"}), scope=scope)
    with pytest.raises(NodeError, match="has no secret named"):
        model_nodes(model_services())["llm"](call)
    assert server.asked == []


def test_a_deployment_without_a_model_says_so(deployment: Deployment) -> None:
    with pytest.raises(NodeError, match="No language model is configured") as caught:
        model_nodes(model_services())["llm"](llm_call({}))
    assert not caught.value.is_transient
