"""What may be asked of a model, what is read from its answer, what a call costs, and what is told of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from chalicelib.core import process, telemetry
from chalicelib.core.errors import Conflict, Invalid, UpstreamFailed
from chalicelib.core.llm.answer import read_completion, read_reason
from chalicelib.core.llm.model import (
    DEFAULT_OPTIONS,
    ChatMessage,
    ChatOptions,
    Completion,
    Llm,
    MeteredLlm,
    NoLlm,
    Usage,
)
from chalicelib.core.llm.report import ReportedLlm
from chalicelib.core.llm.request import check

HELLO = [ChatMessage("user", "hello")]
ANSWER = Completion("secret words", Usage(7, 5, 1), "m", "stop")


class Scripted:
    """A model that answers, or fails, as it was told."""

    configured = True

    def __init__(self, answer: Completion | Exception = ANSWER) -> None:
        self.answer = answer
        self.asked: list[tuple[Sequence[ChatMessage], ChatOptions]] = []

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        self.asked.append((messages, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


# -- what may be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "pointers"),
    [
        ([], ["/messages"]),
        ([ChatMessage("system", "x")], ["/messages"]),
        ([ChatMessage("tool", "x")], ["/messages/0/role"]),
        ([ChatMessage("user", "")], ["/messages/0/content"]),
        ([ChatMessage("user", "x"), ChatMessage("assistant", " \n")], ["/messages/1/content"]),
        ([ChatMessage("user", "a\ud800")], ["/messages/0/content"]),
        ([ChatMessage("User", "")], ["/messages/0/role", "/messages/0/content"]),
    ],
)
def test_messages_that_no_model_can_answer(messages: list[ChatMessage], pointers: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        check(messages, ChatOptions())
    assert caught.value.code == "llm.invalid_request"
    assert [one.pointer for one in caught.value.errors] == pointers


def test_the_size_of_a_prompt_is_bounded() -> None:
    half = ChatMessage("user", "x" * 500_000)
    check([half, half], ChatOptions())
    check([ChatMessage("user", "x")] * 1_000, ChatOptions())
    for messages in ([half, half, ChatMessage("user", "x")], [ChatMessage("user", "x")] * 1_001):
        with pytest.raises(Invalid) as caught:
            check(messages, ChatOptions())
        assert caught.value.code == "llm.prompt_too_large"


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE


@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        (ChatOptions(model=""), "/model"),
        (ChatOptions(model="m" * 257), "/model"),
        (ChatOptions(model="a\nb"), "/model"),
        (ChatOptions(max_tokens=0), "/maxTokens"),
        (ChatOptions(max_tokens=1_000_001), "/maxTokens"),
        (ChatOptions(temperature=-0.1), "/temperature"),
        (ChatOptions(temperature=2.1), "/temperature"),
        (ChatOptions(temperature=float("nan")), "/temperature"),
        (ChatOptions(top_k=0), "/topK"),
        (ChatOptions(top_k=1001), "/topK"),
        (ChatOptions(timeout_s=0), "/timeoutS"),
        (ChatOptions(timeout_s=301), "/timeoutS"),
        (ChatOptions(timeout_s=float("nan")), "/timeoutS"),
        (ChatOptions(extra={"stream": True}), "/extra/stream"),
        (ChatOptions(extra={"model": "dearer"}), "/extra/model"),
        (ChatOptions(extra={"x": float("inf")}), "/extra"),
        (ChatOptions(extra={"x": object()}), "/extra"),
        (ChatOptions(extra={"x": "\ud800"}), "/extra"),
        (ChatOptions(json_schema=CYCLE), "/extra"),
        (ChatOptions(json_schema={"x": "y" * 100_000}), "/extra"),
    ],
)
def test_options_that_are_refused(options: ChatOptions, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(HELLO, options)
    assert [one.pointer for one in caught.value.errors] == [pointer]


def test_options_at_their_limits() -> None:
    check(HELLO, ChatOptions("m" * 256, 1, 0, 1, {}, 300, {"max_completion_tokens": 1}))
    check(HELLO, ChatOptions("ü m/1:0", 1_000_000, 2, 1000, {"type": "object"}, 0.001))


# -- what is read -----------------------------------------------------------------------------------------------------


def answer_of(message: Any, **members: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], **members}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "x"}]}',
        b'{"choices": [{"message": {"content": "a", "content": "b"}}]}',
        answer_of({}),
        answer_of({"content": None}),
        answer_of({"content": 1}),
        answer_of({"content": {}}),
        answer_of({"content": []}),
        answer_of({"content": ["x"]}),
        answer_of({"content": [{"type": "text"}]}),
        answer_of({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": 1}]}),
        answer_of({"content": [{"type": "image_url", "text": "x"}]}),
        answer_of({"content": None, "tool_calls": [{}]}),
        answer_of({"content": "a\ud800"}),
    ],
)
def test_an_answer_that_cannot_be_read_in_one_way(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        read_completion(body, "m")
    assert caught.value.code == "llm.invalid_answer"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 10**9}, (1, 10**9)),
        ({"prompt_tokens": -1, "completion_tokens": 10**9 + 1}, (0, 0)),
        ({"prompt_tokens": True, "completion_tokens": 1.0}, (0, 0)),
        ({"prompt_tokens": "7"}, (0, 0)),
        ([7], (0, 0)),
    ],
)
def test_what_is_no_count_counts_nothing(usage: Any, counted: tuple[int, int]) -> None:
    found = read_completion(answer_of({"content": "x"}, usage=usage), "m").usage
    assert found == Usage(*counted, 1)


@pytest.mark.parametrize("told", [None, 3, "", "r" * 65])
def test_what_is_no_reason_to_end_is_unknown(told: Any) -> None:
    body = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": told}]}).encode()
    assert read_completion(body, "m").finish_reason == "unknown"


def test_a_model_that_only_thought_said_nothing() -> None:
    message = {"content": None, "reasoning": "hm"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode()
    assert read_completion(body, "m") == Completion("", Usage(0, 0, 1), "m", "length", "hm")


@pytest.mark.parametrize("named", ["", 3, "a\nb", "m" * 257])
def test_an_answers_model_is_a_name_or_the_one_that_was_asked(named: Any) -> None:
    assert read_completion(answer_of({"content": "x"}, model=named), "m").model == "m"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"code": "model_not_found"}}', "model_not_found"),
        (b'{"error": {"code": 404, "type": "invalid_request_error"}}', "invalid_request_error"),
        (b'{"error": {"code": "what you said", "type": null}}', None),
        (b'{"error": "x"}', None),
        (b"[]", None),
        (b"no", None),
    ],
)
def test_a_reason_is_a_known_word_or_nothing(body: bytes, reason: str | None) -> None:
    assert read_reason(body) == reason


# -- what it costs, and what is told ----------------------------------------------------------------------------------


def test_without_a_model_every_call_is_refused() -> None:
    llm: Llm = NoLlm()
    with pytest.raises(Conflict) as caught:
        llm.chat(HELLO)
    assert (llm.configured, caught.value.code) == (False, "llm.not_configured")
    assert (MeteredLlm(llm).configured, ReportedLlm(llm, 1, None).configured) == (False, False)


def test_a_meter_sums_up_what_was_answered() -> None:
    inner = Scripted()
    meter = MeteredLlm(inner)
    assert (meter.configured, meter.usage) == (True, Usage())
    options = ChatOptions(max_tokens=3)
    assert meter.chat(HELLO, options) is ANSWER
    meter.chat(HELLO)
    inner.answer = Conflict()
    with pytest.raises(Conflict):
        meter.chat(HELLO)
    assert meter.usage == Usage(14, 10, 2)
    assert meter.usage.as_dict() == {"inputTokens": 14, "outputTokens": 10, "totalTokens": 24, "calls": 2}
    assert inner.asked[0] == (HELLO, options)


def test_no_call_is_lost_between_threads() -> None:
    """The sum is slow here, so that two threads are inside it at once unless something keeps them apart."""
    inside = threading.Barrier(2)

    class Slow(Usage):
        def __radd__(self, other: Usage) -> Usage:
            try:
                inside.wait(0.2)
            except threading.BrokenBarrierError:
                pass  # nobody else came in: as it should be
            return Usage(other.input_tokens + 1, 0, other.calls + 1)

    meter = MeteredLlm(Scripted(Completion("x", Slow(1, 0, 1), "m", "stop")))
    threads = [threading.Thread(target=meter.chat, args=(HELLO,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.usage == Usage(2, 0, 2)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    telemetry.flush()
    capsys.readouterr()

    def written() -> list[dict[str, Any]]:
        telemetry.flush()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    yield written
    telemetry.flush()


def test_a_call_is_a_line_and_counts_without_a_word_of_it(lines: Any) -> None:
    llm = ReportedLlm(Scripted(), 7, "configured")
    assert llm.chat(HELLO) is ANSWER
    llm.chat(HELLO, ChatOptions(model="other"))
    first, second, metrics = lines()
    told = ("message", "app_id", "model", "inputTokens", "outputTokens", "finishReason", "outcome")
    assert [first[name] for name in told] == ["llm.chat", 7, "configured", 7, 5, "stop", "success"]
    assert (second["model"], first["durationMs"] >= 0) == ("other", True)
    assert [metrics[name] for name in ("llm.calls", "llm.tokens_in", "llm.tokens_out")] == [
        [1.0, 1.0],
        [7.0, 7.0],
        [5.0, 5.0],
    ]
    assert "llm.failures" not in metrics
    assert "hello" not in str((first, second)) and "secret words" not in str((first, second))


def test_a_failed_call_is_told_by_its_code(lines: Any) -> None:
    with pytest.raises(UpstreamFailed):
        ReportedLlm(Scripted(UpstreamFailed("no", code="llm.failed")), 7, "m").chat(HELLO)
    with pytest.raises(RuntimeError):
        ReportedLlm(Scripted(RuntimeError("hello")), 7, "m").chat(HELLO)
    first, second, metrics = lines()
    assert (first["outcome"], first["code"], second["code"]) == ("error", "llm.failed", "internal")
    assert (metrics["llm.calls"], metrics["llm.failures"]) == ([1.0, 1.0], [1.0, 1.0])
    assert "hello" not in str((first, second))


def test_a_process_without_settings_of_a_model_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", "sqlite:////tmp/unused.db")
    process.forget()
    try:
        assert process.llm(1).configured is False
        other = Scripted()
        process.use_llm(other)
        assert process.llm(1) is other
    finally:
        process.forget()
    assert process.llm(1) is not other
    process.forget()
