"""The networks made by moto's CloudFormation, which knows addresses, NATs, flow logs and rules of groups; ministack
does not (tests/integration/test_aws_emulator.py). It forgets other things: which subnet has which routes, and what a
group lets out."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.aws.stages import STAGES, Stage

ROOT = Path(__file__).resolve().parents[3]
Documents = dict[str, dict[str, dict[str, Any]]]
# Types that moto does not know either.
NOT_IN_MOTO = {
    "AWS::EC2::SecurityGroupEgress",
    "AWS::Route53Resolver::FirewallDomainList",
    "AWS::Route53Resolver::FirewallRuleGroup",
    "AWS::Route53Resolver::FirewallRuleGroupAssociation",
}


# Types that ministack does not know and moto does.
MADE_HERE = {"AWS::EC2::EIP", "AWS::EC2::NatGateway", "AWS::EC2::FlowLog", "AWS::EC2::SecurityGroupIngress"}


@pytest.fixture(scope="module", params=sorted(STAGES))
def made(
    request: pytest.FixtureRequest, documents: Documents
) -> Iterator[tuple[Stage, dict[str, str], set[str]]]:
    """A stage, the outputs of its network, and the types of what was not made."""
    stage = STAGES[request.param]
    document = documents[stage.name]["network.json"]
    given = {
        "Prefix": f"hotplug-{stage.name}", "BucketArn": "arn:aws:s3:::artifacts", "LogDays": "7",
        "S3PrefixListId": "pl-6ea54007", "InterfaceEndpoints": "yes" if stage.interface_endpoints else "no",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(variable, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws(), warnings.catch_warnings():
            # It warns of each resource that it does not make; the test compares the list.
            warnings.filterwarnings("ignore", "Tried to parse AWS::", UserWarning)
            client = boto3.client("cloudformation")
            client.create_stack(
                StackName="network",
                TemplateBody=json.dumps(document),
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
                Capabilities=["CAPABILITY_IAM"],
            )
            (stack,) = client.describe_stacks(StackName="network")["Stacks"]
            assert stack["StackStatus"] == "CREATE_COMPLETE"
            there = {
                found.get("LogicalResourceId")
                for found in client.describe_stack_resources(StackName="network")["StackResources"]
            }
            missing = {
                resource["Type"]
                for name, resource in document["Resources"].items()
                if name not in there
                and (stage.interface_endpoints or resource.get("Condition") != "HasInterfaceEndpoints")
            }
            yield stage, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}, missing


Made = tuple[Stage, dict[str, str], set[str]]


def test_what_moto_does_not_know_is_what_the_list_says(made: Made) -> None:
    _, _, missing = made
    assert missing == NOT_IN_MOTO and not missing & MADE_HERE


def test_the_manual_says_what_moto_makes_and_what_nothing_makes() -> None:
    lines = (ROOT / "infra/aws/README.md").read_text().splitlines()
    (made,) = [line for line in lines if "made by moto's CloudFormation" in line]
    (nowhere,) = [line for line in lines if "made by no emulator" in line]
    assert set(re.findall(r"AWS::EC2::\w+", made)) == MADE_HERE
    assert {kind for kind in re.findall(r"AWS::[\w:]+", nowhere) if "RDS" not in kind} == NOT_IN_MOTO


def test_nats_stand_in_public_subnets_and_their_addresses_are_told(made: Made) -> None:
    stage, outputs, _ = made
    client = boto3.client("ec2")
    nats = client.describe_nat_gateways()["NatGateways"]
    assert len(nats) == stage.nat_zones
    addresses = [address["PublicIp"] for address in client.describe_addresses()["Addresses"]]
    assert addresses == outputs["NatAddresses"].split(",")
    assert [nat["NatGatewayAddresses"][0]["PublicIp"] for nat in nats] == addresses
    subnets = client.describe_subnets(SubnetIds=[nat["SubnetId"] for nat in nats])["Subnets"]
    assert {subnet["CidrBlock"] for subnet in subnets} == {
        f"10.72.{zone}.0/24" for zone in range(stage.nat_zones)
    }
    # The routes of the application lead to a NAT each, of its own zone where there is one.
    led = [
        route["NatGatewayId"]
        for table in client.describe_route_tables()["RouteTables"]
        for route in table["Routes"]
        if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("NatGatewayId")
    ]
    assert len(led) == 2 and set(led) == {nat["NatGatewayId"] for nat in nats}


def test_groups_let_in_what_the_next_one_sends_and_nothing_else(made: Made) -> None:
    _, outputs, _ = made
    ours = {outputs[name]: name for name in outputs if name.endswith(("Group", "Clients"))}
    found = set()
    for group in boto3.client("ec2").describe_security_groups()["SecurityGroups"]:
        name = ours.get(group["GroupId"]) or group["Description"]
        for rule in group["IpPermissions"]:
            assert (rule["IpProtocol"], rule["FromPort"], rule["IpRanges"]) == ("tcp", rule["ToPort"], [])
            found |= {(name, rule["ToPort"], ours[pair["GroupId"]]) for pair in rule["UserIdGroupPairs"]}
    assert found == {
        ("ProxyGroup", 3306, "DatabaseClients"),
        ("ClusterGroup", 3306, "ProxyGroup"),
        ("ClusterGroup", 3306, "MigrateGroup"),
        ("Interface endpoints", 443, "ServiceClients"),
    }


def test_refused_connections_of_both_networks_are_logged(made: Made) -> None:
    stage, _, _ = made
    client = boto3.client("ec2")
    logs = client.describe_flow_logs()["FlowLogs"]
    networks = {
        vpc["CidrBlock"]: vpc["VpcId"] for vpc in client.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]
    }
    assert set(networks) == {"10.72.0.0/16", "10.73.0.0/24"}
    assert {log["ResourceId"] for log in logs} == set(networks.values())
    for log in logs:
        assert log["TrafficType"] == "REJECT"
        assert log["LogGroupName"] == f"/hotplug/hotplug-{stage.name}/refused-connections"
        role = boto3.client("iam").get_role(RoleName=log["DeliverLogsPermissionArn"].rpartition("/")[2])[
            "Role"
        ]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": "vpc-flow-logs.amazonaws.com"}


def test_endpoints_are_those_of_the_stage(made: Made) -> None:
    stage, outputs, _ = made
    endpoints = boto3.client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    kinds: dict[str, list[dict[str, Any]]] = {"Gateway": [], "Interface": []}
    for endpoint in endpoints:
        kinds[endpoint["VpcEndpointType"]].append(endpoint)
    assert {found["ServiceName"] for found in kinds["Gateway"]} == {"com.amazonaws.us-east-1.s3"}
    assert len({found["VpcId"] for found in kinds["Gateway"]}) == 2
    assert sorted(len(found["RouteTableIds"]) for found in kinds["Gateway"]) == [1, 2]
    names = ("lambda", "kms", "sqs", "secretsmanager", "bedrock-runtime") if stage.interface_endpoints else ()
    assert {found["ServiceName"].rpartition(".")[2] for found in kinds["Interface"]} == set(names)
    for found in kinds["Interface"]:
        assert found["PrivateDnsEnabled"] and set(found["SubnetIds"]) == set(outputs["AppSubnets"].split(","))
