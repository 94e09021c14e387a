"""Chat completions on the wire: what arrives at a real server, and what becomes of each of its answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.core import guards, process, telemetry
from chalicelib.core.errors import (
    Conflict,
    HotplugError,
    Invalid,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from chalicelib.core.llm.model import ChatMessage, ChatOptions, Completion, Usage
from chalicelib.core.llm.openai import OpenAiLlm
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.circuit import Policy
from chalicelib.core.outbound.client import HttpOut
from tests.conftest import create_schema
from tests.fakes.circuits import MemoryCircuits
from tests.internet import Answer, Authority, Internet, client, redirect
from tests.model_server import (
    MODEL,
    ModelServer,
    after,
    completion,
    echoing,
    failed,
    hang_up,
    http,
    said,
    silence,
    trickling,
)

KEY = "sk-Zq7~never/shown+anywhere="
PROMPT = "a prompt that nobody else may read"
HELLO = [ChatMessage("user", PROMPT)]
SOON = ChatOptions(timeout_s=5)


@contextmanager
def serving(*answers: Answer, **options: Any) -> Iterator[tuple[ModelServer, OpenAiLlm]]:
    """Serve these answers, the last one for ever, to a model's client that does not rest between its retries."""
    with ModelServer(*answers) as server:
        out = HttpOut(private_endpoints=[server.endpoint], **{"sleep": lambda _: None, **options})
        yield server, OpenAiLlm(out, server.url, "configured", lambda: KEY)


def failure(llm: OpenAiLlm, options: ChatOptions = SOON) -> HotplugError:
    with pytest.raises(HotplugError) as caught:
        llm.chat(HELLO, options)
    return caught.value


# -- what arrives -----------------------------------------------------------------------------------------------------

CONVERSATION = [
    ChatMessage("system", "Be brief."),
    ChatMessage("user", 'Grüße, "世界" \U0001f600\n'),
    ChatMessage("assistant", "Hi\x00"),
    ChatMessage("user", "Bye"),
]
MESSAGES = (
    '[{"role":"system","content":"Be brief."},{"role":"user","content":"Grüße, \\"世界\\" \U0001f600\\n"},'
    '{"role":"assistant","content":"Hi\\u0000"},{"role":"user","content":"Bye"}]'
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
REQUESTS = [
    (ChatOptions(), '"max_tokens":2048,"stream":false'),
    (
        ChatOptions(max_tokens=9, temperature=0.0, top_k=3),
        '"max_tokens":9,"temperature":0.0,"top_k":3,"stream":false',
    ),
    (
        ChatOptions(json_schema={}),
        '"max_tokens":2048,"response_format":{"type":"json_object"},"stream":false',
    ),
    (
        ChatOptions(json_schema=SCHEMA),
        '"max_tokens":2048,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":'
        '{"type":"object","properties":{"a":{"type":"integer"}}}}},"stream":false',
    ),
    (
        ChatOptions(extra={"max_completion_tokens": 8, "seed": 1}),
        '"stream":false,"max_completion_tokens":8,"seed":1',
    ),
    (ChatOptions(extra={"top_p": 0.5}), '"max_tokens":2048,"stream":false,"top_p":0.5'),
]


@pytest.mark.parametrize(("options", "rest"), REQUESTS)
def test_the_request_on_the_wire(options: ChatOptions, rest: str) -> None:
    with serving(said("ok")) as (server, llm):
        llm.chat(CONVERSATION, options)
        (asked,) = server.asked
    body = f'{{"model":"configured","messages":{MESSAGES},{rest}}}'.encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {server.endpoint}\r\nAccept-Encoding: gzip\r\n"
        f"Connection: close\r\nUser-Agent: hotplug/0.1.0\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAccept: application/json\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    )
    assert asked.raw == head.encode() + body


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("/", "/chat/completions"),
        ("/openai/deployments/d?api-version=1", "/openai/deployments/d/chat/completions?api-version=1"),
        ("?a=/b/", "/chat/completions?a=/b/"),
    ],
)
def test_the_path_is_appended_to_the_base(base: str, line: str) -> None:
    with serving(said("ok")) as (server, _):
        out = HttpOut(private_endpoints=[server.endpoint])
        OpenAiLlm(out, server.origin + base, "m", lambda: None).chat(HELLO)
        (asked,) = server.asked
    assert asked.line == f"POST {line} HTTP/1.1"


def test_without_a_key_nothing_claims_to_be_one() -> None:
    with serving(said("ok")) as (server, _):
        out = HttpOut(private_endpoints=[server.endpoint])
        OpenAiLlm(out, server.url, "m", lambda: None).chat(HELLO)
        (asked,) = server.asked
    assert asked.header("Authorization") is None


def test_a_changed_key_holds_from_the_next_call_on() -> None:
    keys = ["one", "two"]
    with serving(said("ok")) as (server, _):
        out = HttpOut(private_endpoints=[server.endpoint])
        llm = OpenAiLlm(out, server.url, "m", lambda: keys.pop(0))
        for _ in range(2):
            llm.chat(HELLO)
        assert [asked.header("Authorization") for asked in server.asked] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: y", "ä", "a" * 4097])
def test_a_key_that_cannot_be_sent_is_not(key: str) -> None:
    with serving(said("ok")) as (server, _):
        llm = OpenAiLlm(HttpOut(private_endpoints=[server.endpoint]), server.url, "m", lambda: key)
        error = failure(llm)
        assert server.asked == []
    assert (type(error), error.code, key and key in str(error)) == (Invalid, "llm.invalid_key", key and False)


def test_a_call_names_its_model_or_takes_the_configured_one() -> None:
    with serving(said("ok")) as (server, llm):
        llm.chat(HELLO, ChatOptions(model="other"))
        llm.chat(HELLO)
        assert [asked.json["model"] for asked in server.asked] == ["other", "configured"]
        nameless = OpenAiLlm(HttpOut(private_endpoints=[server.endpoint]), server.url, None, lambda: KEY)
        nameless.chat(HELLO, ChatOptions(model="m"))
        error = failure(nameless)
        assert (type(error), error.code, len(server.asked)) == (Conflict, "llm.not_configured", 3)


def test_what_is_refused_is_not_sent() -> None:
    with serving(said("ok")) as (server, llm):
        for messages in ([], [ChatMessage("tool", "x")], [ChatMessage("user", "x" * 1_000_001)]):
            with pytest.raises(Invalid):
                llm.chat(messages)
        assert server.asked == []


def test_nothing_is_asked_inside_a_unit_of_work() -> None:
    with serving(said("ok")) as (server, _):
        asked_for_key: list[int] = []
        llm = OpenAiLlm(
            HttpOut(private_endpoints=[server.endpoint]), server.url, "m", lambda: asked_for_key.append(1)
        )  # type: ignore[arg-type,return-value]
        with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
            llm.chat(HELLO)
        assert (server.asked, asked_for_key) == ([], [])


# -- what is answered -------------------------------------------------------------------------------------------------

ASSISTANT = {"role": "assistant"}
GOOD = [
    (said("Hello"), Completion("Hello", Usage(7, 5, 1), MODEL, "stop")),
    (said(""), Completion("", Usage(7, 5, 1), MODEL, "stop")),
    (said("x", usage=...), Completion("x", Usage(0, 0, 1), MODEL, "stop")),
    (said("x", usage=None), Completion("x", Usage(0, 0, 1), MODEL, "stop")),
    (said("x", model=...), Completion("x", Usage(7, 5, 1), "configured", "stop")),
    (said("x", finish_reason="length"), Completion("x", Usage(7, 5, 1), MODEL, "length")),
    (
        completion(ASSISTANT | {"content": "x", "reasoning_content": "because", "refusal": None}),
        Completion("x", Usage(7, 5, 1), MODEL, "stop", "because"),
    ),
    (
        completion(ASSISTANT | {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
        Completion("ab", Usage(7, 5, 1), MODEL, "stop"),
    ),
]


@pytest.mark.parametrize(("answer", "expected"), GOOD)
def test_an_answer_becomes_a_completion(answer: bytes, expected: Completion) -> None:
    with serving(answer) as (server, llm):
        assert llm.chat(HELLO) == expected
        assert len(server.asked) == 1


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\r\n"
BAD: list[tuple[str, Answer, type[HotplugError], str, int | None, int]] = [
    # what it does, the answer, the error, its code, upstream.status, how often it arrives
    ("401", failed(401, "invalid_api_key"), UpstreamFailed, "llm.failed", 401, 1),
    ("403", failed(403), UpstreamFailed, "llm.failed", 403, 1),
    ("400", failed(400, "context_length_exceeded"), UpstreamFailed, "llm.failed", 400, 1),
    ("404", http(b"<html>no</html>", 404), UpstreamFailed, "llm.failed", 404, 1),
    ("302", redirect(302, "/v2"), UpstreamFailed, "llm.failed", 302, 1),
    ("429", failed(429), Unavailable, "llm.unavailable", 429, 3),
    ("500", failed(500), Unavailable, "llm.unavailable", 500, 3),
    ("502", http(b"", 502), Unavailable, "llm.unavailable", 502, 3),
    ("503", failed(503), Unavailable, "llm.unavailable", 503, 3),
    ("504", failed(504), Unavailable, "llm.unavailable", 504, 3),
    ("529", failed(529), Unavailable, "llm.unavailable", 529, 1),
    ("hangs up", hang_up, Unavailable, "llm.unavailable", None, 3),
    ("no HTTP", b"SSH-2.0-x\r\n\r\n", Unavailable, "llm.unavailable", None, 3),
    ("ends early", said("x")[:-9], Unavailable, "llm.unavailable", None, 3),
    ("bad chunk", CHUNKED, Unavailable, "llm.unavailable", None, 3),
    ("202", http(b"{}", 202), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("204", http(b"", 204), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("empty", http(b""), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("a page", http(b"<html></html>"), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("an event stream", http(b"data: {}\n\ndata: [DONE]\n\n"), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("an error as 200", http(b'{"error": {"message": "x"}}'), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("too large", http(b" " * (5 * 1024 * 1024 + 1)), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("too deep", http(b"[" * 100_000), UpstreamFailed, "llm.invalid_answer", None, 1),
    ("refuses", completion(ASSISTANT | {"refusal": "I cannot"}), UpstreamFailed, "llm.refused", None, 1),
    ("is filtered", said("par", finish_reason="content_filter"), UpstreamFailed, "llm.refused", None, 1),
]


@pytest.mark.parametrize(
    ("answer", "kind", "code", "status", "arrivals"),
    [case[1:] for case in BAD],
    ids=[case[0] for case in BAD],
)
def test_a_failure_is_told_by_its_kind(
    answer: Answer, kind: type[HotplugError], code: str, status: int | None, arrivals: int
) -> None:
    with serving(answer) as (server, llm):
        error = failure(llm)
        assert len(server.asked) == arrivals
    assert (type(error), error.code) == (kind, code)
    assert error.extensions.get("upstream", {}).get("status") == status
    assert (error.retry_after is not None) == (kind is Unavailable)


def test_a_known_reason_is_told_and_nothing_else_of_the_answer() -> None:
    with serving(failed(400, "context_length_exceeded"), failed(400, PROMPT)) as (_, llm):
        known, unknown = failure(llm), failure(llm)
    assert known.extensions == {"upstream": {"status": 400, "reason": "context_length_exceeded"}}
    assert unknown.extensions == {"upstream": {"status": 400}}


def test_a_passing_failure_is_repeated_until_it_has_passed() -> None:
    with serving(failed(429), hang_up, said("at last")) as (server, llm):
        assert llm.chat(HELLO).text == "at last"
        first, *others = server.asked
        assert [asked.raw for asked in others] == [first.raw] * 2


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "arrivals"),
    [
        ([silence], 1),
        ([trickling(said("x" * 500), 0.01)], 1),
        ([failed(503), silence], 2),
        ([hang_up, silence], 2),
    ],
    ids=["silent", "trickling", "busy, then silent", "hangs up, then silent"],
)
def test_all_attempts_share_one_deadline(answers: list[Answer], arrivals: int) -> None:
    with serving(*answers) as (server, llm):
        error = failure(llm, ChatOptions(timeout_s=0.4))
        assert (type(error), error.code) == (UpstreamTimeout, "llm.timeout")
        assert len(server.asked) == arrivals


def test_a_model_may_think_longer_than_other_servers() -> None:
    with ModelServer(after(0.4, said("thought"))) as server:
        impatient = HttpOut(private_endpoints=[server.endpoint], read_timeout_s=0.1, total_timeout_s=0.2)
        llm = OpenAiLlm(impatient.patient(60), server.url, "m", lambda: None)
        assert llm.chat(HELLO, ChatOptions(timeout_s=30)).text == "thought"
        short = OpenAiLlm(impatient, server.url, "m", lambda: None)
        assert failure(short, ChatOptions(timeout_s=30)).code == "llm.timeout"


def test_retry_after_is_waited_for_if_that_is_in_time() -> None:
    slept: list[float] = []
    with serving(failed(429, Retry_After="3"), said("ok"), sleep=slept.append) as (server, llm):
        assert llm.chat(HELLO, ChatOptions(timeout_s=20)).text == "ok"
        assert (slept, len(server.asked)) == ([3.0], 2)


def test_retry_after_beyond_the_deadline_is_passed_on() -> None:
    slept: list[float] = []
    with serving(failed(503, Retry_After="90"), sleep=slept.append) as (server, llm):
        error = failure(llm, ChatOptions(timeout_s=20))
        assert (error.code, error.retry_after, slept, len(server.asked)) == ("llm.unavailable", 90, [], 1)


@pytest.mark.parametrize(("told", "passed_on"), [("999999", 3600), ("0", 1), ("soon", 2)])
def test_what_is_passed_on_is_bounded(told: str, passed_on: int) -> None:
    with serving(failed(529, Retry_After=told)) as (_, llm):
        assert failure(llm).retry_after == passed_on


# -- the key, and what was said ---------------------------------------------------------------------------------------


def test_neither_key_nor_prompt_is_ever_told(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[str] = []
    answers = [echoing(status) for status in (400, 401, 429, 500)]
    quoting = http(json.dumps({"choices": [{"message": {"content": 3, "said": [KEY, PROMPT]}}]}).encode())
    declining = completion(ASSISTANT | {"refusal": f"{KEY} {PROMPT}"})
    for answer in (*answers, quoting, declining, b"HTTP/1.1 " + PROMPT.encode() + b"\r\n\r\n", hang_up):
        with serving(answer) as (server, llm):
            error = failure(llm)
            assert KEY.encode() in server.asked[0].raw and PROMPT.encode() in server.asked[0].raw
            found += [repr(llm), repr(error), str(error), repr(vars(error))]
            # The cause may be an HTTP parser's error that quotes what it could not read: no log line has its text.
            telemetry.exception("request.failed", error)
    logged = capsys.readouterr().out
    assert logged.count("request.failed") == 8
    found.append(logged)
    assert [text for text in found if KEY in text or PROMPT in text] == []


def test_a_redirect_takes_the_key_nowhere() -> None:
    with ModelServer(said("mine now")) as thief:
        for status in (301, 302, 303, 307, 308):
            with ModelServer(redirect(status, thief.url + "/chat/completions")) as server:
                out = HttpOut(private_endpoints=[server.endpoint, thief.endpoint])
                error = failure(OpenAiLlm(out, server.url, "m", lambda: KEY))
                assert (error.code, error.extensions) == ("llm.failed", {"upstream": {"status": status}})
        assert thief.asked == []


def test_a_server_with_another_certificate_gets_nothing(internet: Internet, authority: Authority) -> None:
    server = internet.serve("llm.example", 443, said("ok"), tls=authority.server(["other.example"], []))
    out = client(internet, tls_context=authority.trusted())
    error = failure(OpenAiLlm(out, "https://llm.example/v1", "m", lambda: KEY))
    assert (error.code, error.extensions, server.requests) == ("llm.failed", {}, [])


# -- the breaker ------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_an_endpoint_that_keeps_failing_an_app_is_left_alone_by_that_app() -> None:
    clock = Clock()
    breaker = Breaker(MemoryCircuits(), "me", Policy(failures=2, cool_down_s=30), now=clock)
    with ModelServer(*[failed(503)] * 6, said("back")) as server:
        out = HttpOut(private_endpoints=[server.endpoint], sleep=lambda _: None)
        one, two = (OpenAiLlm(AppHttp(out, breaker, app), server.url, "m", lambda: KEY) for app in (1, 2))
        # GIVEN two calls that failed: the retries of each are one failure
        assert [failure(one).code for _ in range(2)] == ["llm.unavailable"] * 2
        assert len(server.asked) == 6
        # WHEN that app asks again THEN nothing arrives, and it is told when to come back
        refused = failure(one)
        assert (type(refused), refused.code, refused.retry_after) == (Unavailable, "llm.unavailable", 30)
        assert len(server.asked) == 6
        # AND another app's calls go on, and the first one's after a while
        assert two.chat(HELLO).text == "back"
        clock.now += timedelta(seconds=31)
        assert one.chat(HELLO).text == "back"
        assert len(server.asked) == 8


@pytest.mark.parametrize("answer", [failed(429), failed(400), failed(500), http(b"junk")])
def test_what_tells_of_no_failing_host_opens_nothing(answer: bytes) -> None:
    breaker = Breaker(MemoryCircuits(), "me", Policy(failures=1, cool_down_s=30))
    with ModelServer(answer) as server:
        out = HttpOut(private_endpoints=[server.endpoint], sleep=lambda _: None)
        llm = OpenAiLlm(AppHttp(out, breaker, 1), server.url, "m", lambda: KEY)
        codes = [failure(llm).code for _ in range(3)]
        assert codes == [codes[0]] * 3
        assert len(server.asked) in (3, 9)


# -- wired ------------------------------------------------------------------------------------------------------------


def test_the_deployment_has_the_model_of_its_settings(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_schema(sqlite_url).close()
    with ModelServer(said("hi")) as server:
        values = {
            "HOTPLUG_DATABASE_URL": sqlite_url,
            "HOTPLUG_PRIVATE_ENDPOINTS": server.endpoint,
            "HOTPLUG_LLM_URL": server.url,
            "HOTPLUG_LLM_MODEL": "of the deployment",
            "HOTPLUG_LLM_KEY": KEY,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        process.forget()
        try:
            llm = process.llm(7)
            assert llm.configured
            assert llm.chat(HELLO).text == "hi"
            own = process.llm_at(7, server.url, None, lambda: "another")
            assert own.chat(HELLO, ChatOptions(model="m")).text == "hi"
        finally:
            process.forget()
        told = [(asked.json["model"], asked.header("Authorization")) for asked in server.asked]
        assert told == [("of the deployment", f"Bearer {KEY}"), ("m", "Bearer another")]
    assert '"app_id":7' in capsys.readouterr().out.replace(" ", "")
