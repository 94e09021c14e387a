from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.core import steps, telemetry
from chalicelib.core.errors import Conflict


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    telemetry.flush()
    yield
    telemetry.flush()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON lines written since the last call."""
    capsys.readouterr()
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_line_with_a_stable_name(lines: Any) -> None:
    telemetry.event("plugin.installed", plugin_id="plugin_x_1", size=3)
    (line,) = lines()
    assert (line["message"], line["level"]) == ("plugin.installed", "INFO")
    assert (line["plugin_id"], line["size"]) == ("plugin_x_1", 3)
    assert line["timestamp"].endswith("+00:00")


def test_bound_fields_are_on_every_line_until_the_invocation_ends(lines: Any) -> None:
    telemetry.bind(request_id="r1")
    telemetry.bind(app="acme")
    telemetry.event("one")
    telemetry.flush()
    telemetry.event("two")
    one, two = lines()
    assert (one["request_id"], one["app"]) == ("r1", "acme")
    # A warm environment must not give one tenant's lines the next tenant's name.
    assert "request_id" not in two and "app" not in two


def test_a_field_may_have_a_name_that_logging_has_taken(lines: Any) -> None:
    telemetry.event("plugin.installed", name="notify", message="m", args=1)
    (line,) = lines()
    assert line["message"] == "plugin.installed"
    assert (line["name_"], line["message_"], line["args_"]) == ("notify", "m", 1)


SENSITIVE = [
    "secret", "api_secret", "apiSecret", "apisecret", "secretHash", "token", "accessToken", "token_type",
    "password", "dbPassword", "Authorization", "apikey", "apiKey", "api_key", "x-api-key", "X-API-KEY",
    "APIKey", "params", "plugin_params", "config", "defaultConfig", "body", "requestBody",
    "payload", "credentials",
]  # fmt: skip
HARMLESS = [
    "config_id", "configId", "params_schema", "payload_bytes", "bodySize", "promptTokens", "plugin_id",
    "credential_id", "key", "api", "tokenizer", "", "name",
]  # fmt: skip


@pytest.mark.parametrize("name", SENSITIVE)
def test_secrets_and_payloads_are_never_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.event("x", **{name: "hunter2"})
    telemetry.event("x", outer={"inner": [{name: {"deep": "hunter2"}}]})
    telemetry.bind(**{name: "hunter2"})
    telemetry.event("x")
    with telemetry.operation("x", **{name: "hunter2"}) as op:
        op.note(again={name: "hunter2"})
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert out.count(telemetry.REDACTED) >= 5


@pytest.mark.parametrize("name", HARMLESS)
def test_ids_and_sizes_are_written(name: str) -> None:
    assert telemetry.redact({name: "shown"}) == {name: "shown"}


def test_values_are_bounded_and_plain() -> None:
    class Holder:
        def __repr__(self) -> str:
            return "hunter2"

    shown = telemetry.redact(
        {
            "text": "x" * 5_000,
            "items": list(range(1_000)),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "holder": Holder(),
            "bytes": b"hunter2",
            "deep": {"a": {"a": {"a": {"a": {"a": 1}}}}},
            "none": None,
        }
    )
    assert len(shown["text"]) == telemetry.MAX_TEXT + 1
    assert len(shown["items"]) == telemetry.MAX_ITEMS
    assert shown["at"] == "2026-01-02T00:00:00+00:00"
    assert (shown["holder"], shown["bytes"], shown["none"]) == ("<Holder>", "<bytes>", None)
    assert "1" not in json.dumps(shown["deep"])


def test_an_operation_is_one_line_with_its_phases(lines: Any) -> None:
    with telemetry.operation("plugin.install", plugin_id="p") as op:
        for _ in range(2):
            with op.phase("store"):
                pass
        op.note(version="1.0.0")
    (line,) = lines()
    assert (line["message"], line["outcome"], line["plugin_id"]) == ("plugin.install", "success", "p")
    assert line["version"] == "1.0.0"
    assert 0 <= line["storeMs"] <= line["durationMs"]


def test_a_failed_operation_says_what_failed_and_keeps_its_phases(lines: Any) -> None:
    with pytest.raises(Conflict), telemetry.operation("plugin.install") as op, op.phase("lock"):
        raise Conflict("Taken.", code="plugin.already_installed")
    (line,) = lines()
    assert (line["outcome"], line["code"], line["errorType"]) == (
        "error", "plugin.already_installed", "Conflict",
    )  # fmt: skip
    assert "lockMs" in line


def test_the_text_of_an_unexpected_error_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), telemetry.operation("plugin.install"):
        raise KeyError("hunter2")
    try:
        try:
            raise ValueError("hunter2")
        except ValueError as cause:
            raise RuntimeError("hunter2") from cause
    except RuntimeError as error:
        telemetry.exception("request.crashed", error, route="GET /plugins")
    out = capsys.readouterr().out
    assert "hunter2" not in out
    crashed = json.loads(out.splitlines()[-1])
    assert (crashed["level"], crashed["errorType"], crashed["code"]) == ("ERROR", "RuntimeError", "internal")
    assert any("test_the_text_of_an_unexpected_error" in frame for frame in crashed["stack"])
    assert "ValueError" in crashed["stack"]


def test_steps_become_phases_of_the_running_operation(lines: Any) -> None:
    steps.declare("test.telemetry", ("download", "copy", "commit"))
    before = steps.observe(telemetry.on_step)
    try:
        with pytest.raises(OSError, match="gone"), telemetry.operation("plugin.install"):
            steps.step("test.telemetry", "download")
            steps.step("test.telemetry", "copy")
            raise OSError("gone")
        steps.step("test.telemetry", "commit")  # outside an operation: nothing to time
    finally:
        steps.observe(before)
    (line,) = lines()
    assert line["step"] == "copy"
    assert {"downloadMs", "copyMs"} <= line.keys()
    assert "commitMs" not in line


def test_an_inner_operation_gives_the_steps_back(lines: Any) -> None:
    with telemetry.operation("outer"):
        with telemetry.operation("inner"):
            telemetry.on_step("x", "a")
        telemetry.on_step("x", "b")
    inner, outer = lines()
    assert "aMs" in inner and "bMs" not in inner
    assert "bMs" in outer and "aMs" not in outer


def test_metrics_leave_as_one_line_at_the_end(lines: Any) -> None:
    telemetry.metric("Executions", 1)
    telemetry.metric("Executions", 1)
    telemetry.metric("LoadTime", 12.5, "Milliseconds")
    assert lines() == []
    telemetry.flush()
    (line,) = lines()
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Hotplug"
    assert directive["Metrics"] == [
        {"Name": "Executions", "Unit": "Count"},
        {"Name": "LoadTime", "Unit": "Milliseconds"},
    ]
    assert (line["Executions"], line["LoadTime"]) == ([1.0, 1.0], [12.5])
    telemetry.flush()
    assert lines() == []


def test_a_wrong_metric_is_reported_and_does_not_lose_the_others(lines: Any) -> None:
    telemetry.metric("Good", 1)
    telemetry.metric("Bad", 1, "Parsecs")
    telemetry.metric("Odd", "text")  # type: ignore[arg-type]
    telemetry.flush()
    refused_unit, refused_value, emf = lines()
    assert (refused_unit["message"], refused_unit["metric"]) == ("telemetry.metric_refused", "Bad")
    assert refused_value["metric"] == "Odd"
    assert emf["Good"] == [1.0] and "Bad" not in emf
    telemetry.metric("Next", 1)
    telemetry.flush()
    assert "Good" not in lines()[-1]


def test_very_many_metrics_do_not_wait_for_the_end(lines: Any) -> None:
    for number in range(telemetry.MAX_PENDING_METRICS + 5):
        telemetry.metric(f"M{number % 3}", 1)
    telemetry.flush()
    written = [value for line in lines() for name in ("M0", "M1", "M2") for value in line.get(name, [])]
    assert len(written) == telemetry.MAX_PENDING_METRICS + 5


def test_a_line_that_cannot_be_written_does_not_fail_the_caller(lines: Any) -> None:
    class Broken(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("hunter2")

    telemetry.event("x", field=Broken())
    (line,) = lines()
    assert line == {"level": "ERROR", "message": "telemetry.failed", "errorType": "RuntimeError"}


_COLD = """
import json, sys
from chalicelib.core import telemetry
before = "aws_lambda_powertools" in sys.modules
telemetry.bind(request_id="r")
telemetry.flush()
unused = "aws_lambda_powertools" in sys.modules
print(json.dumps({"imported": before or unused, "cold": telemetry.is_cold_start()}))
"""


def test_nothing_is_imported_until_there_is_something_to_say() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _COLD], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(run.stdout) == {"imported": False, "cold": False}


def test_the_first_invocation_of_a_process_is_the_cold_one() -> None:
    code = (
        "from chalicelib.core import telemetry as t; t.event('a'); t.metric('m', 1); t.flush();"
        "t.event('b'); t.metric('m', 1); t.flush()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(line)["coldStart"] for line in run.stdout.splitlines()] == [True, True, False, False]
