"""Sending a bound request, and what becomes of each answer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.client import OutResponse
from chalicelib.tools import calling
from chalicelib.tools.binding.arguments import Arguments
from chalicelib.tools.binding.request import bind
from chalicelib.tools.calling import Options, ReadyCall, ToolAnswer
from chalicelib.tools.openapi.operation import Requirement, SecurityScheme
from chalicelib.tools.tokens import Tokens
from tests.fakes.outbound import FakeHttp, answered
from tests.unit.tools.binding import operations

NUMBER = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
LOGIN = SecurityScheme("login", "oauth2_client_credentials", token_url="https://login.example/token")
SCHEMES = (
    SecurityScheme("header", "apiKey", "header", "X-Key"),
    SecurityScheme("query", "apiKey", "query", "key"),
    SecurityScheme("cookie", "apiKey", "cookie", "session"),
)


def call(
    http: FakeHttp,
    *schemes: SecurityScheme,
    options: Options | None = None,
    tokens: Tokens | None = None,
    method: str = "GET",
) -> ToolAnswer:
    plan = operations.plan(
        method=method,
        responses=(operations.answer(NUMBER),),
        security=(Requirement(tuple((scheme, ()) for scheme in schemes)),) if schemes else (),
    )
    stored = {"clientId": "a", "clientSecret": "b", "value": "s3cret"}
    ready = ReadyCall(
        plan, bind(plan, Arguments()), lambda scheme, url: stored, ("11", "tool@1"), options or Options()
    )
    return calling.call(cast(AppHttp, http), tokens or Tokens(), ready)


def test_a_good_answer() -> None:
    http = FakeHttp([answered({"n": 1}, headers=(("x-a", "1"), ("x-a", "2")), duration_ms=7)])
    assert call(http, options=Options(timeout_ms=1500)).as_dict() == {
        "status": 200, "headers": {"content-type": "application/json", "x-a": "1, 2"}, "body": {"n": 1},
        "durationMs": 7.0, "violations": [], "repaired": [],
    }  # fmt: skip
    [asked] = http.asked
    assert (asked.method, asked.url, asked.body) == ("GET", "https://api.example.com/v1/things", None)
    assert asked.retries == calling.RETRIES
    assert asked.timeout_s == pytest.approx(1.5, abs=0.1)


def test_credentials_are_added_where_their_schemes_say() -> None:
    http = FakeHttp([answered({"n": 1})])
    call(http, *SCHEMES)
    [asked] = http.asked
    assert asked.url.endswith("/things?key=s3cret")
    assert (asked.headers["X-Key"], asked.headers["Cookie"]) == ("s3cret", "session=s3cret")


def token(text: str) -> OutResponse:
    return answered({"access_token": text, "token_type": "bearer", "expires_in": 3600})


def test_a_token_from_memory_that_was_withdrawn_is_asked_for_once_more() -> None:
    tokens = Tokens()
    call(FakeHttp([token("old"), answered({"n": 1})]), LOGIN, tokens=tokens)
    http = FakeHttp([answered(None, 401), token("new"), answered({"n": 2})])
    assert call(http, LOGIN, tokens=tokens).checked.body == {"n": 2}
    sent = [asked.headers.get("Authorization") for asked in http.asked]
    assert (sent[0], sent[2]) == ("Bearer old", "Bearer new")


def test_a_new_token_that_is_refused_is_not_asked_for_again() -> None:
    http = FakeHttp([token("new"), answered({"why": "no"}, 401), AssertionError("asked once more")])
    with pytest.raises(UpstreamFailed) as refused:
        call(http, LOGIN)
    assert refused.value.extensions["upstream"]["status"] == 401
    assert len(http.asked) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 404, 418, 500, 503])
def test_any_other_status_is_told_with_what_was_said(status: int) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        call(FakeHttp([answered({"why": "no"}, status)]))
    assert refused.value.code == "tool.upstream_error"
    assert refused.value.extensions["upstream"] == {
        "status": status, "headers": {"content-type": "application/json"}, "body": {"why": "no"},
        "truncated": False,
    }  # fmt: skip


def test_an_errors_long_body_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "MAX_ERROR_BYTES", 10)
    with pytest.raises(UpstreamFailed) as refused:
        call(FakeHttp([answered({"why": "no" * 10}, 500)]))
    upstream = refused.value.extensions["upstream"]
    assert (upstream["body"], upstream["truncated"]) == (None, True)


@pytest.mark.parametrize(
    ("body", "options", "found"),
    [
        ({"n": "x"}, Options(), "tool.invalid_answer"),
        ({"n": None}, Options(), "tool.invalid_answer"),
        ({"n": "x"}, Options(strict=False), ({"n": "x"}, 1, [])),
        ({"n": None}, Options(repair_nulls=True), ({"n": 0}, 0, ["/body/n"])),
    ],
)
def test_an_answer_that_the_document_does_not_describe(body: Any, options: Options, found: Any) -> None:
    if isinstance(found, str):
        with pytest.raises(UpstreamFailed) as refused:
            call(FakeHttp([answered(body)]), options=options)
        assert refused.value.code == found
        return
    told = call(FakeHttp([answered(body)]), options=options).as_dict()
    assert (told["body"], len(told["violations"]), told["repaired"]) == found


def test_an_answer_must_fit_into_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"n": 1, "text": "a" * 100}
    monkeypatch.setattr(calling, "MAX_ANSWER_BYTES", 300)
    call(FakeHttp([answered(answer)]))
    monkeypatch.setattr(calling, "MAX_ANSWER_BYTES", 100)
    with pytest.raises(UpstreamFailed) as refused:
        call(FakeHttp([answered(answer)]))
    assert refused.value.code == "tool.answer_too_large"


def test_what_the_outbound_client_raises_is_passed_on() -> None:
    with pytest.raises(UpstreamTimeout):
        call(FakeHttp([UpstreamTimeout("late")]))
