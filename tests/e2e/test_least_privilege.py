"""What the functions call on AWS, recorded while they work, held against what their roles grant.

The whole walkthrough runs with one function for each endpoint, as deployed, and a recorder in every function; then what
the walkthrough does not do. KMS and Secrets Manager are an emulator's. tests/unit/aws/test_least_privilege.py reads the
same roles without running anything.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from infra.aws import rights
from infra.aws.package import chalice_package
from infra.aws.root import templates
from infra.aws.stages import STAGES
from infra.functions import FunctionTable, function_table
from infra.local.stack import BUCKET, LocalStack
from infra.walkthrough.outside import Outside
from infra.walkthrough.steps import API_PROCESSES
from infra.walkthrough.walk import Walkthrough
from tests.aws_templates import Deployment, deployed
from tests.flow_builders import chain, end, flow, node, output, ref, start
from tests.integration.plugin_world import WASM, package
from tests.ministack import Ministack, running_ministack

pytestmark = pytest.mark.slow
RECORDER = Path(__file__).resolve().parents[1] / "aws_recorder"
Call = dict[str, Any]

# An action, by what an operation of the API asks of a role; `Version` is added where one is named.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "GetObject"): "s3:GetObject",
    ("s3", "PutObject"): "s3:PutObject",
    ("s3", "CopyObject"): "s3:PutObject",
    ("s3", "DeleteObject"): "s3:DeleteObject",
    ("s3", "ListObjectVersions"): "s3:ListBucketVersions",
    ("lambda", "Invoke"): "lambda:InvokeFunction",
    ("lambda", "SendDurableExecutionCallbackSuccess"): "lambda:SendDurableExecutionCallbackSuccess",
    ("lambda", "GetDurableExecution"): "lambda:GetDurableExecution",
    ("lambda", "GetDurableExecutionState"): "lambda:GetDurableExecutionState",
    ("lambda", "CheckpointDurableExecution"): "lambda:CheckpointDurableExecution",
    ("sqs", "SendMessage"): "sqs:SendMessage",
    ("kms", "GenerateDataKey"): "kms:GenerateDataKey",
    ("kms", "Decrypt"): "kms:Decrypt",
    ("secretsmanager", "GetSecretValue"): "secretsmanager:GetSecretValue",
}
VERSIONED = {"s3:GetObject": "s3:GetObjectVersion", "s3:DeleteObject": "s3:DeleteObjectVersion"}
# Actions on paths that need a race or days of waiting: the tests that take them there in one process.
ELSEWHERE = {
    ("write_artifacts", "s3:DeleteObjectVersion", "plugins"): "tests/integration/test_plugin_install.py",
    ("register_artifacts", "s3:DeleteObjectVersion", "plugins"): "tests/integration/test_plugin_install.py",
    ("register_artifacts", "s3:DeleteObjectVersion", "compiled"): "tests/integration/test_plugin_install.py",
    ("maintain_artifacts", "s3:GetObject", "incoming"): "tests/unit/plugins/test_maintenance.py",
    ("maintain_artifacts", "s3:DeleteObjectVersion", "incoming"): "tests/unit/plugins/test_maintenance.py",
    ("maintain_artifacts", "s3:GetObjectVersion", "incoming"): "tests/unit/plugins/test_maintenance.py",
    ("administer_database", "secretsmanager:GetSecretValue", ""): "tests/integration/test_deployment.py",
    ("watch_runs", "lambda:GetDurableExecution", ""): "tests/integration/test_run_jobs.py",
    ("remove_run_values", "s3:DeleteObjectVersion", "runs"): "tests/integration/test_run_jobs.py",
}


@pytest.fixture(scope="module")
def table() -> FunctionTable:
    return function_table(per_endpoint=True)


@pytest.fixture(scope="module")
def deployment(table: FunctionTable, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    packaged = chalice_package("prod", table, tmp_path_factory.mktemp("package") / "chalice")
    found = templates(STAGES["prod"], table, packaged, "release", "python3.13")
    return deployed({name: template.as_dict() for name, template in found.items()})


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Call]]:
    """Every call, in the order in which they were made."""
    folder = tmp_path_factory.mktemp("recorded")
    record = folder / "calls"
    outside = Outside()
    try:
        with (
            running_ministack() as aws,
            LocalStack(
                folder / "local",
                api_processes=API_PROCESSES,
                per_endpoint=True,
                environment={
                    # A model that is away: its key is asked for all the same, and agents do without.
                    "HOTPLUG_PRIVATE_ENDPOINTS": f"{outside.endpoints()},127.0.0.1:9",
                    **recorded(record),
                    **kept_on(aws),
                },
            ) as stack,
        ):
            walk = Walkthrough(stack, outside, folder / "examples")
            assert walk.run(), walk.steps[-1].detail
            go_on(stack)
    finally:
        outside.close()
    yield [json.loads(line) for line in record.read_text().splitlines()]


def recorded(file: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(RECORDER), "HOTPLUG_RECORD": str(file)}


def kept_on(aws: Ministack) -> dict[str, str]:
    """Return the settings with which functions keep keys and secrets as on AWS."""
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    secret = aws.client("secretsmanager").create_secret(Name="llm", SecretString="sk-test")["ARN"]
    return {
        "HOTPLUG_KMS_KEY_ID": key,
        "AWS_ENDPOINT_URL_KMS": aws.url,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws.url,
        "HOTPLUG_LLM_URL": "http://127.0.0.1:9/v1",
        "HOTPLUG_LLM_MODEL": "m",
        "HOTPLUG_LLM_KEY_SECRET": secret,
    }


def go_on(stack: LocalStack) -> None:
    """Do what the walkthrough does not: secrets, a download, an install that failed and is tried again, jobs."""
    key, _, secret = (stack.admin_credential or "").partition(":")
    with httpx.Client(base_url=f"{stack.url}/api/v1", headers={"Authorization": f"Bearer {key}:{secret}"},
                      timeout=60) as api:  # fmt: skip

        def call(method: str, path: str, **options: Any) -> Any:
            answer = api.request(method, path, **options)
            assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {answer.text}"
            return answer.json() if answer.content else None

        call("PUT", "/apps/admin/secrets/token", json={"value": "hush"})
        content = package("recorded")
        plugin = call(
            "POST", "/plugins/install", data={"source": "local"}, files={"file": ("x.zip", content)}
        )
        call("GET", f"/plugins/{plugin['pluginId']}/download")
        call("DELETE", f"/plugins/{plugin['pluginId']}")
        call(
            "POST",
            "/plugins/install",
            data={"source": "local"},
            files={"file": ("x.zip", package("wasm", code=WASM, entryPoint="main.wasm"))},
        )
        failed = abandoned(stack, api, package("abandoned"))
        call("POST", f"/plugins/installs/{failed}/retry", json={})
        answered(call)
        for job in ("sweep", "tombstoned_objects", "lost_events", "expired_uploads"):
            call("POST", f"/maintenance/{job}", json={})


def answered(call: Any) -> None:
    """Run a flow that makes more than a checkpoint takes, asks, and goes on with both."""
    writing = node(
        "ifly-code::1",
        {"code": "def main():\n    return {'text': 'x' * 300_000}"},
        outputs=[output("text")],
    )
    asking = node("question-answer::1", {"question": "Which text?", "answerType": "direct"})
    said = ref("said", "question-answer::1", "content")
    nodes = [
        start(),
        writing,
        asking,
        end(said, ref("text", "ifly-code::1", "text"), template="{{said}} {{text}}"),
    ]
    made = call("POST", "/flows", json={"name": "Asking", "data": flow(nodes, chain(*nodes))})
    call("POST", f"/flows/{made['flowId']}/publish", json={"version": "v1"})
    run = call("POST", f"/flows/{made['flowId']}/runs", json={})
    assert run["state"] == "waiting", run
    body = {"eventId": run["event"]["eventId"], "action": "resume", "content": "This", "waitSeconds": 25}
    done = call("POST", f"/runs/{run['runId']}/resume", json=body)
    assert done["state"] == "succeeded", done


def abandoned(stack: LocalStack, api: httpx.Client, content: bytes) -> str:
    """Declare an upload, let the queue give it up, and return the install's id."""
    body = {
        "source": "local",
        "filename": "x.zip",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    declared = api.post("/plugins/install", json=body).json()
    key = declared["upload"]["fields"]["key"]
    event = {"eventName": "ObjectCreated:Post", "s3": {"bucket": {"name": BUCKET}, "object": {"key": key}}}
    message = {"messageId": "1", "body": json.dumps({"Records": [event]})}
    key_id, secret = stack.credentials
    functions = boto3.client(
        "lambda",
        endpoint_url=stack.invoke_endpoint,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
    )
    answer = functions.invoke(FunctionName="register_dead_letter", Payload=json.dumps({"Records": [message]}))
    assert json.loads(answer["Payload"].read()) == {"batchItemFailures": []}
    return str(declared["installId"])


# -- reading -------------------------------------------------------------------------------------------------------


def asked(call: Call) -> list[tuple[str, str]]:
    """Return (action, resource) of a call, named as in the deployment."""
    service, operation = call["service"], call["operation"]
    action = ACTIONS[service, operation]
    if call.get("VersionId"):
        action = VERSIONED[action]
    if service == "s3":
        assert call["Bucket"] == BUCKET
        found = [(action, "Storage/Bucket.Arn" + (f"/{call['Key']}" if "Key" in call else ""))]
        if source := call.get("CopySource"):
            found.append(("s3:GetObjectVersion", f"Storage/Bucket.Arn/{source['Key']}"))
        return found
    if service == "lambda" and operation != "Invoke":
        return [
            (
                action,
                "arn:aws:lambda:eu-central-1:123456789012:function:hotplug-prod-run:1/durable-execution/r/1",
            )
        ]
    resources = {
        "lambda": "arn:aws:lambda:eu-central-1:123456789012:function:hotplug-prod-{}:live".format,
        "sqs": lambda _: "Storage/InstallQueue.Arn",
        "kms": lambda _: "Storage/DataKey.Arn",
        "secretsmanager": lambda _: "Storage/LlmKeySecret",
    }
    return [(action, resources[service](call.get("FunctionName", "")))]


def allows(statement: dict[str, Any], action: str, resource: str) -> bool:
    listed = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    return (
        statement["Effect"] == "Allow"
        and "kms:ViaService" not in json.dumps(statement.get("Condition", {}))
        and action in statement["Action"]
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in listed)
    )


def test_no_function_makes_a_call_that_its_role_refuses(calls: list[Call], deployment: Deployment) -> None:
    functions = deployment.functions()
    refused = {
        (call["function"], action, resource)
        for call in calls
        for action, resource in asked(call)
        if not any(allows(s, action, resource) for s in deployment.statements(functions[call["function"]]))
    }
    assert not refused
    assert len({call["function"] for call in calls}) >= 15


def test_no_right_grants_an_action_that_nobody_used(calls: list[Call], table: FunctionTable) -> None:
    """By right and by the folder of the bucket: somebody who holds it must have used it."""
    by_function: dict[str, set[tuple[str, str]]] = {}
    for call in calls:
        found = {(action, folder(resource)) for action, resource in asked(call)}
        by_function.setdefault(call["function"], set()).update(found)
    idle = set()
    for name, right in rights.RIGHTS.items():
        holders = [function.name for function in table.functions if name in function.rights]
        used = set().union(*(by_function.get(holder, set()) for holder in holders))
        idle |= {(name, action, where) for action, where in granted(right) if (action, where) not in used}
    assert idle == set(ELSEWHERE)


def folder(resource: Any) -> str:
    """Return the folder of the bucket that a resource names, empty for whatever else."""
    text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
    _, inside, key = str(text).replace("${BucketArn}", "Bucket.Arn").partition("Bucket.Arn/")
    return key.partition("/")[0] if inside else ""


def granted(right: rights.Right) -> set[tuple[str, str]]:
    """Return (action, folder) of a right, where the model is an endpoint, without those that AWS does itself."""
    statements = [s["Fn::If"][1] if "Fn::If" in s else s for s in right.statements()]
    return {
        (action, folder(resource))
        for statement in statements
        if "kms:ViaService" not in json.dumps(statement.get("Condition", {}))
        for action in statement["Action"]
        # Bedrock is the other provider; tests/integration/test_llm_bedrock.py asks it.
        if action not in rights.SERVICE_SIDE and not action.startswith("bedrock:")
        for resource in (
            statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        )
    }


def test_what_is_done_elsewhere_is_done_there() -> None:
    root = Path(__file__).resolve().parents[2]
    assert all((root / where).is_file() for where in ELSEWHERE.values())
