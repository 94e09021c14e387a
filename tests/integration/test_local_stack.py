"""The local stack with a small application: each function in a process of its own, as Lambda would run it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from infra.local import reaper
from infra.local.folder import FolderInUse
from infra.local.invocation import InvocationRefused
from infra.local.pool import Scaling
from infra.local.stack import LocalStack, StackFailed

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "local_stack_app"
TEXT = {"Content-Type": "text/plain"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    stack: LocalStack,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    with closing(http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=40)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def records(folder: Path, name: str) -> list[Any]:
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def probe(folder: Path, **options: Any) -> LocalStack:
    record = folder / "record"
    record.mkdir(exist_ok=True)
    options = {"schedules": False, **options}
    return LocalStack(
        folder / "state",
        task_root=PROBE,
        environment={"PROBE_RECORD": str(record), "EXTRA": "yes"},
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[LocalStack]:
    scaling = {
        "runtime": Scaling(maximum=3, wait_s=0),
        "register": Scaling(maximum=2),
        "probe-sleep": Scaling(maximum=1),
    }
    with probe(
        folder, api_processes=2, scaling=scaling, install_visibility_s=1, install_max_receives=2
    ) as running:
        yield running


def test_functions_see_what_lambda_shows_them(stack: LocalStack) -> None:
    seen = call(stack, "GET", "/api/v1/who").json()
    environ = seen["environ"]

    assert seen["function"] == environ["AWS_LAMBDA_FUNCTION_NAME"] == "api"
    assert seen["cwd"] == environ["LAMBDA_TASK_ROOT"] == str(PROBE)
    assert environ["_HANDLER"] == "app.app"
    assert environ["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert 8_000 < seen["remainingMs"] <= 10_000
    assert environ["EXTRA"] == "yes"
    assert environ["HOTPLUG_DATABASE_URL"] == stack.database_url
    assert environ["AWS_ENDPOINT_URL_S3"] == stack.s3_endpoint
    assert len(Path(environ["HOTPLUG_KEY_FILE"]).read_bytes()) == 32


def test_runtime_functions_get_no_rights_and_a_cache_of_their_own(stack: LocalStack) -> None:
    plain = json.loads(stack.invoke("runtime", {}, tenant="t-env").payload)["environ"]
    network = json.loads(stack.invoke("runtime_network", {}, tenant="t-env").payload)["environ"]

    for environ in (plain, network):
        assert {name for name in environ if name.startswith("HOTPLUG_")} - {"HOTPLUG_RUNTIME_NETWORK"} == {
            "HOTPLUG_ENDPOINT", "HOTPLUG_LOCAL_CACHE_DIR",
        }  # fmt: skip
        assert not [name for name in environ if "KEY" in name or "SECRET" in name or "ENDPOINT_URL" in name]
        assert "EXTRA" not in environ
    assert "HOTPLUG_RUNTIME_NETWORK" not in plain
    assert network["HOTPLUG_RUNTIME_NETWORK"] == "1"
    assert plain["HOTPLUG_LOCAL_CACHE_DIR"] != network["HOTPLUG_LOCAL_CACHE_DIR"]


def test_the_front_passes_requests_as_api_gateway_does(stack: LocalStack) -> None:
    assert call(stack, "GET", "/api/v1/items/a%2Fb").json() == {"itemId": "a%2Fb"}
    assert call(stack, "GET", "/api/v1/items/special").json() == {"special": "yes"}
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    event = call(stack, "POST", "/api/v1/echo?a=1&a=2", b"\xff" * 1000, headers).json()
    assert event["body"] == "1000 bytes"
    assert event["multiValueQueryStringParameters"] == {"a": ["1", "2"]}
    binary = call(stack, "GET", "/api/v1/binary", headers={"Accept": "application/octet-stream"})
    assert binary.body == bytes(range(256))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("HEAD", "/api/v1/who", 405, None),
        ("DELETE", "/api/v1/who", 405, "method_not_allowed"),
        ("POST", "/api/v1/crash", 502, "upstream.failed"),
        ("GET", "/api/v1/large", 502, "upstream.failed"),
    ],
)
def test_what_the_gateway_answers_itself_is_a_problem_document(
    stack: LocalStack, method: str, path: str, status: int, code: str | None
) -> None:
    answer = call(stack, method, path, headers=TEXT if method == "POST" else None)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers.get("Allow") == ("GET" if status == 405 else None)
    if code is not None:
        problem = answer.json()
        assert problem["type"] == f"urn:hotplug:problem:{code}"
        assert (problem["status"], problem["code"], problem["instance"]) == (status, code, path)
        assert problem["requestId"] == answer.headers["x-amzn-RequestId"]


@pytest.mark.parametrize("size", [5 * 1024 * 1024, 11 * 1024 * 1024])
def test_bodies_over_the_gateways_and_the_functions_limit_are_413(stack: LocalStack, size: int) -> None:
    # 5 MB pass the gateway, but base64 makes them more than the 6 MB that a function takes.
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = call(stack, "POST", "/api/v1/echo", b"x" * size, headers)
    assert (answer.status, answer.json()["code"]) == (413, "request.too_large")


def test_warm_processes_take_turns(stack: LocalStack) -> None:
    wait_for(lambda: [e.state for e in stack.environments("api")] == ["idle"] * 2, "two idle API processes")
    pids = [call(stack, "GET", "/api/v1/who").json()["pid"] for _ in range(24)]
    warm = {environment.pid for environment in stack.environments("api")}
    assert set(pids) == warm
    # Not strictly in turn: what has answered is free a moment later, when its runtime asks for more work.
    assert min(Counter(pids).values()) >= 2


def test_fifty_clients_at_once_are_served(stack: LocalStack) -> None:
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: call(stack, "GET", "/api/v1/items/special").status, range(200)))
    assert answers == [200] * 200
    assert len(stack.environments("api")) <= 4


def test_a_killed_process_is_replaced(stack: LocalStack) -> None:
    victim = stack.environments("api")[0].pid
    stack.kill_environment(victim)
    assert call(stack, "GET", "/api/v1/who").status == 200
    wait_for(lambda: len(stack.environments("api")) >= 2, "a replacement")
    assert victim not in {environment.pid for environment in stack.environments("api")}


def test_tenants_never_share_a_process(stack: LocalStack) -> None:
    def ran(tenant: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(stack.invoke("runtime", {}, tenant=tenant).payload)
        # The answer comes a moment before the process asks for more work, and from then on it rests.
        wait_for(lambda: all(one.state == "idle" for one in stack.environments("runtime")), "they rest")
        return answer

    answers = [ran(tenant) for tenant in ("a", "b", "a", "b")]
    assert [answer["tenant"] for answer in answers] == ["a", "b", "a", "b"]
    assert [answer["served"] for answer in answers] == [1, 1, 2, 2]
    # A fourth tenant finds all three places taken by others: the one that rested longest gives way.
    ran("c")
    ran("d")
    assert {environment.tenant for environment in stack.environments("runtime")} == {"b", "c", "d"}


@pytest.mark.parametrize(
    ("name", "tenant", "status", "message"),
    [
        ("runtime", None, 400, "Add a valid tenant ID"),
        ("runtime", "a\nb", 400, "not valid"),
        ("register", "a", 400, "not enabled with tenancy"),
        ("nobody", None, 404, "Function not found"),
    ],
)
def test_what_lambda_refuses_is_refused(
    stack: LocalStack, name: str, tenant: str | None, status: int, message: str
) -> None:
    with pytest.raises(InvocationRefused, match=message) as refused:
        stack.invoke(name, {}, tenant=tenant)
    assert refused.value.status == status


def lambda_client(stack: LocalStack, secret: str | None = None) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "lambda",
        endpoint_url=stack.invoke_endpoint,
        region_name="us-east-1",
        aws_access_key_id=stack.credentials[0],
        aws_secret_access_key=secret or stack.credentials[1],
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_boto3_invokes_functions(stack: LocalStack) -> None:
    with closing(lambda_client(stack)) as client:
        answer = client.invoke(FunctionName="runtime", TenantId="boto", Payload=b'{"echo": "\xc3\xa4"}')
        with answer["Payload"] as payload:
            assert json.load(payload)["echo"] == "ä"
        assert "FunctionError" not in answer

        failed = client.invoke(
            FunctionName="arn:aws:lambda:us-east-1:000000000000:function:runtime:live",
            TenantId="boto",
            Payload=b'{"fail": true}',
        )
        assert failed["FunctionError"] == "Unhandled"
        with failed["Payload"] as payload:
            error = json.load(payload)
        assert (error["errorType"], error["errorMessage"]) == ("ValueError", "as asked")


@pytest.mark.parametrize(
    ("parameters", "code", "status"),
    [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException", 404),
        ({"FunctionName": "runtime"}, "InvalidParameterValueException", 400),
        (
            {"FunctionName": "runtime", "TenantId": "t", "Payload": b"{"},
            "InvalidRequestContentException",
            400,
        ),
        (
            {"FunctionName": "runtime", "TenantId": "t", "Payload": b'"' + b"x" * 6291456 + b'"'},
            "RequestTooLargeException",
            413,
        ),
        (
            {
                "FunctionName": "runtime",
                "TenantId": "t",
                "InvocationType": "Event",
                "Payload": b'"' + b"x" * 1048576 + b'"',
            },
            "RequestTooLargeException",
            413,
        ),
    ],
)
def test_boto3_gets_lambdas_errors(
    stack: LocalStack, parameters: dict[str, Any], code: str, status: int
) -> None:
    with closing(lambda_client(stack)) as client, pytest.raises(ClientError) as refused:
        client.invoke(**parameters)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_an_event_invocation_is_accepted_and_runs_later(stack: LocalStack, folder: Path) -> None:
    body = json.dumps({"Records": [{"s3": {"object": {"key": "by-event"}}}]})
    event = {"Records": [{"messageId": "m", "body": body, "attributes": {"ApproximateReceiveCount": "1"}}]}
    with closing(lambda_client(stack)) as client:
        answer = client.invoke(FunctionName="register", InvocationType="Event", Payload=json.dumps(event))
        assert answer["StatusCode"] == 202
        with answer["Payload"] as payload:
            assert payload.read() == b""
    wait_for(
        lambda: {"key": "by-event", "count": "1"} in records(folder / "record", "register"),
        "the event's invocation",
    )


def test_invoking_without_credentials_is_refused(stack: LocalStack) -> None:
    with closing(http.client.HTTPConnection(stack.invoke_endpoint.removeprefix("http://"))) as connection:
        connection.request("POST", "/2015-03-31/functions/register/invocations", "{}")
        response = connection.getresponse()
        assert response.status == 403
        assert response.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
        response.read()


def test_invoking_with_another_secret_is_refused(stack: LocalStack) -> None:
    """Any header named Authorization once did, and every user of the machine can reach the port."""
    from botocore.exceptions import ClientError

    with closing(lambda_client(stack, "guessed")) as client, pytest.raises(ClientError) as refusal:
        client.invoke(FunctionName="runtime", TenantId="boto", Payload=b"{}")

    assert refusal.value.response["Error"]["Code"] == "InvalidSignatureException"


def test_storage_answers_nobody_who_does_not_sign(stack: LocalStack) -> None:
    """Unsigned requests once read the bucket, dropped packages for any tenant, and made functions that ran here."""
    attempts = [
        ("GET", f"/{stack.bucket}?list-type=2"),
        ("PUT", f"/{stack.bucket}/incoming/drop/admin/x.zip"),
        ("PUT", f"/{stack.bucket}/compiled/x"),
        ("POST", "/000000000000/hotplug-installs?Action=ReceiveMessage"),
        ("GET", "/2015-03-31/functions/"),
    ]
    for method, path in attempts:
        with closing(http.client.HTTPConnection(stack.s3_endpoint.removeprefix("http://"))) as connection:
            connection.request(method, path, "x" if method == "PUT" else None)
            response = connection.getresponse()
            assert response.status in (400, 403, 404), (method, path, response.status)
            response.read()


def test_an_answer_over_six_megabytes_is_an_error(stack: LocalStack) -> None:
    outcome = stack.invoke("runtime", {"fill": 7 * 1024 * 1024}, tenant="large")
    assert outcome.error == "Unhandled"
    assert json.loads(outcome.payload)["errorType"] == "Function.ResponseSizeTooLarge"


def test_a_crash_is_an_exit_error_and_the_next_call_works(stack: LocalStack) -> None:
    outcome = stack.invoke("runtime", {"exit": 3}, tenant="crash")
    assert outcome.error == "Unhandled"
    error = json.loads(outcome.payload)
    assert error["errorType"] == "Runtime.ExitError"
    assert (
        error["errorMessage"]
        == f"RequestId: {outcome.request_id} Error: Runtime exited with error: exit status 3"
    )
    assert json.loads(stack.invoke("runtime", {}, tenant="crash").payload)["served"] == 1


def test_at_the_maximum_invocations_are_throttled(stack: LocalStack) -> None:
    tenants = [f"busy-{number}" for number in range(3)]
    for tenant in tenants:
        # Warm already: three cold starts, one after the other on a busy machine, outlast the first one's work.
        assert stack.invoke("runtime", {}, tenant=tenant).error is None
    with ThreadPoolExecutor(3) as callers:
        running = [callers.submit(stack.invoke, "runtime", {"sleepMs": 1500}, tenant) for tenant in tenants]
        wait_for(
            lambda: [e.state for e in stack.environments("runtime")] == ["busy"] * 3,
            "three busy environments",
        )
        with pytest.raises(InvocationRefused) as refused:
            stack.invoke("runtime", {}, tenant="late")
        assert (refused.value.status, refused.value.code) == (429, "TooManyRequestsException")
        assert [future.result().error for future in running] == [None] * 3


def put(stack: LocalStack, key: str) -> None:
    with closing(stack.client("s3")) as s3:
        s3.put_object(Bucket=stack.bucket, Key=key, Body=b"x")


def test_an_upload_reaches_registration(stack: LocalStack, folder: Path) -> None:
    for key in ("incoming/tasks/good.zip", "incoming/drop/good.zip", "elsewhere/other.zip"):
        put(stack, key)
    record = folder / "record"

    def keys() -> list[str]:
        return [entry["key"] for entry in records(record, "register")]

    wait_for(
        lambda: {"incoming/tasks/good.zip", "incoming/drop/good.zip"} <= set(keys()), "both registrations"
    )
    time.sleep(1.5)  # longer than the visibility timeout: a message that was not deleted would be back
    assert keys().count("incoming/tasks/good.zip") == 1
    assert "elsewhere/other.zip" not in keys()


@pytest.mark.parametrize("key", ["incoming/tasks/poison.zip", "incoming/tasks/raise.zip"])
def test_a_failing_message_comes_back_and_ends_in_the_dead_letter_queue(
    stack: LocalStack, folder: Path, key: str
) -> None:
    put(stack, key)
    record = folder / "record"
    wait_for(lambda: {"key": key} in records(record, "dead"), "the dead letter")
    assert [entry["count"] for entry in records(record, "register") if entry["key"] == key] == ["1", "2"]


def test_storage_that_was_killed_comes_back_with_its_queues(stack: LocalStack, folder: Path) -> None:
    put(stack, "kept.zip")
    killed = stack.storage_pid
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: stack.storage_pid != killed, "a new ministack")

    def registered() -> bool:
        # An upload between the start of the new process and the making of its notifications tells nobody.
        with contextlib.suppress(BotoCoreError, ClientError):
            put(stack, f"incoming/tasks/after-{uuid4().hex}.zip")
        return any("after-" in entry["key"] for entry in records(folder / "record", "register"))

    wait_for(registered, "a registration after the restart")
    with closing(stack.client("s3")) as s3:
        assert s3.head_object(Bucket=stack.bucket, Key="kept.zip")["ContentLength"] == 1
        assert s3.get_bucket_versioning(Bucket=stack.bucket)["Status"] == "Enabled"


def test_a_folder_in_use_is_refused(stack: LocalStack, folder: Path) -> None:
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        probe(folder).start()
    assert call(stack, "GET", "/api/v1/who").status == 200


def test_per_endpoint_each_route_is_a_function_with_its_own_timeout(tmp_path: Path) -> None:
    application = tmp_path / "application"
    application.symlink_to(PROBE)
    with probe(tmp_path, per_endpoint=True, schedules=True) as stack:
        seen = call(stack, "GET", "/api/v1/who").json()
        assert (seen["function"], seen["endpoint"]) == ("probe-who", "probe.who")
        assert call(stack, "GET", "/api/v1/items/x").json() == {"itemId": "x"}
        assert [len(stack.environments(name)) for name in ("probe-who", "probe-item", "probe-echo")] == [
            1,
            1,
            0,
        ]

        # Its limit is ten seconds; this one sleeps longer.
        answer = call(stack, "POST", "/api/v1/sleep/60000", b"", TEXT)
        assert (answer.status, answer.json()["code"]) == (502, "upstream.failed")
        assert "Task timed out after 10.00 seconds" in (stack.logs_folder / "probe-sleep.log").read_text()
        wait_for(lambda: stack.environments("probe-sleep") == [], "the end of the process that ran too long")

        wait_for(lambda: bool(records(tmp_path / "record", "tick")), "a scheduled event")
        assert records(tmp_path / "record", "tick")[0]["detail-type"] == "Scheduled Event"


def test_idle_environments_are_ended(tmp_path: Path) -> None:
    with probe(tmp_path, scaling={"runtime": Scaling(idle_s=0.1)}) as stack:
        seen = json.loads(stack.invoke("runtime", {}, tenant="t").payload)
        folder = Path(seen["environ"]["TMPDIR"]).parent
        wait_for(lambda: stack.environments("runtime") == [], "the end of an idle environment")
        wait_for(lambda: not folder.exists(), "the removal of its folder")
        assert gone(seen["pid"])
        assert len(stack.environments("api")) == 1  # the minimum is kept


def test_an_application_that_fails_to_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "chalicelib" / "api").mkdir(parents=True)
    (tmp_path / "chalicelib" / "api" / "endpoint.py").write_text("ENDPOINTS = []")
    (tmp_path / "app.py").write_text(
        "import os\nfrom chalice.app import Chalice\napp = Chalice('x')\n"
        "if 'AWS_LAMBDA_FUNCTION_NAME' in os.environ: raise RuntimeError('no such setting')\n"
        "@app.lambda_function(name='migrate')\ndef migrate(event, context): ...\n"
    )
    with pytest.raises(StackFailed, match="no such setting"):
        LocalStack(tmp_path / "state", task_root=tmp_path).start()


def test_a_stack_whose_port_is_taken_says_so_and_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(StackFailed, match="address already in use"),
    ):
        probe(tmp_path, port=taken.getsockname()[1]).start()
    with probe(tmp_path) as stack:
        assert call(stack, "GET", "/api/v1/who").status == 200


SERVE = """
import sys, time
from pathlib import Path
from tests.integration.test_local_stack import probe, call
with probe(Path(sys.argv[1]), api_processes=2) as stack:
    stack.invoke("runtime", {}, tenant="t")
    call(stack, "GET", "/api/v1/who")
    pids = [e.pid for name in ("api", "runtime") for e in stack.environments(name)] + [stack.storage_pid]
    print(stack.admin_credential, *pids, flush=True)
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except FileNotFoundError:
        return True


def test_nothing_outlives_a_killed_stack_and_its_state_survives(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        credential, *pids = serving.stdout.readline().split()
        assert len(pids) == 4
        serving.kill()
    with probe(tmp_path) as stack:
        assert all(gone(int(pid)) for pid in pids)
        assert stack.admin_credential == credential == "probe-key:probe-secret"
        put(stack, "incoming/tasks/next.zip")
        wait_for(lambda: bool(records(tmp_path / "record", "register")), "a registration after the kill")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "record").mkdir()
        options = ["--folder", str(tmp_path / "state"), "--port", str(port), "--task-root", str(PROBE)]
        options += ["--env", f"PROBE_RECORD={tmp_path / 'record'}"]
        with subprocess.Popen(
            [sys.executable, "-m", "infra.local", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as serving:
            try:
                assert serving.stdout is not None
                printed = [serving.stdout.readline() for _ in range(5)]
                # Four API processes, ministack and the reaper; environments start behind the printed lines.
                wait_for(
                    lambda: len(reaper.descendants(serving.pid)) >= 6, "the processes of a running stack"
                )
                children = reaper.descendants(serving.pid)
                serving.send_signal(number)
                assert serving.wait(60) == 0
            finally:
                serving.kill()
    assert printed[0].startswith("base URL          http://127.0.0.1:")
    assert f":{port}" not in printed[0]
    assert printed[1] == "admin credential  probe-key:probe-secret\n"
    assert all(gone(pid) for pid in children)
