"""What the roles of the functions grant, read from the templates. What the functions call is recorded by
tests/e2e/test_least_privilege.py and held against the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from infra.aws import rights
from infra.functions import DURABLE, DURABLE_RETENTION_DAYS, DURABLE_TIMEOUT_S, EVENT_RIGHTS, FunctionTable
from tests.aws_templates import Deployment, deployed

# Actions that know no resource, or whose resource does not exist before Lambda makes it.
# https://docs.aws.amazon.com/service-authorization/latest/reference/
WITHOUT_ARN = {
    "xray:PutTraceSegments", "xray:PutTelemetryRecords", "ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}  # fmt: skip


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_no_role_has_a_star_where_an_arn_is_possible(deployment: Deployment) -> None:
    for name, role in deployment.of_type("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                for action in listed(statement["Action"]):
                    assert "*" not in action, (name, action)
                    if statement["Effect"] == "Allow" and "*" in listed(statement["Resource"]):
                        assert action in WITHOUT_ARN, (name, action)
                assert "NotAction" not in statement and "NotResource" not in statement
        assert all(
            arn.endswith("service-role/AmazonAPIGatewayPushToCloudWatchLogs")
            for arn in role.get("ManagedPolicyArns", [])
        ), name


def test_every_arn_ends_in_something_of_ours(deployment: Deployment) -> None:
    """A resource may end in `/*` below a prefix of ours; a whole service is never one."""
    for name, function in deployment.functions().items():
        for statement in deployment.statements(function):
            for resource in listed(statement["Resource"]):
                if resource != "*":
                    assert not re.fullmatch(r"arn:aws:[a-z-]+:[^:]*:[^:]*:(\*|[a-z-]+[:/]\*)", resource), (
                        name,
                        resource,
                    )


def test_only_lambda_takes_a_functions_role(deployment: Deployment) -> None:
    for function in deployment.functions().values():
        role = deployment.resources[function["Role"].removesuffix(".Arn")]["Properties"]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_a_functions_own_code_cannot_use_the_rights_that_lambda_needs_for_its_network(
    deployment: Deployment,
) -> None:
    for name, function in deployment.functions().items():
        found = deployment.statements(function)
        network = [s for s in found if s["Effect"] == "Allow" and "ec2:CreateNetworkInterface" in s["Action"]]
        denied = [s for s in found if s["Effect"] == "Deny"]
        assert bool(network) == ("VpcConfig" in function) == bool(denied), name
        for statement in denied:
            assert statement["Action"] == network[0]["Action"]
            assert statement["Condition"]["ArnLike"]["lambda:SourceFunctionArn"].endswith(
                f":{function['FunctionName']}"
            )


@pytest.mark.parametrize("name", ["runtime", "runtime_network"])
def test_what_runs_plugins_may_write_its_log_and_nothing_else(deployment: Deployment, name: str) -> None:
    function = deployment.function(name)
    allowed = {
        action
        for statement in deployment.statements(function)
        if statement["Effect"] == "Allow"
        for action in listed(statement["Action"])
    }
    own = {"logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    assert allowed - set(rights.NETWORK_ACTIONS) == own
    assert set(function["Environment"]["Variables"]) <= {
        "HOTPLUG_ENDPOINT",
        "HOTPLUG_LOG_LEVEL",
        "HOTPLUG_RUNTIME_NETWORK",
    }


def test_an_endpoint_gets_what_it_declared(deployment: Deployment, table: FunctionTable) -> None:
    """From the other side than `rights` says it: which services a role names, by what the endpoint declared."""
    expected = {
        "database": {"rds-db"}, "open_secrets": {"kms"}, "seal_secrets": {"kms"}, "rewrap_keys": {"kms"},
        "presign": {"s3", "kms"}, "presign_packages": {"s3", "kms"}, "read_artifacts": {"s3", "kms"},
        "write_artifacts": {"s3", "kms"}, "register_artifacts": {"s3", "kms"},
        "remove_artifacts": {"s3"}, "remove_uploads": {"s3"}, "find_uploads": {"s3", "kms"},
        "check_uploads": {"s3", "kms"}, "invoke_runtime": {"lambda"}, "announce": {"sqs"}, "start_runs": {"lambda"},
        "answer_runs": {"lambda", "kms"}, "watch_runs": {"lambda"}, "keep_run_values": {"s3", "kms"},
        "remove_run_values": {"s3"}, "internet": set(),
        "ask_model": {"secretsmanager", "kms"}, "administer_database": {"secretsmanager", "kms"},
    }  # fmt: skip
    functions = deployment.functions()
    for function in table.functions:
        services = {
            action.partition(":")[0]
            for statement in deployment.statements(functions[function.name])
            for action in listed(statement["Action"])
        }
        always = {"logs", "xray"} | ({"sqs"} if function.queue else set())
        always |= {"lambda", "kms"} if function.durable else set()
        always |= {"ec2"} if "VpcConfig" in functions[function.name] else set()
        wanted = set().union(*(expected[right] for right in function.rights))
        assert services == always | wanted, function.name
    assert set(expected) == set(rights.RIGHTS)


def test_every_right_is_somebodys(table: FunctionTable) -> None:
    used = {right for function in table.functions for right in function.rights}
    assert used == set(rights.RIGHTS)


def test_a_right_that_nobody_grants_stops_packaging() -> None:
    with pytest.raises(KeyError, match="fly"):
        rights.statements(["database", "fly"])


def test_event_functions_that_are_declared_are_there(table: FunctionTable) -> None:
    assert set(EVENT_RIGHTS) <= {function.name for function in table.functions if function.kind != "api"}


def test_the_bedrock_model_is_the_only_one_that_may_be_asked(
    documents: dict[str, dict[str, dict[str, Any]]],
) -> None:
    found = deployed(documents["prod"], LlmProvider="bedrock", BedrockModel="amazon.nova-lite-v1:0")
    function = found.function("agents-invoke_agent")
    (asks,) = [s for s in found.statements(function) if "bedrock:InvokeModel" in s["Action"]]
    assert all(arn.endswith("amazon.nova-lite-v1:0") for arn in asks["Resource"])
    assert not any("secretsmanager" in json.dumps(s["Action"]) for s in found.statements(function))
    assert "HOTPLUG_LLM_KEY_SECRET" not in function["Environment"]["Variables"]
    none = deployed(documents["prod"], LlmProvider="none")
    assert "HOTPLUG_LLM_PROVIDER" not in none.function("agents-invoke_agent")["Environment"]["Variables"]


def test_the_master_key_is_the_deployments_own_or_another_and_the_former_one_only_unwraps(
    documents: dict[str, dict[str, dict[str, Any]]], table: FunctionTable
) -> None:
    other, former = (f"arn:aws:kms:eu-central-1:123456789012:key/{name}" for name in ("other", "former"))
    changed = deployed(documents["prod"], MasterKeyArn=other, FormerMasterKeyArn=former)
    own = deployed(documents["prod"])
    for found, key, name, expected in (
        (own, "Storage/DataKey.Arn", "Storage/DataKey", {}),
        (changed, other, other, {former: {"kms:Decrypt"}}),
    ):
        for function in table.functions:
            used: dict[str, set[str]] = {}
            for statement in found.statements(found.function(function.name)):
                if "kms:EncryptionContext:hotplug:app" in json.dumps(statement.get("Condition", {})):
                    used.setdefault(statement["Resource"], set()).update(listed(statement["Action"]))
            meant = {
                "open_secrets": {"kms:Decrypt"},
                "seal_secrets": {"kms:Decrypt", "kms:GenerateDataKey"},
                "rewrap_keys": {"kms:Encrypt"},
            }
            wanted = set().union(*(meant.get(right, set()) for right in function.rights))
            assert used == ({**expected, key: wanted} if wanted else {}), function.name
            variables = found.function(function.name)["Environment"]["Variables"]
            if "database" in function.rights:
                assert variables["HOTPLUG_KMS_KEY_ID"] == name
    assert [f.name for f in table.functions if "rewrap_keys" in f.rights] == ["maintenance-run_job"]


def test_durable_runs_get_their_configuration_and_rights_on_themselves_alone(
    deployment: Deployment, table: FunctionTable
) -> None:
    functions = deployment.functions()
    assert {name for name in functions if "DurableConfig" in functions[name]} == DURABLE
    for name in DURABLE:
        assert functions[name]["DurableConfig"] == {
            "ExecutionTimeout": DURABLE_TIMEOUT_S,
            "RetentionPeriodInDays": DURABLE_RETENTION_DAYS,
            "KMSKeyArn": "Storage/StorageKey.Arn",
        }
        own = [
            s
            for s in deployment.statements(functions[name])
            if "lambda:CheckpointDurableExecution" in s["Action"]
        ]
        assert [s["Resource"].rpartition("function:")[2] for s in own] == [
            f"{functions[name]['FunctionName']}:*"
        ]


def test_the_key_of_durable_runs_is_used_by_lambda_for_them_alone(deployment: Deployment) -> None:
    """Lambda encrypts checkpoints with a right of its own; who runs or answers a run may decrypt them, via Lambda."""
    (run,) = DURABLE
    run_arn = f"arn:aws:lambda:eu-central-1:123456789012:function:{deployment.function(run)['FunctionName']}"
    (own,) = [
        statement
        for statement in deployment.resources["Storage/StorageKey"]["Properties"]["KeyPolicy"]["Statement"]
        if statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    ]
    assert own["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert own["Condition"]["StringEquals"] == {
        "aws:SourceAccount": "123456789012",
        "aws:SourceArn": [run_arn],
        "kms:EncryptionContext:aws:lambda:FunctionArn": [run_arn],
    }
    reading = {
        "Effect": "Allow",
        "Action": ["kms:Decrypt"],
        "Resource": "Storage/StorageKey.Arn",
        "Condition": {
            "StringEquals": {
                "kms:ViaService": "lambda.eu-central-1.amazonaws.com",
                "kms:EncryptionContext:aws:lambda:FunctionArn": run_arn,
            }
        },
    }
    for name, function in deployment.functions().items():
        statements = deployment.statements(function)
        answers = any("lambda:SendDurableExecutionCallbackSuccess" in s["Action"] for s in statements)
        through = [
            s for s in statements if "lambda." in json.dumps(s.get("Condition", {}).get("StringEquals", {}))
        ]
        assert through == ([reading] if answers or name in DURABLE else []), name


# -- what is secret ------------------------------------------------------------------------------------------------


def test_no_template_and_no_environment_holds_a_secret(
    documents: dict[str, dict[str, dict[str, Any]]], deployment: Deployment, stage: str
) -> None:
    text = json.dumps(documents[stage])
    assert "{{resolve:" not in text
    assert not re.search(r"(?i)-----BEGIN|AKIA[A-Z0-9]{16}|sk-[a-z0-9]{16}", text)
    for name, function in deployment.functions().items():
        for variable, value in function["Environment"]["Variables"].items():
            if re.search(r"PASSWORD|KEY|SECRET|TOKEN", variable):
                # Ids of keys and ARNs of secrets.
                assert variable.endswith(("_KEY_ID", "_SECRET")), (name, variable)
                assert str(value).startswith(("Storage/", "Database/")), (name, variable, value)
    for secret in deployment.of_type("AWS::SecretsManager::Secret").values():
        assert "SecretString" not in secret
        assert secret["GenerateSecretString"]["PasswordLength"] >= 43  # 256 bits of letters and digits


def test_functions_sign_in_to_the_proxy_with_a_token(deployment: Deployment, table: FunctionTable) -> None:
    (proxy,) = deployment.of_type("AWS::RDS::DBProxy").values()
    assert proxy["RequireTLS"] is True
    assert [auth["IAMAuth"] for auth in proxy["Auth"]] == ["REQUIRED"]
    functions = deployment.functions()
    for function in table.functions:
        variables = functions[function.name]["Environment"]["Variables"]
        if "database" in function.rights:
            assert variables["HOTPLUG_DATABASE_AUTH"] == "iam"
            assert variables["MYSQL_HOST"] == "Database/Proxy.Endpoint"
        elif function.name != "migrate":
            assert "MYSQL_HOST" not in variables
