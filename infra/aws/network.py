"""The networks: one with the application and its data, and one for plugins that leads to one bucket and nowhere else.

Two VPCs and not two kinds of subnets of one: a DNS firewall belongs to a VPC, and between two VPCs without a peering
there is no route at all, whatever a security group says. docs/decisions/0026-aws-deployment.md.
"""

from __future__ import annotations

from typing import Any

from infra.aws.rights import DATABASE, INTERNET, SERVICES, STORAGE
from infra.aws.stages import Stage
from infra.aws.template import NO_VALUE, Json, Template, allow, arn, att, choose, policy, ref, sub

APP_CIDR, RUNTIME_CIDR = "10.72.0.0/16", "10.73.0.0/24"
ZONES = ("A", "B")
ENDPOINT_SERVICES = ("lambda", "kms", "sqs", "secretsmanager", "bedrock-runtime")
# By what a function reaches: the logical id of the security group, in this template.
GROUPS = {
    DATABASE: "DatabaseClients",
    STORAGE: "StorageClients",
    SERVICES: "ServiceClients",
    INTERNET: "InternetClients",
}
HTTPS, MYSQL = 443, 3306
ANYWHERE = "0.0.0.0/0"


def network(stage: Stage) -> Template:
    """Return the template of both networks."""
    template = Template("Hotplug: networks")
    for name in ("Prefix", "BucketArn", "S3PrefixListId", "InterfaceEndpoints"):
        template.parameter(name)
    template.conditions["HasInterfaceEndpoints"] = {"Fn::Equals": [ref("InterfaceEndpoints"), "yes"]}
    _application(template, stage)
    _groups(template)
    _endpoints(template)
    _runtime(template)
    _flow_logs(template)
    return template


def _zone(index: int) -> Json:
    return {"Fn::Select": [index, {"Fn::GetAZs": ""}]}


def _named(text: str) -> list[Json]:
    return [{"Key": "Name", "Value": sub(f"${{Prefix}}-{text}")}]


def _application(template: Template, stage: Stage) -> None:
    add = template.add
    add("Vpc", "AWS::EC2::VPC", {
        "CidrBlock": APP_CIDR, "EnableDnsHostnames": True, "EnableDnsSupport": True, "Tags": _named("app"),
    })  # fmt: skip
    add("InternetGateway", "AWS::EC2::InternetGateway", {"Tags": _named("app")})
    add("InternetAttachment", "AWS::EC2::VPCGatewayAttachment", {
        "VpcId": ref("Vpc"), "InternetGatewayId": ref("InternetGateway"),
    })  # fmt: skip
    add("PublicRoutes", "AWS::EC2::RouteTable", {"VpcId": ref("Vpc"), "Tags": _named("public")})
    add("PublicDefault", "AWS::EC2::Route", {
        "RouteTableId": ref("PublicRoutes"), "DestinationCidrBlock": ANYWHERE, "GatewayId": ref("InternetGateway"),
    }, DependsOn="InternetAttachment")  # fmt: skip
    # The database has no route but the VPC's own.
    add("DataRoutes", "AWS::EC2::RouteTable", {"VpcId": ref("Vpc"), "Tags": _named("data")})
    for index, zone in enumerate(ZONES):
        _subnet(template, f"Public{zone}", "Vpc", f"10.72.{index}.0/24", index, "PublicRoutes")
        add(
            f"AppRoutes{zone}",
            "AWS::EC2::RouteTable",
            {"VpcId": ref("Vpc"), "Tags": _named(f"app-{zone.lower()}")},
        )
        # Lambda shares interfaces between functions of the same subnets and groups, so a /20 is ample.
        _subnet(template, f"App{zone}", "Vpc", f"10.72.{16 * (index + 1)}.0/20", index, f"AppRoutes{zone}")
        _subnet(template, f"Data{zone}", "Vpc", f"10.72.{8 + index}.0/24", index, "DataRoutes")
        nat = zone if index < stage.nat_zones else ZONES[0]
        if nat == zone:
            add(f"NatAddress{zone}", "AWS::EC2::EIP", {"Domain": "vpc", "Tags": _named(f"nat-{zone.lower()}")},
                DependsOn="InternetAttachment")  # fmt: skip
            add(f"Nat{zone}", "AWS::EC2::NatGateway", {
                "AllocationId": att(f"NatAddress{zone}", "AllocationId"), "SubnetId": ref(f"Public{zone}"),
                "Tags": _named(f"nat-{zone.lower()}"),
            })  # fmt: skip
        add(f"AppDefault{zone}", "AWS::EC2::Route", {
            "RouteTableId": ref(f"AppRoutes{zone}"), "DestinationCidrBlock": ANYWHERE, "NatGatewayId": ref(f"Nat{nat}"),
        })  # fmt: skip
    template.output("VpcId", ref("Vpc"))
    template.output("AppSubnets", {"Fn::Join": [",", [ref(f"App{zone}") for zone in ZONES]]})
    template.output("DataSubnets", {"Fn::Join": [",", [ref(f"Data{zone}") for zone in ZONES]]})
    addresses = [ref(f"NatAddress{zone}") for zone in ZONES[: stage.nat_zones]]
    template.output(
        "NatAddresses", {"Fn::Join": [",", addresses]}, "What servers see as the caller's address"
    )


def _subnet(template: Template, name: str, vpc: str, cidr: str, zone: int, routes: str) -> None:
    template.add(name, "AWS::EC2::Subnet", {
        "VpcId": ref(vpc), "CidrBlock": cidr, "AvailabilityZone": _zone(zone), "MapPublicIpOnLaunch": False,
        "Tags": _named(name.lower()),
    })  # fmt: skip
    template.add(f"{name}Association", "AWS::EC2::SubnetRouteTableAssociation", {
        "SubnetId": ref(name), "RouteTableId": ref(routes),
    })  # fmt: skip


def _group(template: Template, name: str, vpc: str, description: str) -> None:
    # Without rules of its own a group would let everything out; rules that stand apart may refer to each other.
    nothing = [{"CidrIp": "127.0.0.1/32", "IpProtocol": "-1", "Description": "Nothing but what is added"}]
    template.add(name, "AWS::EC2::SecurityGroup", {
        "VpcId": ref(vpc), "GroupDescription": description, "SecurityGroupEgress": nothing,
        "Tags": _named(name.lower()),
    })  # fmt: skip


def _rule(template: Template, name: str, group: str, port: int | tuple[int, int], **target: Any) -> None:
    low, high = (port, port) if isinstance(port, int) else port
    ingress = "SourceSecurityGroupId" in target
    template.add(name, f"AWS::EC2::SecurityGroup{'Ingress' if ingress else 'Egress'}", {
        "GroupId": ref(group), "IpProtocol": "tcp", "FromPort": low, "ToPort": high, **target,
    })  # fmt: skip


def _groups(template: Template) -> None:
    """One group for each kind of place that a function may reach."""
    _group(template, "DatabaseClients", "Vpc", "Reach the database")
    _group(template, "StorageClients", "Vpc", "Reach S3")
    _group(template, "ServiceClients", "Vpc", "Reach AWS APIs")
    _group(template, "InternetClients", "Vpc", "Reach the internet")
    _group(template, "ProxyGroup", "Vpc", "RDS Proxy")
    _group(template, "ClusterGroup", "Vpc", "Aurora")
    _group(template, "EndpointGroup", "Vpc", "Interface endpoints")
    _rule(template, "ClientsToProxy", "DatabaseClients", MYSQL, DestinationSecurityGroupId=ref("ProxyGroup"))
    _rule(template, "ProxyFromClients", "ProxyGroup", MYSQL, SourceSecurityGroupId=ref("DatabaseClients"))
    _rule(template, "ProxyToCluster", "ProxyGroup", MYSQL, DestinationSecurityGroupId=ref("ClusterGroup"))
    _rule(template, "ClusterFromProxy", "ClusterGroup", MYSQL, SourceSecurityGroupId=ref("ProxyGroup"))
    # `migrate` alone: its lock and its DDL belong to a session of the server's own.
    _group(template, "MigrateGroup", "Vpc", "Reach Aurora without the proxy")
    _rule(template, "MigrateToCluster", "MigrateGroup", MYSQL, DestinationSecurityGroupId=ref("ClusterGroup"))
    _rule(template, "ClusterFromMigrate", "ClusterGroup", MYSQL, SourceSecurityGroupId=ref("MigrateGroup"))
    _rule(
        template, "ClientsToStorage", "StorageClients", HTTPS, DestinationPrefixListId=ref("S3PrefixListId")
    )
    # With interface endpoints an AWS API is an address of the VPC, without them one of the internet's.
    template.add("ClientsToServices", "AWS::EC2::SecurityGroupEgress", {
        "GroupId": ref("ServiceClients"), "IpProtocol": "tcp", "FromPort": HTTPS, "ToPort": HTTPS,
        "DestinationSecurityGroupId": choose("HasInterfaceEndpoints", ref("EndpointGroup"), NO_VALUE),
        "CidrIp": choose("HasInterfaceEndpoints", NO_VALUE, ANYWHERE),
    })  # fmt: skip
    _rule(
        template, "EndpointsFromClients", "EndpointGroup", HTTPS, SourceSecurityGroupId=ref("ServiceClients")
    )
    # Tools name their own ports.
    _rule(template, "ClientsToInternet", "InternetClients", (1, 65535), CidrIp=ANYWHERE)
    for name in (*GROUPS.values(), "ProxyGroup", "ClusterGroup", "MigrateGroup"):
        template.output(name, ref(name))


def _endpoints(template: Template) -> None:
    account = {"StringEquals": {"aws:PrincipalAccount": ref("AWS::AccountId")}}
    ours = {**allow("s3:*", [ref("BucketArn"), sub("${BucketArn}/*")], account), "Principal": "*"}
    # The answer of a custom resource is put into a bucket of CloudFormation's, by a URL that CloudFormation signed.
    answers = {
        **allow(
            "s3:PutObject", sub("arn:${AWS::Partition}:s3:::cloudformation-custom-resource-response-*/*")
        ),
        "Principal": "*",
    }
    template.add("StorageEndpoint", "AWS::EC2::VPCEndpoint", {
        "VpcId": ref("Vpc"), "VpcEndpointType": "Gateway", "ServiceName": sub("com.amazonaws.${AWS::Region}.s3"),
        "RouteTableIds": [ref(f"AppRoutes{zone}") for zone in ZONES], "PolicyDocument": policy(ours, answers),
    })  # fmt: skip
    allowed: dict[str, Json] = {
        "lambda": allow(
            [
                "lambda:InvokeFunction",
                "lambda:SendDurableExecutionCallbackSuccess",
                "lambda:GetDurableExecution",
                "lambda:GetDurableExecutionState",
                "lambda:CheckpointDurableExecution",
            ],
            arn("lambda", "function:${Prefix}-*"),
            account,
        ),
        "kms": allow(["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt"], arn("kms", "key/*"), account),
        "sqs": allow("sqs:SendMessage", arn("sqs", "${Prefix}-*"), account),
        "secretsmanager": allow("secretsmanager:GetSecretValue", arn("secretsmanager", "secret:*"), account),
        "bedrock-runtime": allow(
            "bedrock:InvokeModel",
            [
                sub("arn:${AWS::Partition}:bedrock:*::foundation-model/*"),
                arn("bedrock", "inference-profile/*"),
            ],
            account,
        ),
    }
    for service in ENDPOINT_SERVICES:
        name = "".join(word.capitalize() for word in service.split("-"))
        template.add(f"{name}Endpoint", "AWS::EC2::VPCEndpoint", {
            "VpcId": ref("Vpc"), "VpcEndpointType": "Interface", "PrivateDnsEnabled": True,
            "ServiceName": sub(f"com.amazonaws.${{AWS::Region}}.{service}"),
            "SubnetIds": [ref(f"App{zone}") for zone in ZONES], "SecurityGroupIds": [ref("EndpointGroup")],
            "PolicyDocument": policy({**allowed[service], "Principal": "*"}),
        }, Condition="HasInterfaceEndpoints")  # fmt: skip


def _runtime(template: Template) -> None:
    """The network of `runtime`: no gateway to anywhere but S3's own endpoint, and there one bucket's artifacts."""
    add = template.add
    add("RuntimeVpc", "AWS::EC2::VPC", {
        "CidrBlock": RUNTIME_CIDR, "EnableDnsHostnames": True, "EnableDnsSupport": True, "Tags": _named("runtime"),
    })  # fmt: skip
    add("RuntimeRoutes", "AWS::EC2::RouteTable", {"VpcId": ref("RuntimeVpc"), "Tags": _named("runtime")})
    for index, zone in enumerate(ZONES):
        _subnet(template, f"Runtime{zone}", "RuntimeVpc", f"10.73.0.{128 * index}/25", index, "RuntimeRoutes")
    # The default policy admits any bucket, to which a plugin could carry what it was given.
    artifacts = {
        **allow(
            ["s3:GetObject", "s3:GetObjectVersion"],
            [sub("${BucketArn}/plugins/*"), sub("${BucketArn}/compiled/*")],
        ),
        "Principal": "*",
    }
    add("RuntimeStorageEndpoint", "AWS::EC2::VPCEndpoint", {
        "VpcId": ref("RuntimeVpc"), "VpcEndpointType": "Gateway", "ServiceName": sub("com.amazonaws.${AWS::Region}.s3"),
        "RouteTableIds": [ref("RuntimeRoutes")], "PolicyDocument": policy(artifacts),
    })  # fmt: skip
    _group(template, "RuntimeGroup", "RuntimeVpc", "Reach the artifacts of the bucket")
    _rule(template, "RuntimeToStorage", "RuntimeGroup", HTTPS, DestinationPrefixListId=ref("S3PrefixListId"))
    _dns_firewall(template)
    template.output("RuntimeSubnets", {"Fn::Join": [",", [ref(f"Runtime{zone}") for zone in ZONES]]})
    template.output("RuntimeGroup", ref("RuntimeGroup"))


def _dns_firewall(template: Template) -> None:
    """A name that is looked up leaves the network even where no packet does: only the bucket's own is answered.

    https://docs.aws.amazon.com/Route53/latest/APIReference/API_route53resolver_CreateFirewallRule.html
    """
    add = template.add
    add("BucketNames", "AWS::Route53Resolver::FirewallDomainList", {
        "Name": sub("${Prefix}-bucket"),
        "Domains": [sub("${Bucket}.s3.${AWS::Region}.${AWS::URLSuffix}", Bucket={
            "Fn::Select": [5, {"Fn::Split": [":", ref("BucketArn")]}]})],
    })  # fmt: skip
    add(
        "AllNames",
        "AWS::Route53Resolver::FirewallDomainList",
        {"Name": sub("${Prefix}-all"), "Domains": ["*"]},
    )
    add("NameRules", "AWS::Route53Resolver::FirewallRuleGroup", {
        "Name": sub("${Prefix}-runtime"),
        "FirewallRules": [
            # The bucket's name is an alias of s3-r-w.REGION.amazonaws.com. By default each name of such a chain must be
            # admitted; the bucket's own is the one that decides here.
            {"FirewallDomainListId": ref("BucketNames"), "Priority": 1, "Action": "ALLOW",
             "FirewallDomainRedirectionAction": "TRUST_REDIRECTION_DOMAIN"},
            {"FirewallDomainListId": ref("AllNames"), "Priority": 2, "Action": "BLOCK", "BlockResponse": "NXDOMAIN"},
        ],
    })  # fmt: skip
    add("NameFirewall", "AWS::Route53Resolver::FirewallRuleGroupAssociation", {
        "FirewallRuleGroupId": ref("NameRules"), "VpcId": ref("RuntimeVpc"), "Priority": 101,
        "MutationProtection": "DISABLED",
    })  # fmt: skip


def _flow_logs(template: Template) -> None:
    """Refused connections, of both networks: a plugin that tries shows here."""
    template.parameter("LogDays", "Number")
    template.add("FlowLogGroup", "AWS::Logs::LogGroup", {
        "LogGroupName": sub("/hotplug/${Prefix}/refused-connections"), "RetentionInDays": ref("LogDays"),
    })  # fmt: skip
    template.add("FlowLogRole", "AWS::IAM::Role", {
        "AssumeRolePolicyDocument": policy({
            "Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}},
        }),
        "Policies": [{"PolicyName": "write", "PolicyDocument": policy(
            allow(["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"], att("FlowLogGroup", "Arn")),
        )}],
    })  # fmt: skip
    for name, vpc in (("AppFlowLog", "Vpc"), ("RuntimeFlowLog", "RuntimeVpc")):
        template.add(name, "AWS::EC2::FlowLog", {
            "ResourceType": "VPC", "ResourceId": ref(vpc), "TrafficType": "REJECT",
            "LogDestinationType": "cloud-watch-logs", "LogGroupName": ref("FlowLogGroup"),
            "DeliverLogsPermissionArn": att("FlowLogRole", "Arn"),
        })  # fmt: skip
