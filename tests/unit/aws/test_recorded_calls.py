"""How recorded calls are held against roles: what would be missed is shown to be found."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.aws import rights
from infra.functions import ROOT, FunctionTable
from tests.aws_templates import Deployment
from tests.least_privilege.calls import ACTIONS, VERSIONED, Call, Need, read
from tests.least_privilege.roles import Roles, deployed_roles, listed, read_roles, via
from tests.least_privilege.watched import WatchedStack, refused, unused

APP = {"EncryptionContext": {"hotplug:app": "7"}}
SENDS = Call("plugin_installs-retry_install", "sqs", "SendMessage", {"QueueUrl": "http://q/hotplug-installs"})
# All that the application and its events speak to. Nothing asks STS: Lambda takes the role and hands over its
# credentials, which tests/unit/core/keys/test_key_service.py shows to sign every call.
SERVICES = {"bedrock-runtime", "kms", "lambda", "s3", "secretsmanager", "sqs"}


def noted(folder: Path, *lines: dict[str, Any]) -> Path:
    """Write a recording as functions do."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    path = logs / "aws-calls"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_roles_are_those_of_the_whole_deployment(
    deployment: Deployment, table: FunctionTable, stage: str
) -> None:
    built = {name: deployment.statements(found) for name, found in deployment.functions().items()}
    shortened = json.loads(json.dumps(built).replace(f"hotplug-{stage}-", "hotplug-prod-"))
    assert read_roles(shortened) == deployed_roles()
    assert set(built) == set(table.by_name)


def test_a_grant_that_is_taken_away_is_named_with_its_function_and_call() -> None:
    assert refused([SENDS], deployed_roles()) == []
    without = deployed_roles().without("plugin_installs-retry_install", "sqs:SendMessage")
    assert refused([SENDS], without) == [
        "plugin_installs-retry_install needs sqs:SendMessage on Storage/InstallQueue.Arn, which its role refuses"
    ]


@pytest.mark.parametrize(
    ("service", "operation", "parameters"),
    [
        ("s3", "GetObject", {"Bucket": "hotplug", "Key": "plugins/p/1/p.zip"}),
        ("s3", "GetObject", {"Bucket": "hotplug", "Key": "runs/r/x", "VersionId": "v"}),
        ("s3", "DeleteObject", {"Bucket": "hotplug", "Key": "plugins/p/1/p.zip", "VersionId": "v"}),
        ("s3", "ListObjectVersions", {"Bucket": "hotplug", "Prefix": "plugins/"}),
        ("lambda", "Invoke", {"FunctionName": "run"}),
        ("kms", "GenerateDataKey", APP),
        ("kms", "Decrypt", {"KeyId": "k"}),
        (
            "secretsmanager",
            "GetSecretValue",
            {"SecretId": "arn:aws:secretsmanager:r:1:secret:LlmKeySecret-x"},
        ),
        ("sqs", "SendMessage", {"QueueUrl": "http://q/hotplug-installs"}),
    ],
)
def test_what_a_function_may_not_do_is_refused(service: str, operation: str, parameters: Any) -> None:
    """`enable` opens secrets, signs reads of packages by their version, and invokes the runtime."""
    assert refused([Call("plugins-enable_plugin", service, operation, parameters)], deployed_roles())


def test_what_it_may_do_is_not_refused() -> None:
    package = {"Bucket": "hotplug", "Key": "plugins/p/1/p.zip", "VersionId": "v"}
    made = [
        Call("plugins-enable_plugin", "kms", "Decrypt", APP),
        Call("plugins-enable_plugin", "s3", "GetObject", package),
        Call("plugins-enable_plugin", "lambda", "Invoke", {"FunctionName": "runtime"}),
    ]
    assert refused(made, deployed_roles()) == []
    left = {one for one in unused(made, deployed_roles()) if one[0] == "plugins-enable_plugin"}
    assert left == {
        ("plugins-enable_plugin", "lambda:InvokeFunction", "runtime_network"),
        ("plugins-enable_plugin", "s3:GetObjectVersion", "compiled"),
    }


def test_a_grant_that_is_added_is_named_until_it_is_used() -> None:
    more: Any = {"Effect": "Allow", "Action": ["sqs:SendMessage"], "Resource": "Storage/InstallQueue.Arn"}
    found = Roles({SENDS.function: (more,)})
    assert unused([], found) == {("plugin_installs-retry_install", "sqs:SendMessage", "")}
    assert unused([SENDS], found) == set()


def test_a_copy_needs_to_read_its_source_and_to_write_its_target() -> None:
    source = {"Bucket": "hotplug", "Key": "incoming/tasks/i.zip", "VersionId": "v"}
    call = Call(
        "register", "s3", "CopyObject", {"Bucket": "hotplug", "Key": "plugins/p", "CopySource": source}
    )
    assert call.needs() == (
        Need("s3:PutObject", "Storage/Bucket.Arn/plugins/p"),
        Need("s3:GetObjectVersion", "Storage/Bucket.Arn/incoming/tasks/i.zip"),
    )


def test_an_operation_that_nobody_has_looked_up_is_an_error() -> None:
    with pytest.raises(LookupError, match="register calls s3 PutObjectAcl"):
        Call("register", "s3", "PutObjectAcl", {"Bucket": "hotplug", "Key": "x"}).needs()


def test_a_call_of_the_one_function_for_all_is_its_endpoints(tmp_path: Path, table: FunctionTable) -> None:
    line = {"function": "api", "service": "kms", "operation": "Decrypt", **APP}
    path = noted(tmp_path, line | {"route": ["POST", "/api/v1/plugins/{pluginId}/enable"]})
    assert [call.function for call in read(path, table)] == ["plugins-enable_plugin"]
    path.write_text(json.dumps(line | {"route": None}) + "\n")
    with pytest.raises(AssertionError, match="api calls kms Decrypt outside any request"):
        list(read(path, table))


def test_a_stack_does_not_stop_in_silence(tmp_path: Path) -> None:
    stack = WatchedStack(tmp_path / "local")
    route = ["GET", "/api/v1/plugins"]
    line = {"function": "api", "route": route, "service": "kms", "operation": "Decrypt", **APP}
    noted(tmp_path / "local", line)
    with pytest.raises(
        AssertionError, match=r"plugins-list_plugins needs kms:Decrypt on Storage/DataKey\.Arn"
    ):
        stack.stop()


def test_every_stack_of_the_end_to_end_tests_is_watched() -> None:
    found = [
        f"{path.name}:{call.lineno}"
        for path in sorted((ROOT / "tests" / "e2e").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "LocalStack"
    ]
    assert found == []


# -- what nobody records -----------------------------------------------------------------------------------------------


def test_what_aws_does_with_a_role_stands_in_the_table_and_nothing_else_does(deployment: Deployment) -> None:
    """An action that some role grants, and that our code is not seen to make, is a line of the table; and each line is
    granted by some role."""
    functions = deployment.functions().values()
    granted = [
        (action, via(statement))
        for function in functions
        for statement in deployment.statements(function)
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    ]
    on_behalf = {f"{action} (via {service})" for action, service in granted if service is not None}
    own = {action for action, service in granted if service is None}
    called = {*ACTIONS.values(), *VERSIONED.values()}
    assert on_behalf | (own - called) <= set(rights.SERVICE_SIDE)
    assert set(rights.SERVICE_SIDE) <= on_behalf | own


# What a service asks for on behalf of a function, by what the function itself must be allowed to do for that.
BECAUSE = {
    ("kms:Decrypt", "s3"): {"s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"},
    ("kms:GenerateDataKey", "s3"): {"s3:PutObject"},
    ("kms:Decrypt", "secretsmanager"): {"secretsmanager:GetSecretValue"},
    ("kms:Decrypt", "lambda"): {
        "lambda:CheckpointDurableExecution",
        "lambda:SendDurableExecutionCallbackSuccess",
    },
    ("s3:ListBucket", None): {"s3:GetObject", "s3:GetObjectVersion"},
}


def test_what_is_granted_on_behalf_is_granted_beside_what_it_is_for(deployment: Deployment) -> None:
    for name, function in deployment.functions().items():
        found = [
            (action, via(statement))
            for statement in deployment.statements(function)
            if statement["Effect"] == "Allow"
            for action in listed(statement["Action"])
        ]
        own = {action for action, service in found if service is None}
        for action, service in found:
            if service is not None or action == "s3:ListBucket":
                assert own & BECAUSE[action, service], (name, action, service)


def test_nothing_speaks_to_another_service_and_nothing_to_sts() -> None:
    """Clients are made in one place by name; a service that is added here needs its grants, and its actions above."""
    named = set()
    for path in sorted((ROOT / "chalicelib").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and re.search(
                r"(^|\.)(new_client|client)$", ast.unparse(call.func)
            ):
                if call.args and isinstance(call.args[0], ast.Constant):
                    named.add(call.args[0].value)
                else:
                    assert "boto" not in ast.unparse(call.func) or path.name == "aws_clients.py", path
    assert named == SERVICES
    assert {service for service, _ in ACTIONS} == SERVICES


def test_a_function_is_told_of_no_other_role(deployment: Deployment) -> None:
    """boto3 would ask STS for one: `AWS_ROLE_ARN`, `AWS_WEB_IDENTITY_TOKEN_FILE`, a profile."""
    for name, function in deployment.functions().items():
        assert not [one for one in function["Environment"]["Variables"] if one.startswith("AWS_")], name
        actions = {action for one in deployment.statements(function) for action in listed(one["Action"])}
        assert not [action for action in actions if action.startswith("sts:")], name
