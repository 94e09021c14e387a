"""Bedrock's Converse on the wire: boto3 itself talks to a server of this machine that answers as Bedrock does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest

from chalicelib.core import guards, process, telemetry
from chalicelib.core.errors import HotplugError, Invalid, Unavailable, UpstreamFailed, UpstreamTimeout
from chalicelib.core.llm.bedrock import BedrockLlm, bedrock_client
from chalicelib.core.llm.model import ChatMessage, ChatOptions, Completion, Usage
from tests.conftest import create_schema
from tests.internet import Answer
from tests.ministack import client_environment
from tests.model_server import ModelServer, bedrock_failed, converse, hang_up, http, silence

MODEL = "eu.anthropic.claude-x-v1:0"
PROMPT = "a prompt that nobody else may read"
HELLO = [ChatMessage("user", PROMPT)]
SOON = ChatOptions(timeout_s=5)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in client_environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    yield


def model_of(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> BedrockLlm:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", server.origin)
    return BedrockLlm(bedrock_client, MODEL, sleep=lambda _: None)


def failure(llm: BedrockLlm, options: ChatOptions = SOON) -> HotplugError:
    with pytest.raises(HotplugError) as caught:
        llm.chat(HELLO, options)
    return caught.value


SCHEMA = {"type": "object"}
USER = {"role": "user", "content": [{"text": PROMPT}]}
REQUESTS: list[tuple[list[ChatMessage], ChatOptions, dict[str, Any]]] = [
    (HELLO, ChatOptions(), {"messages": [USER], "inferenceConfig": {"maxTokens": 2048}}),
    (
        HELLO,
        ChatOptions(max_tokens=9, temperature=0.5, top_k=3, extra={"seed": 1}, json_schema=SCHEMA),
        {
            "messages": [USER],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5},
            "additionalModelRequestFields": {"top_k": 3, "seed": 1},
            "outputConfig": {
                "textFormat": {
                    "type": "json_schema",
                    "structure": {"jsonSchema": {"name": "answer", "schema": '{"type": "object"}'}},
                }
            },
        },
    ),
    # `{}` cannot be promised: nothing is asked for.
    (HELLO, ChatOptions(json_schema={}), {"messages": [USER], "inferenceConfig": {"maxTokens": 2048}}),
    (
        [
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "a"),
            ChatMessage("system", "Be kind."),
            ChatMessage("user", "b"),
            ChatMessage("assistant", "世界"),
            ChatMessage("user", "c"),
        ],
        ChatOptions(),
        {
            "system": [{"text": "Be brief."}, {"text": "Be kind."}],
            "messages": [
                {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
                {"role": "assistant", "content": [{"text": "世界"}]},
                {"role": "user", "content": [{"text": "c"}]},
            ],
            "inferenceConfig": {"maxTokens": 2048},
        },
    ),
]


@pytest.mark.parametrize(("messages", "options", "body"), REQUESTS)
def test_the_request_on_the_wire(
    messages: list[ChatMessage],
    options: ChatOptions,
    body: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ModelServer(converse("ok")) as server:
        model_of(server, monkeypatch).chat(messages, options)
        (asked,) = server.asked
    assert unquote(asked.line) == f"POST /model/{MODEL}/converse HTTP/1.1"
    assert asked.json == body
    assert "Signature=" in str(asked.header("Authorization"))


REASONED = {"reasoningContent": {"reasoningText": {"text": "because", "signature": "s"}}}
GOOD = [
    (converse("Hello"), Completion("Hello", Usage(7, 5, 1), MODEL, "stop")),
    (converse("a", "b", stop="stop_sequence"), Completion("ab", Usage(7, 5, 1), MODEL, "stop")),
    (converse("par", stop="max_tokens"), Completion("par", Usage(7, 5, 1), MODEL, "length")),
    (converse(REASONED, "x"), Completion("x", Usage(7, 5, 1), MODEL, "stop", "because")),
    (
        converse(REASONED, stop="max_tokens"),
        Completion("", Usage(7, 5, 1), MODEL, "length", "because"),
    ),
    (converse("x", usage={}), Completion("x", Usage(0, 0, 1), MODEL, "stop")),
    (
        converse("x", stop="model_context_window_exceeded"),
        Completion("x", Usage(7, 5, 1), MODEL, "model_context_window_exceeded"),
    ),
]


@pytest.mark.parametrize(("answer", "expected"), GOOD)
def test_an_answer_becomes_a_completion(
    answer: bytes, expected: Completion, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer(answer) as server:
        assert model_of(server, monkeypatch).chat(HELLO) == expected


BAD: list[tuple[Answer, type[HotplugError], str, int | None, int]] = [
    # the answer, the error, its code, upstream.status, how often it arrives
    (bedrock_failed(429, "ThrottlingException"), Unavailable, "llm.unavailable", 429, 3),
    (bedrock_failed(429, "ModelNotReadyException"), Unavailable, "llm.unavailable", 429, 3),
    (bedrock_failed(503, "ServiceUnavailableException"), Unavailable, "llm.unavailable", 503, 3),
    (bedrock_failed(500, "InternalServerException"), Unavailable, "llm.unavailable", 500, 3),
    (hang_up, Unavailable, "llm.unavailable", None, 3),
    (bedrock_failed(408, "ModelTimeoutException"), UpstreamTimeout, "llm.timeout", None, 1),
    (bedrock_failed(403, "AccessDeniedException", PROMPT), UpstreamFailed, "llm.failed", 403, 1),
    (bedrock_failed(400, "ValidationException", PROMPT), UpstreamFailed, "llm.failed", 400, 1),
    (bedrock_failed(404, "ResourceNotFoundException"), UpstreamFailed, "llm.failed", 404, 1),
    (bedrock_failed(424, "ModelErrorException"), UpstreamFailed, "llm.failed", 424, 1),
    (converse("x", stop="guardrail_intervened"), UpstreamFailed, "llm.refused", None, 1),
    (converse("x", stop="content_filtered"), UpstreamFailed, "llm.refused", None, 1),
    (converse(stop="tool_use"), UpstreamFailed, "llm.invalid_answer", None, 1),
    (http(b"{}"), UpstreamFailed, "llm.invalid_answer", None, 1),
    (http(b"<html></html>"), UpstreamFailed, "llm.invalid_answer", None, 1),
]


@pytest.mark.parametrize(("answer", "kind", "code", "status", "arrivals"), BAD)
def test_a_failure_is_told_by_its_kind(
    answer: Answer,
    kind: type[HotplugError],
    code: str,
    status: int | None,
    arrivals: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ModelServer(answer) as server:
        error = failure(model_of(server, monkeypatch))
        assert len(server.asked) == arrivals
    assert (type(error), error.code) == (kind, code)
    assert error.extensions.get("upstream", {}).get("status") == status
    assert (error.retry_after is not None) == (kind is Unavailable)
    telemetry.exception("request.failed", error)
    assert PROMPT not in repr(vars(error)) + str(error) + capsys.readouterr().out


def test_a_passing_failure_is_repeated_until_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(bedrock_failed(429, "ThrottlingException"), hang_up, converse("at last")) as server:
        assert model_of(server, monkeypatch).chat(HELLO).text == "at last"
        assert len({asked.body for asked in server.asked}) == 1
        assert len(server.asked) == 3


def test_silence_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(silence) as server:
        error = failure(model_of(server, monkeypatch), ChatOptions(timeout_s=0.5))
        assert (type(error), error.code, len(server.asked)) == (UpstreamTimeout, "llm.timeout", 1)


def test_each_attempt_waits_no_longer_than_what_is_left() -> None:
    waits: list[int] = []

    def none(seconds: int) -> Any:
        waits.append(seconds)
        raise _no_credentials()

    error = failure(BedrockLlm(none, MODEL), ChatOptions(timeout_s=7))
    assert (type(error), error.code, waits) == (UpstreamFailed, "llm.failed", [7])


def _no_credentials() -> Exception:
    from botocore.exceptions import NoCredentialsError

    return NoCredentialsError()


def test_nothing_is_asked_inside_a_unit_of_work_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer(converse("ok")) as server:
        llm = model_of(server, monkeypatch)
        with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
            llm.chat(HELLO)
        with pytest.raises(Invalid):
            llm.chat([ChatMessage("user", " ")])
        assert server.asked == []


def test_the_deployment_has_the_model_of_its_settings(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_schema(sqlite_url).close()
    with ModelServer(converse("hi")) as server:
        values = {
            "HOTPLUG_DATABASE_URL": sqlite_url,
            "HOTPLUG_LLM_PROVIDER": "bedrock",
            "HOTPLUG_LLM_MODEL": MODEL,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.origin,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        process.forget()
        try:
            assert process.llm(7).chat(HELLO).text == "hi"
            assert process.llm(8).chat(HELLO, ChatOptions(model="other")).text == "hi"
        finally:
            process.forget()
        lines = [unquote(asked.line) for asked in server.asked]
    assert lines == [f"POST /model/{name}/converse HTTP/1.1" for name in (MODEL, "other")]
    assert json.loads(server.asked[0].body)["messages"] == [USER]


def test_threads_make_no_two_clients_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # boto3's default session, of which clients are made, is not for several threads.
    making: list[int] = []
    at_once: list[int] = []

    def client(*_: Any, **__: Any) -> object:
        making.append(1)
        at_once.append(len(making))
        time.sleep(0.02)
        making.pop()
        return object()

    monkeypatch.setattr("boto3.client", client)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bedrock_client, range(8)))
    assert at_once == [1] * 8
