"""Limits of AWS that a template must keep: what is over one is refused when it is deployed, or later at an update.

Sizes of what `aws cloudformation package` writes are looked at in tests/integration/test_aws_emulator.py.
"""

from __future__ import annotations

import json
from typing import Any

from tests.aws_templates import Deployment, transformed

Documents = dict[str, dict[str, dict[str, Any]]]
# Of one template: AWS takes 500. https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_RESOURCES = 400
# Of all nested stacks in one operation.
MAX_NESTED_RESOURCES = 2_500
# Names and ARNs that AWS makes are longer than those that stand for them here, so the rest is kept free.
MARGIN = 0.75


def written(value: Any) -> int:
    """Return the characters of a document as AWS counts them, without white space."""
    return len(json.dumps(value, separators=(",", ":")))


def test_after_the_transform_no_stack_comes_near_the_limit(documents: Documents, stage: str) -> None:
    made = {name: transformed(document) for name, document in documents[stage].items()}
    sizes = {name: len(document["Resources"]) for name, document in made.items()}
    assert max(sizes.values()) <= MAX_RESOURCES, sizes
    assert sum(sizes.values()) <= MAX_NESTED_RESOURCES * MARGIN
    assert "AWS::Serverless::" not in json.dumps(made)
    for name, document in made.items():
        # A template that a URL names has at most 1 MB.
        assert len(json.dumps(document)) < 1_000_000, name
        assert len(document["Description"].encode()) <= 1024, name
        for section in ("Parameters", "Outputs"):
            assert len(document.get(section, {})) <= 200, name
        for section in ("Parameters", "Outputs", "Resources"):
            assert all(len(key) <= 255 for key in document.get(section, {})), name


def test_functions_keep_the_limits_of_lambda(deployment: Deployment) -> None:
    for name, properties in deployment.functions().items():
        variables = properties["Environment"]["Variables"]
        size = sum(len(key.encode()) + len(str(value).encode()) for key, value in variables.items())
        assert size <= 4096 * MARGIN, (name, size)
        assert len(properties["Layers"]) <= 5
        assert len(properties.get("VpcConfig", {}).get("SecurityGroupIds", [])) <= 5, name


def test_policies_keep_the_limits_of_their_services(deployment: Deployment) -> None:
    for name, role in deployment.of_type("AWS::IAM::Role").items():
        # All that is written into a role together.
        used = sum(written(policy["PolicyDocument"]) for policy in role.get("Policies", []))
        assert used <= 10_240 * MARGIN, (name, used)
        assert written(role["AssumeRolePolicyDocument"]) <= 2_048 * MARGIN, name
    for kind, field, limit in (
        ("AWS::KMS::Key", "KeyPolicy", 32_768),
        ("AWS::EC2::VPCEndpoint", "PolicyDocument", 20_480),
        ("AWS::S3::BucketPolicy", "PolicyDocument", 20_480),
    ):
        found = deployment.of_type(kind)
        assert found
        for name, properties in found.items():
            assert written(properties[field]) <= limit * MARGIN, name


def test_the_api_keeps_the_limits_of_the_gateway(deployment: Deployment) -> None:
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    # Each part of a path is a resource, the root too.
    parts = set()
    for path in api["Body"]["paths"]:
        words = path.rstrip("/").split("/")
        parts |= {tuple(words[: end + 1]) for end in range(len(words))}
    assert 50 < len(parts) <= 300 * MARGIN, len(parts)
