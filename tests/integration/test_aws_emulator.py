"""The package deployed into an emulator's CloudFormation, and a request through its API Gateway into app.py.

What it shows: the templates are accepted and make what they name, and the zips run as functions. What the emulator
does not have is listed in `NOT_EMULATED`, and what it does not enforce (roles, networks, quotas) it cannot show.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.aws.dependencies import find_target
from infra.aws.package import build
from infra.functions import FunctionTable, function_table
from tests.aws_templates import transformed
from tests.ministack import Ministack, running_ministack

pytestmark = pytest.mark.slow
PREFIX, BUCKET = "hotplug-dev", "packages"
# Types of resources that the emulator does not know, so network and database are not deployed.
NOT_EMULATED = {
    "network.json": {
        "AWS::EC2::EIP", "AWS::EC2::FlowLog", "AWS::EC2::NatGateway", "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress", "AWS::Route53Resolver::FirewallDomainList",
        "AWS::Route53Resolver::FirewallRuleGroup", "AWS::Route53Resolver::FirewallRuleGroupAssociation",
    },
    "database.json": {"AWS::RDS::DBProxy", "AWS::RDS::DBProxyTargetGroup"},
}  # fmt: skip

# Parameters of the deployment that mean something by being empty: there is no master key but the stack's own.
MISSING = {"MasterKeyArn": "", "FormerMasterKeyArn": ""}


@dataclass
class Account:
    """An emulated account, and what was deployed into it."""

    aws: Ministack
    documents: dict[str, dict[str, Any]]
    outputs: dict[str, str] = field(default_factory=dict)

    def deploy(self, name: str, document: dict[str, Any]) -> None:
        """Create a stack and wait for it; its outputs are parameters of those after it."""
        made = transformed(document)
        self.aws.client("s3").put_object(Bucket=BUCKET, Key=f"{name}.json", Body=json.dumps(made))
        parameters = [
            {"ParameterKey": key, "ParameterValue": self.outputs.get(key, MISSING.get(key, "none"))}
            for key in made.get("Parameters", {})
        ]
        client = self.aws.client("cloudformation")
        client.create_stack(
            StackName=name,
            TemplateURL=f"{self.aws.url}/{BUCKET}/{name}.json",
            Parameters=parameters,
            Capabilities=["CAPABILITY_IAM"],
        )
        end = time.monotonic() + 60
        while (stack := client.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"].endswith(
            "IN_PROGRESS"
        ):
            assert time.monotonic() < end, f"{name} does not end"
            time.sleep(0.05)
        failures = [
            (event["LogicalResourceId"], event.get("ResourceStatusReason"))
            for event in client.describe_stack_events(StackName=name)["StackEvents"]
            if "FAILED" in event["ResourceStatus"]
        ]
        assert stack["StackStatus"] == "CREATE_COMPLETE", failures
        self.outputs |= {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


@pytest.fixture(scope="module")
def table() -> FunctionTable:
    return function_table(per_endpoint=True)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Everything but network and database, deployed. The zips are for the running Python, with which the emulator runs
    functions, whatever their runtime says."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder: Path = build("dev", find_target(running), tmp_path_factory.mktemp("package") / "out").folder
    documents = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    with running_ministack() as aws:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        for name in ("code.zip", "dependencies.zip"):
            s3.upload_file(str(folder / name), BUCKET, name)
        found = Account(aws, documents)
        found.outputs |= {
            "Prefix": PREFIX,
            "PythonRuntime": f"python{running}",
            "LogDays": "7",
            "LogLevel": "INFO",
        }
        found.outputs |= {
            "Rate": "50",
            "Burst": "100",
            "DomainName": "",
            "CertificateArn": "",
            "GatewayAccount": "create",
        }
        found.deploy("storage", documents["storage.json"])
        found.deploy("layer", layer(documents["template.json"]))
        for name, document in documents.items():
            if name.startswith("functions-"):
                found.deploy(name.removesuffix(".json").replace("_", "-"), without_migration(document))
        found.deploy("api", documents["api.json"])
        yield found


def layer(root: dict[str, Any]) -> dict[str, Any]:
    """Return a template of the layer alone, which the root stack has beside its nested ones."""
    names = {"Stage", "PythonRuntime"}
    return {
        "Transform": root["Transform"],
        "Parameters": {name: {"Type": "String", "Default": "dev"} for name in names},
        "Resources": {"Layer": root["Resources"]["Layer"]},
        "Outputs": {"LayerArn": {"Value": {"Ref": "Layer"}}},
    }


def without_migration(document: dict[str, Any]) -> dict[str, Any]:
    """There is no database that it could migrate."""
    resources = {k: r for k, r in document["Resources"].items() if r["Type"] != "Custom::Migration"}
    outputs = {k: o for k, o in document.get("Outputs", {}).items() if k != "Revision"}
    return {**document, "Resources": resources, "Outputs": outputs}


def test_what_the_emulator_does_not_know_is_what_the_list_says(account: Account) -> None:
    for name, unknown in NOT_EMULATED.items():
        with pytest.raises(ClientError) as refused:
            account.deploy("refused", account.documents[name])
        listed = str(refused.value).partition("[")[2].partition("]")[0]
        assert set(listed.split(", ")) == unknown


def test_every_function_is_there_with_a_role_and_an_alias_of_its_own(
    account: Account, table: FunctionTable
) -> None:
    client = account.aws.client("lambda")
    functions = {
        found["FunctionName"]: found
        for page in client.get_paginator("list_functions").paginate()
        for found in page["Functions"]
    }
    assert set(functions) == {f"{PREFIX}-{function.name}" for function in table.functions}
    roles = {role["Arn"] for page in account.aws.client("iam").get_paginator("list_roles").paginate()
             for role in page["Roles"]}  # fmt: skip
    assert len({found["Role"] for found in functions.values()}) == len(functions)
    assert {found["Role"] for found in functions.values()} <= roles
    for name in functions:
        assert client.get_alias(FunctionName=name, Name="live")["FunctionVersion"] != "$LATEST"


def test_queues_and_the_buckets_notification_are_there(account: Account) -> None:
    sqs, s3 = account.aws.client("sqs"), account.aws.client("s3")
    queues = {url.rpartition("/")[2]: url for url in sqs.list_queues()["QueueUrls"]}
    assert set(queues) == {f"{PREFIX}-{name}" for name in ("installs", "installs-dead", "schedules-dead")}
    attributes = sqs.get_queue_attributes(QueueUrl=queues[f"{PREFIX}-installs"], AttributeNames=["All"])[
        "Attributes"
    ]
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].endswith("-installs-dead")
    bucket = account.outputs["Bucket"]
    (notified,) = s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert notified["QueueArn"] == account.outputs["InstallQueueArn"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    mappings = account.aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert {mapping["EventSourceArn"].rpartition(":")[2] for mapping in mappings} == {
        f"{PREFIX}-installs",
        f"{PREFIX}-installs-dead",
    }


def test_every_route_is_a_method_of_the_api(account: Account, table: FunctionTable) -> None:
    client = account.aws.client("apigateway")
    (api,) = client.get_rest_apis()["items"]
    resources = [
        resource
        for page in client.get_paginator("get_resources").paginate(restApiId=api["id"], embed=["methods"])
        for resource in page["items"]
    ]
    methods = {
        (method, resource["path"]) for resource in resources for method in resource.get("resourceMethods", {})
    }
    assert methods == {(route.method, route.path) for route in table.routes}


def test_a_request_through_the_gateway_reaches_the_application(
    account: Account, table: FunctionTable
) -> None:
    (api,) = account.aws.client("apigateway").get_rest_apis()["items"]
    url = f"{account.aws.url}/restapis/{api['id']}/api/_user_request_/openapi.json"
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.status == 200
        document = json.load(answer)
    described = {(m.upper(), path) for path, operations in document["paths"].items() for m in operations}
    assert described == {(route.method, route.path) for route in table.routes}
