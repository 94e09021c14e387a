"""The templates as a whole: what AWS's own tools say of them, and that they name what the application has."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.aws.root import Packaged
from infra.functions import FunctionTable
from tests.aws_templates import Deployment, deployed, transformed

ROOT = Path(__file__).resolve().parents[3]
Documents = dict[str, dict[str, dict[str, Any]]]


def test_cfn_lint_finds_nothing(documents: Documents, tmp_path: Path) -> None:
    """In any template of either stage; nested ones are also held against what the root gives them."""
    chosen = []
    for stage, files in documents.items():
        (tmp_path / stage).mkdir()
        for name, document in files.items():
            path = tmp_path / stage / name
            path.write_text(json.dumps(document))
            # What is the same in both stages is linted once.
            if stage == "prod" or document != documents["prod"][name]:
                chosen.append(path)
    command = [Path(sys.executable).with_name("cfn-lint"), "--config-file", ROOT / "infra/aws/.cfnlintrc.yaml",
               "--format", "parseable", "--include-checks", "W", "-t", *chosen]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_rule_that_is_not_asked_has_its_reason() -> None:
    lines = (ROOT / "infra/aws/.cfnlintrc.yaml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"\s+- [EWI]\d+", line):
            assert re.match(r"\s+# .{20,}", before), line


def test_routes_functions_and_operations_are_the_same(deployment: Deployment, table: FunctionTable) -> None:
    import app
    from chalicelib.api.openapi import document

    routed = {(method, path) for path, methods in app.app.routes.items() for method in methods}
    described = {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
        if method in ("get", "put", "post", "patch", "delete")
    }
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    integrated = {
        (method.upper(), path): operation["x-amazon-apigateway-integration"]["uri"]
        for path, operations in api["Body"]["paths"].items()
        for method, operation in operations.items()
    }
    assert routed == described == set(integrated)
    aliases = {alias["FunctionName"]: alias for alias in deployment.of_type("AWS::Lambda::Alias").values()}
    logical = {
        properties["FunctionName"]: name
        for name, properties in deployment.of_type("AWS::Lambda::Function").items()
    }
    functions = deployment.functions()
    for (method, path), uri in integrated.items():
        name = re.fullmatch(r".*:function:([\w-]+):live/invocations", uri)
        assert name is not None, uri
        served, _, _ = table.route(method, path)
        assert name[1].endswith(f"-{served.name}")
        assert aliases[logical[name[1]]]["Name"] == "live"
        variables = functions[served.name]["Environment"]["Variables"]
        assert variables["HOTPLUG_ENDPOINT"] == served.environment["HOTPLUG_ENDPOINT"]
    assert {name for name in functions if functions[name]["Handler"] == "app.app"} == {
        route.function.name for route in table.routes
    }


def test_the_gateway_may_call_each_function_for_its_own_method_only(
    deployment: Deployment, table: FunctionTable
) -> None:
    allowed = {
        permission["FunctionName"]: permission["SourceArn"]
        for permission in deployment.of_type("AWS::Lambda::Permission").values()
        if permission["Principal"] == "apigateway.amazonaws.com"
    }
    assert len(allowed) == len(table.routes)
    for route in table.routes:
        (source,) = [arn for name, arn in allowed.items() if name.endswith(f"-{route.function.name}:live")]
        assert source.endswith(f"/api/{route.method}{re.sub('{[^}]+}', '*', route.path)}")


def test_every_function_of_the_table_is_deployed_as_declared(
    deployment: Deployment, table: FunctionTable
) -> None:
    functions = deployment.functions()
    assert set(functions) == {function.name for function in table.functions}
    roles = [properties["Role"] for properties in functions.values()]
    assert len(set(roles)) == len(roles)
    for function in table.functions:
        properties = functions[function.name]
        assert (properties["Timeout"], properties["MemorySize"]) == (function.timeout_s, function.memory_mb)
        assert properties["Runtime"] == "python3.13"
        assert properties["TracingConfig"] == {"Mode": "Active"}
        assert len(properties["FunctionName"]) <= 64
        tenancy = {"TenantIsolationMode": "PER_TENANT"} if function.per_tenant else None
        assert properties.get("TenancyConfig") == tenancy


def test_events_trigger_the_aliases_of_their_functions(
    deployment: Deployment, table: FunctionTable, packaged: Packaged
) -> None:
    assert set(packaged.events) == {f.name for f in table.functions if f.kind in ("sqs", "schedule")}
    mappings = deployment.of_type("AWS::Lambda::EventSourceMapping").values()
    assert len(mappings) == len([f for f in table.functions if f.kind == "sqs"])
    queues = deployment.of_type("AWS::SQS::Queue")
    for mapping in mappings:
        function = deployment.resources[mapping["FunctionName"].removesuffix("Aliaslive")]["Properties"]
        queue = queues[mapping["EventSourceArn"].removesuffix(".Arn")]
        assert queue["VisibilityTimeout"] >= 6 * function["Timeout"]
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2
    rules = {
        str(rule["ScheduleExpression"]): rule for rule in deployment.of_type("AWS::Events::Rule").values()
    }
    assert set(rules) == {f.schedule for f in table.functions if f.kind == "schedule"}
    assert all(target["DeadLetterConfig"] for rule in rules.values() for target in rule["Targets"])


def test_the_migration_runs_before_any_other_function_changes(documents: Documents, stage: str) -> None:
    resources = documents[stage]["template.json"]["Resources"]
    for name, resource in resources.items():
        if name.startswith("Functions") and name != "FunctionsMigration":
            assert resource["DependsOn"] == ["FunctionsMigration"]
    (migration,) = [r for r in documents[stage]["functions-migration.json"]["Resources"].values()
                    if r["Type"] == "Custom::Migration"]  # fmt: skip
    assert migration["Properties"] == {
        "ServiceToken": {"Ref": "Migrate.Alias"},
        "ServiceTimeout": 600,
        # Each of these, once it is another, runs it again.
        "Release": "release",
        "Run": {"Ref": "MigrationRun"},
        "Host": {"Ref": "ClusterEndpoint"},
        "MasterSecret": {"Ref": "MasterSecretArn"},
    }


def test_the_gateway_answers_in_the_shape_of_every_other_problem(deployment: Deployment) -> None:
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    responses = api["Body"]["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "MISSING_AUTHENTICATION_TOKEN", "THROTTLED"} <= set(responses)
    for kind, response in responses.items():
        filled = re.sub(r"\$context\.status", "418", response["responseTemplates"]["application/json"])
        problem = json.loads(filled)
        assert problem["type"] == f"urn:hotplug:problem:{problem['code']}", kind
        assert problem["status"] == response.get("statusCode", 418)
        assert (
            response["responseParameters"]["gatewayresponse.header.Content-Type"]
            == "'application/problem+json'"
        )
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert "multipart/form-data" in api["Body"]["x-amazon-apigateway-binary-media-types"]


def test_the_api_waits_for_the_account_to_have_a_role_for_its_logs(
    documents: Documents, deployment: Deployment
) -> None:
    (api,) = deployment.of_type("AWS::ApiGateway::RestApi").values()
    assert "Api/GatewayAccountRole" in api["Description"]
    there = deployed(documents["prod"], GatewayAccount="exists")
    assert not there.of_type("AWS::ApiGateway::Account")


def test_what_must_outlive_the_stack_does(documents: Documents, stage: str) -> None:
    kept = {"AWS::S3::Bucket": "Retain", "AWS::KMS::Key": "Retain", "AWS::SecretsManager::Secret": "Retain",
            "AWS::RDS::DBCluster": "Snapshot"}  # fmt: skip
    for document in documents[stage].values():
        for name, resource in document["Resources"].items():
            if policy := kept.get(resource["Type"]):
                assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == policy, name


def test_prod_is_protected_and_dev_is_cheap(documents: Documents) -> None:
    def defaults(stage: str) -> dict[str, Any]:
        return {k: v.get("Default") for k, v in documents[stage]["template.json"]["Parameters"].items()}

    dev, prod = defaults("dev"), defaults("prod")
    assert (prod["DeletionProtection"], dev["DeletionProtection"]) == ("true", "false")
    assert (prod["InterfaceEndpoints"], dev["InterfaceEndpoints"]) == ("yes", "no")
    instances = {
        stage: [n for n, r in documents[stage]["database.json"]["Resources"].items()
                if r["Type"] == "AWS::RDS::DBInstance"]
        for stage in ("dev", "prod")
    }  # fmt: skip
    assert instances == {"dev": ["Writer"], "prod": ["Writer", "Reader1"]}


@pytest.mark.parametrize(
    "encrypted", ["AWS::RDS::DBCluster", "AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SNS::Topic"]
)
def test_what_is_kept_is_encrypted(deployment: Deployment, encrypted: str) -> None:
    for name, properties in deployment.of_type(encrypted).items():
        assert any(
            properties.get(key)
            for key in ("StorageEncrypted", "BucketEncryption", "SqsManagedSseEnabled", "KmsMasterKeyId")
        ), name


def published(documents: Documents, stage: str, release: str, **parameters: str) -> set[str]:
    """Return the logical ids of every version that a deployment of a release makes: what is new is published."""
    found: set[str] = set()
    for name, document in documents[stage].items():
        if name.startswith("functions-"):
            text = json.dumps(document).replace('"Hotplug release release"', f'"Hotplug release {release}"')
            made = transformed(json.loads(text), **parameters)["Resources"]
            versions = {key: one for key, one in made.items() if one["Type"] == "AWS::Lambda::Version"}
            # A version of the release before stays when its resource goes.
            assert all(one["DeletionPolicy"] == "Retain" for one in versions.values())
            found |= {f"{name}/{key}" for key in versions}
    return found


def test_a_release_publishes_every_function_also_where_only_the_layer_changed(
    documents: Documents, deployment: Deployment, stage: str
) -> None:
    """SAM names a version by the function's properties, in which the layer is a reference: it sees another layer as
    little as another log level. The release in the description is what it sees."""
    first = published(documents, stage, "1", LayerArn="layer:1", LogLevel="INFO")
    assert len(first) == len(deployment.functions())
    assert published(documents, stage, "1", LayerArn="layer:2", LogLevel="INFO") == first
    assert published(documents, stage, "1", LayerArn="layer:1", LogLevel="DEBUG") == first
    assert not published(documents, stage, "2", LayerArn="layer:2", LogLevel="INFO") & first
    for function in deployment.functions().values():
        assert function["Description"] == "Hotplug release release"
