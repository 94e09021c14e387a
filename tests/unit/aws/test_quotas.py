"""What the templates make fits into what AWS gives a new account, or cannot be raised.

Each number is AWS's default; where it is written is beside it. Those of CloudFormation are in test_limits.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chalicelib.flows.dsl.limits import MAX_DURABLE_OPERATIONS
from chalicelib.flows.engine.durable import MAX_OPERATIONS
from chalicelib.flows.runs.resuming import MAX_ANSWER
from chalicelib.flows.runs.values import MAX_INLINE
from infra.aws.stages import STAGES
from infra.functions import DURABLE_RETENTION_DAYS, DURABLE_TIMEOUT_S, FunctionTable
from tests.aws_templates import Deployment

ROOT = Path(__file__).resolve().parents[3]
# A name that is only known after deployment stands as Stack/LogicalId[.Attribute] here and is an ARN or a URL there.
LONGEST_NAME = 160
PLACEHOLDER = re.compile(r"\b[A-Z]\w*/[A-Z]\w*(?:\.[\w.]+)?")


def size(document: Any) -> int:
    """Return how many characters a document has as AWS counts them, without white space, at worst."""
    text = re.sub(r"\s", "", json.dumps(document))
    return len(PLACEHOLDER.sub("x" * LONGEST_NAME, text))


def interfaces(deployment: Deployment) -> set[tuple[str, frozenset[str]]]:
    """Return what Lambda makes an interface for: each pair of a subnet and a set of groups."""
    networks = [f["VpcConfig"] for f in deployment.functions().values() if "VpcConfig" in f]
    return {
        (subnet, frozenset(network["SecurityGroupIds"]))
        for network in networks
        for subnet in network["SubnetIds"]
    }


def api_resources(deployment: Deployment) -> set[str]:
    """Return the API's resources: its root, its paths and each part that leads to one."""
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    found = {"/"}
    for path in api["Body"]["paths"]:
        parts = path.strip("/").split("/")
        found |= {"/".join(parts[: depth + 1]) for depth in range(len(parts))}
    return found


def test_size_counts_names_that_are_not_known_yet() -> None:
    assert size({"a": "Storage/Bucket.Arn/plugins/*"}) == len('{"a":"/plugins/*"}') + LONGEST_NAME


def test_each_roles_policies_fit_and_so_do_four_stages_of_roles(deployment: Deployment) -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""
    roles = deployment.of_type("AWS::IAM::Role")
    assert len(roles) <= 1_000 / 4
    for name, role in roles.items():
        assert sum(size(policy["PolicyDocument"]) for policy in role.get("Policies", [])) <= 10_240, name
        assert size(role["AssumeRolePolicyDocument"]) <= 2_048, name
        assert len(role.get("ManagedPolicyArns", [])) <= 10, name


def test_functions_are_within_what_lambda_does_not_raise(deployment: Deployment) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
    granted: Counter[str] = Counter()
    for permission in deployment.of_type("AWS::Lambda::Permission").values():
        # What Lambda adds to it: the statement's Sid and its brackets.
        granted[permission["FunctionName"]] += size(permission) + 400
    assert max(granted.values()) <= 20 * 1024
    for name, function in deployment.functions().items():
        assert (
            sum(size([key, value]) for key, value in function["Environment"]["Variables"].items()) <= 4 * 1024
        ), name
        assert function["Timeout"] <= 900 and 128 <= function["MemorySize"] <= 10_240, name
        assert len(function["Layers"]) <= 5, name


def test_durable_runs_stay_below_what_ends_an_execution() -> None:
    """The same page, and the SDK's CHECKPOINT_SIZE_LIMIT_BYTES."""
    assert MAX_DURABLE_OPERATIONS < MAX_OPERATIONS < 3_000
    assert max(MAX_INLINE, MAX_ANSWER) < 256 * 1024
    assert DURABLE_TIMEOUT_S <= 31_622_400 and DURABLE_RETENTION_DAYS <= 90


def test_the_api_fits_into_one(deployment: Deployment, table: FunctionTable) -> None:
    """https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html"""
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    assert len(api_resources(deployment)) <= 300
    assert size(api["Body"]) <= 6_000_000
    assert all(route.function.timeout_s <= 29 for route in table.routes)
    (stage,) = deployment.of_type("AWS::ApiGateway::Stage").values()
    # Of each method they would be billed; nothing here looks at them.
    assert [setting["MetricsEnabled"] for setting in stage["MethodSettings"]] == [False]


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_throttles_before_the_account_does(name: str) -> None:
    """2,500 and 1,250 in the regions that have the least, 10,000 and 5,000 elsewhere.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
    """
    assert STAGES[name].rate <= 2_500 and STAGES[name].burst <= 1_250


def test_the_networks_fit_beside_the_accounts_own(deployment: Deployment) -> None:
    """https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html"""
    assert len(deployment.of_type("AWS::EC2::VPC")) + 1 <= 5  # and the default one
    assert len(deployment.of_type("AWS::EC2::EIP")) <= 5
    assert len(interfaces(deployment)) <= 250  # 500 for Lambda in one VPC; older pages say 250
    assert all(len(groups) <= 5 for _, groups in interfaces(deployment))
    rules = Counter[str]()
    for kind in ("Ingress", "Egress"):
        for rule in deployment.of_type(f"AWS::EC2::SecurityGroup{kind}").values():
            rules[f"{kind} {rule['GroupId']}"] += 1  # S3's prefix list counts as one rule
    assert max(rules.values()) + 1 <= 60
    for name, endpoint in deployment.of_type("AWS::EC2::VPCEndpoint").items():
        assert size(endpoint["PolicyDocument"]) <= 20_480, name


def test_other_policies_fit(deployment: Deployment) -> None:
    """KMS 32 KB, S3 20 KB; SQS takes 20 statements.

    https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html,
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html,
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html
    """
    for name, key in deployment.of_type("AWS::KMS::Key").items():
        assert size(key["KeyPolicy"]) <= 32 * 1024, name
    for name, bucket in deployment.of_type("AWS::S3::BucketPolicy").items():
        assert size(bucket["PolicyDocument"]) <= 20 * 1024, name
    for name, queue in deployment.of_type("AWS::SQS::QueuePolicy").items():
        assert len(queue["PolicyDocument"]["Statement"]) <= 20, name


def test_the_dashboard_and_the_schedules_fit(deployment: Deployment) -> None:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html,
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html
    """
    (dashboard,) = deployment.of_type("AWS::CloudWatch::Dashboard").values()
    lines = [
        len(widget["properties"]["metrics"]) for widget in json.loads(dashboard["DashboardBody"])["widgets"]
    ]
    assert max(lines) <= 500 and sum(lines) <= 2_500
    rules = deployment.of_type("AWS::Events::Rule")
    assert len(rules) <= 100  # the least of all regions
    assert all(len(rule["Targets"]) <= 5 for rule in rules.values())


def test_the_readme_counts_what_is_paid_by_the_piece_and_what_counts_against_a_quota(
    deployment: Deployment, table: FunctionTable
) -> None:
    readme = (ROOT / "infra/aws/README.md").read_text()
    manual = (ROOT / "docs/operations.md").read_text().partition("Metrics are written as")[2]
    manual = manual.partition("\n\nPer plugin")[0]
    own = set(re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| (`[^|]+) \|", manual, re.MULTILINE))))
    code = "".join(path.read_text() for path in (ROOT / "chalicelib").rglob("*.py"))
    assert set(re.findall(r'telemetry\.metric\(\s*"([a-z_.]+)"', code)) <= own
    filters = deployment.of_type("AWS::Logs::MetricFilter")
    (dashboard,) = deployment.of_type("AWS::CloudWatch::Dashboard").values()
    lines = [
        len(widget["properties"]["metrics"]) for widget in json.loads(dashboard["DashboardBody"])["widgets"]
    ]
    written = " ".join(readme.split())
    for text in (
        f"{len(deployment.of_type('AWS::CloudWatch::Alarm'))} alarms, 1 dashboard",
        f"up to {len(own) + len(filters)} metrics of our own, ${(len(own) + len(filters)) * 0.3:.2f}: {len(own)} that",
        f"error lines of {len(filters)} domains",
        f"{len(deployment.of_type('AWS::IAM::Role'))} roles a stage",
        f"for each of {len(table.functions)} functions",
        f"{len(api_resources(deployment))} are used",
        f"{len(interfaces(deployment))} |",
        f"| {max(lines)} and {sum(lines)} |",
    ):
        assert text in written, text
