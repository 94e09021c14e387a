"""Limits of CloudFormation that the templates must keep: what is over one is refused when it is deployed, or when it is
updated.

Sizes of what `aws cloudformation package` writes are looked at in tests/integration/test_aws_emulator.py; what the
templates make must fit into quotas of other services, which is test_quotas.py.
"""

from __future__ import annotations

import json
from typing import Any

from tests.aws_templates import transformed

Documents = dict[str, dict[str, dict[str, Any]]]
# Of one template: AWS takes 500. https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
MAX_RESOURCES = 400
# Of all nested stacks in one operation.
MAX_NESTED_RESOURCES = 2_500
# Kept free of them, for what the next domains bring.
MARGIN = 0.75


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
