"""Where each function's packets can go, walked from the template: subnets, routes, groups, endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from chalicelib.core.storage import s3_client
from infra.functions import FunctionTable
from tests.aws_templates import Deployment, deployed

S3 = "pl-6ea54007"
ANYWHERE = "0.0.0.0/0"


class Network:
    """The network of a deployment, asked from a function."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._routes = {
            p["SubnetId"]: p["RouteTableId"]
            for p in deployment.of_type("AWS::EC2::SubnetRouteTableAssociation").values()
        }

    def reaches(self, function: dict[str, Any]) -> set[str]:
        """Return what a function can open a connection to: names of targets, with `:port` inside the network."""
        config = function.get("VpcConfig")
        if config is None:
            return {"internet"}  # Lambda's own network: no address of a VPC of ours is there
        found = set()
        for subnet in config["SubnetIds"]:
            table = self._routes[subnet]
            for kind, rule in self._egress(config["SecurityGroupIds"]):
                found |= set(self._targets(table, subnet, kind, rule, config["SecurityGroupIds"]))
        return found

    def _egress(self, groups: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for rule in self._deployment.of_type("AWS::EC2::SecurityGroupEgress").values():
            if rule["GroupId"] in groups:
                (kind,) = {"DestinationSecurityGroupId", "DestinationPrefixListId", "CidrIp"} & set(rule)
                yield kind, rule
        for name in groups:
            (inline,) = self._deployment.resources[name]["Properties"]["SecurityGroupEgress"]
            assert inline["CidrIp"] == "127.0.0.1/32"

    def _targets(
        self, table: str, subnet: str, kind: str, rule: dict[str, Any], groups: list[str]
    ) -> Iterator[str]:
        if kind == "DestinationSecurityGroupId":
            target = rule[kind]
            if self._admits(target, groups, rule["FromPort"]) and self._vpc(target) == self._subnet_vpc(
                subnet
            ):
                yield f"{target}:{rule['FromPort']}"
        elif kind == "DestinationPrefixListId":
            assert rule[kind] == S3
            for name, endpoint in self._deployment.of_type("AWS::EC2::VPCEndpoint").items():
                if endpoint["VpcEndpointType"] == "Gateway" and table in endpoint["RouteTableIds"]:
                    yield name
        else:
            assert rule[kind] == ANYWHERE
            for route in self._deployment.of_type("AWS::EC2::Route").values():
                if route["RouteTableId"] == table and route["DestinationCidrBlock"] == ANYWHERE:
                    yield "internet"

    def _admits(self, group: str, sources: list[str], port: int) -> bool:
        return any(
            rule["GroupId"] == group
            and rule["SourceSecurityGroupId"] in sources
            and rule["FromPort"] <= port <= rule["ToPort"]
            for rule in self._deployment.of_type("AWS::EC2::SecurityGroupIngress").values()
        )

    def _vpc(self, group: str) -> str:
        return str(self._deployment.resources[group]["Properties"]["VpcId"])

    def _subnet_vpc(self, subnet: str) -> str:
        return str(self._deployment.resources[subnet]["Properties"]["VpcId"])


@pytest.fixture
def network(deployment: Deployment) -> Network:
    return Network(deployment)


def test_plugins_reach_the_buckets_artifacts_and_nothing_else(
    deployment: Deployment, network: Network
) -> None:
    function = deployment.function("runtime")
    assert network.reaches(function) == {"Network/RuntimeStorageEndpoint"}
    endpoint = deployment.resources["Network/RuntimeStorageEndpoint"]["Properties"]
    (statement,) = endpoint["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert statement["Resource"] == ["Storage/Bucket.Arn/plugins/*", "Storage/Bucket.Arn/compiled/*"]


def test_the_network_of_plugins_has_no_way_out_nor_to_the_other(deployment: Deployment) -> None:
    vpc = "Network/RuntimeVpc"
    for kind in ("AWS::EC2::VPCGatewayAttachment", "AWS::EC2::VPCPeeringConnection",
                 "AWS::EC2::TransitGatewayAttachment"):  # fmt: skip
        assert not [p for p in deployment.of_type(kind).values() if vpc in json.dumps(p)]
    tables = {n for n, p in deployment.of_type("AWS::EC2::RouteTable").items() if p["VpcId"] == vpc}
    assert not [p for p in deployment.of_type("AWS::EC2::Route").values() if p["RouteTableId"] in tables]
    endpoints = [p for p in deployment.of_type("AWS::EC2::VPCEndpoint").values() if p["VpcId"] == vpc]
    assert [p["ServiceName"].rpartition(".")[2] for p in endpoints] == ["s3"]


def test_a_plugin_can_look_up_the_buckets_name_and_no_other(deployment: Deployment) -> None:
    lists = deployment.of_type("AWS::Route53Resolver::FirewallDomainList")
    (group,) = deployment.of_type("AWS::Route53Resolver::FirewallRuleGroup").values()
    rules = sorted(group["FirewallRules"], key=lambda rule: rule["Priority"])
    assert [rule["Action"] for rule in rules] == ["ALLOW", "BLOCK"]
    # The bucket's name is an alias of a name that is not in the list.
    assert rules[0]["FirewallDomainRedirectionAction"] == "TRUST_REDIRECTION_DOMAIN"
    (allowed,) = lists[rules[0]["FirewallDomainListId"]]["Domains"]
    assert allowed.endswith(".s3.eu-central-1.amazonaws.com") and not allowed.startswith("*")
    assert lists[rules[1]["FirewallDomainListId"]]["Domains"] == ["*"]
    (association,) = deployment.of_type("AWS::Route53Resolver::FirewallRuleGroupAssociation").values()
    assert association["VpcId"] == "Network/RuntimeVpc"


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_presigned_address_has_the_name_that_is_answered(
    documents: dict[str, dict[str, dict[str, Any]]], region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore would sign for s3.amazonaws.com in us-east-1, which the firewall refuses."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_DEFAULT_REGION", region),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", region)
    (allowed,) = [
        found["Properties"]["Domains"][0]["Fn::Sub"][0]
        for found in documents["prod"]["network.json"]["Resources"].values()
        if found["Type"] == "AWS::Route53Resolver::FirewallDomainList"
        and found["Properties"]["Domains"] != ["*"]
    ]
    answered = (
        allowed.replace("${Bucket}", "a-bucket")
        .replace("${AWS::Region}", region)
        .replace("${AWS::URLSuffix}", "amazonaws.com")
    )
    url = s3_client().generate_presigned_url("get_object", Params={"Bucket": "a-bucket", "Key": "k"})
    assert urlsplit(url).hostname == answered


def test_plugins_with_hosts_are_outside_of_every_network_of_ours(
    deployment: Deployment, network: Network
) -> None:
    function = deployment.function("runtime_network")
    assert "VpcConfig" not in function
    assert network.reaches(function) == {"internet"}


@pytest.mark.parametrize("interface_endpoints", ["yes", "no"])
def test_a_function_has_a_way_to_what_it_calls_and_to_nothing_more(
    documents: dict[str, dict[str, dict[str, Any]]],
    table: FunctionTable,
    stage: str,
    interface_endpoints: str,
) -> None:
    found = deployed(documents[stage], InterfaceEndpoints=interface_endpoints)
    network, functions = Network(found), found.functions()
    services = "Network/EndpointGroup:443" if interface_endpoints == "yes" else "internet"
    needs = {
        "database": {"Network/ProxyGroup:3306"}, "open_secrets": {services}, "seal_secrets": {services},
        "rewrap_keys": {services}, "presign": set(), "presign_packages": set(), "internet": {"internet"},
        "read_artifacts": {"Network/StorageEndpoint"}, "write_artifacts": {"Network/StorageEndpoint"},
        "register_artifacts": {"Network/StorageEndpoint"},
        "remove_artifacts": {"Network/StorageEndpoint"}, "remove_uploads": {"Network/StorageEndpoint"},
        "find_uploads": {"Network/StorageEndpoint"}, "check_uploads": {"Network/StorageEndpoint"},
        "invoke_runtime": {services}, "announce": {services},
        "start_runs": {services}, "answer_runs": {services}, "watch_runs": {services},
        "keep_run_values": {"Network/StorageEndpoint"}, "remove_run_values": {"Network/StorageEndpoint"},
        "ask_model": {services, "internet"},
        "administer_database": {services, "Network/StorageEndpoint", "Network/ClusterGroup:3306"},
    }  # fmt: skip
    for function in table.functions:
        if function.per_tenant:
            continue
        wanted = set().union(*(needs[right] for right in function.rights)) or {"internet"}
        assert network.reaches(functions[function.name]) == wanted, function.name


def test_only_the_proxy_and_migrate_reach_the_cluster(deployment: Deployment, table: FunctionTable) -> None:
    network = Network(deployment)
    reaching = {
        function.name
        for function in table.functions
        if "Network/ClusterGroup:3306" in network.reaches(deployment.function(function.name))
    }
    assert reaching == {"migrate"}
    sources = {
        rule["SourceSecurityGroupId"]
        for rule in deployment.of_type("AWS::EC2::SecurityGroupIngress").values()
        if rule["GroupId"] == "Network/ClusterGroup"
    }
    assert sources == {"Network/ProxyGroup", "Network/MigrateGroup"}


def test_the_database_has_no_route_but_its_networks_own(deployment: Deployment) -> None:
    routed = {p["RouteTableId"] for p in deployment.of_type("AWS::EC2::Route").values()}
    assert "Network/DataRoutes" not in routed
    assert not any(p["PubliclyAccessible"] for p in deployment.of_type("AWS::RDS::DBInstance").values())


def test_each_zone_of_prod_has_a_nat_of_its_own(documents: dict[str, dict[str, dict[str, Any]]]) -> None:
    counts = {stage: len(deployed(documents[stage]).of_type("AWS::EC2::NatGateway")) for stage in documents}
    assert counts == {"dev": 1, "prod": 2}


def test_an_endpoint_of_an_aws_api_admits_this_account_and_what_functions_call(
    documents: dict[str, dict[str, dict[str, Any]]],
) -> None:
    endpoints = deployed(documents["prod"]).of_type("AWS::EC2::VPCEndpoint")
    interfaces = {n: p for n, p in endpoints.items() if p["VpcEndpointType"] == "Interface"}
    assert len(interfaces) == 5
    for endpoint in interfaces.values():
        (statement,) = endpoint["PolicyDocument"]["Statement"]
        assert statement["Condition"] == {"StringEquals": {"aws:PrincipalAccount": "123456789012"}}
        assert "*" not in json.dumps(statement["Action"])


def test_migrate_can_answer_cloudformation(deployment: Deployment) -> None:
    """Its answer goes into a bucket of CloudFormation's, through the gateway endpoint, whose policy must admit it."""
    endpoint = deployment.resources["Network/StorageEndpoint"]["Properties"]
    answers = endpoint["PolicyDocument"]["Statement"][1]
    assert answers["Action"] == ["s3:PutObject"]
    assert answers["Resource"].startswith("arn:aws:s3:::cloudformation-custom-resource-response-")
