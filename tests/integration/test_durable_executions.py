"""Durable executions on the local stack: what has been done is not done again, whatever is killed in between."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.local import reaper
from infra.local.stack import LocalStack

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "durable_app"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


def probe(folder: Path) -> LocalStack:
    record = folder / "record"
    record.mkdir(exist_ok=True)
    return LocalStack(
        folder / "state", task_root=PROBE, environment={"PROBE_RECORD": str(record)}, schedules=False
    )


class World:
    """A stack, and what its executions leave behind."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self.stack = stack
        self.record = folder / "record"
        self.client = stack.client("lambda")

    def start(self, name: str, do: str, **more: Any) -> str:
        payload = json.dumps({"do": do, "id": name, **more})
        answer = self.client.invoke(
            FunctionName="run", InvocationType="Event", DurableExecutionName=name, Payload=payload
        )
        assert answer["StatusCode"] == 202
        return str(answer["DurableExecutionArn"])

    def execution(self, arn: str) -> dict[str, Any]:
        return dict(self.client.get_durable_execution(DurableExecutionArn=arn))

    def end(self, arn: str) -> dict[str, Any]:
        """Wait until an execution has ended."""

        def ended() -> dict[str, Any] | None:
            execution = self.execution(arn)
            return execution if execution["Status"] != "RUNNING" else None

        return dict(wait_for(ended, f"the end of {arn}"))

    def result(self, arn: str) -> Any:
        execution = self.end(arn)
        assert execution["Status"] == "SUCCEEDED", execution
        return json.loads(execution["Result"])

    def trace(self, name: str) -> list[str]:
        path = self.record / name / "trace"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def traced(self, name: str, lines: list[str]) -> None:
        wait_for(lambda: self.trace(name) == lines, f"{lines} in {name}")

    def callback(self, name: str) -> str:
        path = self.record / name / "callback"
        wait_for(path.exists, "the question")
        return path.read_text()

    def suspended(self, arn: str) -> None:
        """Wait until no process works."""
        self.at_work(0)
        assert self.execution(arn)["Status"] == "RUNNING"

    def at_work(self, number: int) -> None:
        """Wait until so many processes work."""
        wait_for(
            lambda: [e.state for e in self.stack.environments("run")].count("busy") == number,
            f"{number} at work",
        )

    def hold(self, name: str) -> Path:
        path = self.record / name / "hold"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("durable")


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    with probe(folder) as stack:
        made = World(stack, folder)
        with closing(made.client):
            yield made


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ClientError) as refused:
        call()
    answer = refused.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_a_process_killed_between_two_steps_is_replaced_and_the_first_is_not_done_again(world: World) -> None:
    hold = world.hold("killed")
    arn = world.start("killed", "steps")
    world.traced("killed", ["first", "second"])
    (busy,) = [environment for environment in world.stack.environments("run") if environment.state == "busy"]
    hold.unlink()
    world.stack.kill_environment(busy.pid)
    assert world.result(arn) == ["first", "second"]
    assert world.trace("killed") == ["first", "second", "second"]
    processes = {line.split()[1] for line in (world.record / "killed" / "trace").read_text().splitlines()}
    assert len(processes) == 2


def test_branches_run_in_parallel_and_give_their_results_in_order(world: World) -> None:
    assert world.result(world.start("branches", "parallel")) == ["a", "b", "c"]
    assert sorted(world.trace("branches")) == ["a", "b", "c"]


def test_a_question_is_answered_once(world: World) -> None:
    arn = world.start("asked", "ask")
    callback = world.callback("asked")
    world.suspended(arn)

    world.client.send_durable_execution_callback_heartbeat(CallbackId=callback)
    world.client.send_durable_execution_callback_success(CallbackId=callback, Result=b'"yes"')

    assert world.result(arn) == 'answered: "yes"'
    assert world.trace("asked") == ["before"]
    again = world.client.send_durable_execution_callback_success
    assert refusal(lambda: again(CallbackId=callback, Result=b'"no"'))[1] == "CallbackTimeoutException"
    assert refusal(lambda: again(CallbackId="bm9uc2Vuc2U=")) == (404, "ResourceNotFoundException")


def test_a_question_can_be_answered_with_an_error(world: World) -> None:
    arn = world.start("refused", "ask")
    callback = world.callback("refused")
    world.client.send_durable_execution_callback_failure(
        CallbackId=callback, Error={"ErrorType": "Refused", "ErrorMessage": "no"}
    )
    assert world.result(arn) == "failed: no"


def test_a_name_is_one_execution(world: World) -> None:
    arn = world.start("once", "parallel")
    assert arn.startswith(
        "arn:aws:lambda:us-east-1:000000000000:function:run:$LATEST/durable-execution/once/"
    )
    assert world.start("once", "parallel") == arn
    world.result(arn)
    assert world.start("once", "parallel") == arn
    assert len(world.trace("once")) == 3
    assert refusal(lambda: world.start("once", "steps")) == (409, "DurableExecutionAlreadyStartedException")
    listed = world.client.list_durable_executions_by_function(FunctionName="run", DurableExecutionName="once")
    assert [execution["DurableExecutionArn"] for execution in listed["DurableExecutions"]] == [arn]


def test_without_a_name_each_start_is_an_execution(world: World) -> None:
    payload = json.dumps({"do": "parallel", "id": "unnamed"})
    arns = [
        world.client.invoke(FunctionName="run:$LATEST", InvocationType="Event", Payload=payload)[
            "DurableExecutionArn"
        ]
        for _ in range(2)
    ]
    assert [world.result(arn) for arn in arns] == [["a", "b", "c"]] * 2
    assert len(world.trace("unnamed")) == 6


def test_an_execution_can_be_stopped(world: World) -> None:
    arn = world.start("stopped", "ask")
    callback = world.callback("stopped")
    world.suspended(arn)
    world.client.stop_durable_execution(
        DurableExecutionArn=arn, Error={"ErrorType": "Canceled", "ErrorMessage": "by the user"}
    )
    assert world.execution(arn)["Status"] == "STOPPED"
    answer = world.client.send_durable_execution_callback_success
    assert refusal(lambda: answer(CallbackId=callback, Result=b"1"))[1] == "CallbackTimeoutException"
    world.client.stop_durable_execution(DurableExecutionArn=arn)  # twice is once


def test_a_step_that_failed_is_tried_again_after_its_delay(world: World) -> None:
    assert world.result(world.start("flaky", "retry")) == 2
    first, second = (float(moment) for moment in world.trace("flaky"))
    assert second - first >= 1


def test_a_question_that_nobody_answers_times_out(world: World) -> None:
    assert world.result(world.start("expired", "expire", seconds=1)) == "failed: Callback timed out"


def test_a_result_over_256_kilobytes_fails_as_on_lambda(world: World) -> None:
    execution = world.end(world.start("large", "many", count=1, size=300_000))
    assert execution["Status"] == "FAILED"
    assert "at most 262144 bytes" in execution["Error"]["ErrorMessage"]


@pytest.mark.parametrize("target", ["run", "run:$LATEST"])
def test_an_execution_invokes_another(world: World, target: str) -> None:
    name = f"parent-{target[3:].strip(':$')}"
    payload = {"do": "parallel", "id": f"{name}-child"}
    assert world.result(world.start(name, "chained", target=target, payload=payload)) == ["a", "b", "c"]


def test_a_function_starts_executions_with_its_own_client(world: World) -> None:
    payload = json.dumps({"do": "parallel", "id": "from-function"})
    outcome = world.stack.invoke("starter", {"name": "from-function", "payload": payload})
    assert world.result(json.loads(outcome.payload)["arn"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"InvocationType": "RequestResponse"}, "InvalidParameterValueException"),
        ({"InvocationType": "Event", "DurableExecutionName": "a.b"}, "InvalidParameterValueException"),
        ({"InvocationType": "Event", "Payload": b" " * 1024 * 1024 + b"{}"}, "RequestTooLargeException"),
    ],
)
def test_what_aws_refuses_is_refused(world: World, options: dict[str, Any], code: str) -> None:
    assert refusal(lambda: world.client.invoke(FunctionName="run", **options))[1] == code


def test_without_credentials_nothing_is_started_answered_or_stopped(world: World) -> None:
    arn = world.start("guarded", "ask")
    callback = world.callback("guarded")
    environ = json.loads(world.stack.invoke("runtime", {}, tenant="t").payload)
    assert not [name for name in environ if "SECRET" in name or "TOKEN" in name or "ENDPOINT_URL" in name]

    def client(**options: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1}, **options)
        return boto3.client(
            "lambda",
            endpoint_url=world.stack.invoke_endpoint,
            region_name="us-east-1",
            aws_access_key_id="AKIAFORGED",
            aws_secret_access_key="forged",
            config=config,
        )

    for forger, code in (
        (client(signature_version=UNSIGNED), "MissingAuthenticationTokenException"),
        (client(), "InvalidSignatureException"),
    ):
        with closing(forger):
            attempts: list[Callable[[], Any]] = [
                lambda c=forger: c.invoke(FunctionName="run", InvocationType="Event", Payload=b"{}"),
                lambda c=forger: c.get_durable_execution(DurableExecutionArn=arn),
                lambda c=forger: c.get_durable_execution_history(DurableExecutionArn=arn),
                lambda c=forger: c.stop_durable_execution(DurableExecutionArn=arn),
                lambda c=forger: c.send_durable_execution_callback_success(CallbackId=callback),
                lambda c=forger: c.list_durable_executions_by_function(FunctionName="run"),
            ]
            assert [refusal(attempt) for attempt in attempts] == [(403, code)] * len(attempts)
    assert world.execution(arn)["Status"] == "RUNNING"


def listening_port(pid: int) -> int:
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            address, port = fields[1].split(":")
            assert address == "0100007F"  # 127.0.0.1
            return int(port, 16)
    raise AssertionError("it does not listen")


def test_the_runners_own_port_answers_nobody_else(world: World) -> None:
    port = listening_port(world.stack.durable_pid)
    for method, path in (
        ("POST", "/start-durable-execution"),
        ("PUT", "/lambda-endpoint"),
        ("GET", "/2025-12-01/durable-executions"),
        ("GET", "/health"),
    ):
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request(method, path, "{}" if method != "GET" else None)
            assert connection.getresponse().status == 403, path


def test_a_runner_that_was_killed_comes_back_and_all_goes_on(world: World) -> None:
    hold = world.hold("working")
    asked, working = world.start("interrupted", "ask"), world.start("working", "steps")
    waiting = world.start("waiting", "wait", seconds=2)
    callback = world.callback("interrupted")
    world.traced("working", ["first", "second"])
    world.traced("waiting", ["before"])
    # What was killed before its checkpoint would be done again: only `working` is at work now.
    world.at_work(1)
    killed = world.stack.durable_pid
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: world.stack.durable_pid != killed, "a new runner")
    world.client.send_durable_execution_callback_success(CallbackId=callback, Result=b"1")
    assert world.result(asked) == "answered: 1"
    hold.unlink()
    assert world.result(working) == ["first", "second"]
    # The invocation that was cut off may still be at its step when the next one begins it again.
    assert world.trace("working") in (["first", "second"], ["first", "second", "second"])
    assert world.result(waiting) == "after"
    assert world.trace("waiting") == ["before", "after"]


def test_executions_outlive_a_stop_of_the_stack(tmp_path: Path) -> None:
    others = reaper.descendants(os.getpid())
    with probe(tmp_path) as stack:
        world = World(stack, tmp_path)
        asked, waiting = world.start("asked", "ask"), world.start("waiting", "wait", seconds=2)
        expiring = world.start("expiring", "expire", seconds=2)
        callback = world.callback("asked")
        world.traced("waiting", ["before"])
        world.traced("expiring", ["asked"])
        world.suspended(asked)
        world.client.close()
        pids = reaper.descendants(os.getpid()) - others
        assert {stack.durable_pid, stack.storage_pid} < pids
        port = listening_port(stack.durable_pid)
    assert all(gone(pid) for pid in pids)
    with pytest.raises(ConnectionRefusedError), closing(http.client.HTTPConnection("127.0.0.1", port)) as old:
        old.connect()
    with probe(tmp_path) as stack:
        world = World(stack, tmp_path)
        assert world.start("asked", "ask") == asked
        world.client.send_durable_execution_callback_success(CallbackId=callback, Result=b"2")
        assert world.result(asked) == "answered: 2"
        assert world.result(waiting) == "after"
        assert world.result(expiring) == "failed: Callback timed out"
        assert world.trace("asked") == ["before"]
        assert world.trace("waiting") == ["before", "after"]
        assert world.trace("expiring") == ["asked"]
        world.client.close()


SERVE = """
import sys, time
from pathlib import Path
from tests.integration.test_durable_executions import World, probe
folder = Path(sys.argv[1])
with probe(folder) as stack:
    world = World(stack, folder)
    asked = world.start("asked", "ask")
    world.callback("asked")
    world.suspended(asked)
    world.hold("working")
    working = world.start("working", "steps")
    parent = world.start("parent", "chained", target="run", payload={"do": "wait", "id": "child", "seconds": 2})
    world.traced("working", ["first", "second"])
    world.traced("child", ["before"])
    world.at_work(1)
    print(stack.durable_pid, asked, working, parent, flush=True)
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except FileNotFoundError:
        return True


def test_executions_outlive_a_kill_of_everything(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        pid, asked, working, parent = serving.stdout.readline().split()
        os.kill(int(pid), signal.SIGKILL)
        serving.kill()
    (tmp_path / "record" / "working" / "hold").unlink()
    with probe(tmp_path) as stack:
        assert gone(int(pid))
        world = World(stack, tmp_path)
        callback = world.callback("asked")
        assert world.execution(asked)["Status"] == "RUNNING"
        world.client.send_durable_execution_callback_success(CallbackId=callback, Result=b"3")
        assert world.result(asked) == "answered: 3"
        assert world.result(working) == ["first", "second"]
        assert world.trace("working") == ["first", "second", "second"]
        assert world.result(parent) == "after"
        assert world.trace("child") == ["before", "after"]
        world.client.close()
