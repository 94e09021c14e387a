"""The package deployed into an emulator's CloudFormation as the manual says, and a request through its API Gateway into
app.py.

What it shows: the commands, the nested stacks and what they hand to each other are right, the templates make what they
name, and the zips run as functions. What the emulator does not have is listed here and in infra/aws/README.md, and what
it does not enforce (roles, networks, quotas) it cannot show.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from infra.aws import dependencies
from infra.aws.dependencies import Target
from infra.aws.functions import domains
from infra.aws.package import build
from infra.aws.watch import alarms
from infra.functions import FunctionTable, function_table
from tests.aws_emulator import LEFT_OUT, README, STAGE, Account, documented, link_installed, outputs_of
from tests.ministack import running_ministack

pytestmark = pytest.mark.slow
PREFIX = f"hotplug-{STAGE}"
# Types of resources that the emulator does not know, by nested stack. moto knows four of them
# (tests/unit/aws/test_network_made.py); the others have been made by nothing but AWS.
NOT_EMULATED = {
    "Network": {
        "AWS::EC2::EIP", "AWS::EC2::FlowLog", "AWS::EC2::NatGateway", "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress", "AWS::Route53Resolver::FirewallDomainList",
        "AWS::Route53Resolver::FirewallRuleGroup", "AWS::Route53Resolver::FirewallRuleGroupAssociation",
    },
    "Database": {"AWS::RDS::DBProxy", "AWS::RDS::DBProxyTargetGroup"},
}  # fmt: skip
# What the emulator takes of a function and forgets.
NOT_KEPT = {"VpcConfig", "TenancyConfig", "DurableConfig"}


@pytest.fixture(scope="module")
def table() -> FunctionTable:
    return function_table(per_endpoint=True)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The whole stack. The zips are for the running Python, with which the emulator runs functions: without bytecode
    and with this environment's own libraries, for wheels and bytecode are test_package.py's."""
    folder = tmp_path_factory.mktemp("package")
    running = Target(f"{sys.version_info.major}.{sys.version_info.minor}", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "install", link_installed)
        build(STAGE, running, folder / "build" / STAGE)
    with running_ministack() as aws:
        found = Account(aws, folder)
        found.deploy()
        yield found


def resources(account: Account, kind: str) -> list[dict[str, Any]]:
    """Return the properties of every resource of a type in the templates that were deployed."""
    return [
        resource["Properties"]
        for document in account.nested.values()
        for resource in document["Resources"].values()
        if resource["Type"] == kind
    ]


# -- as one deployment ---------------------------------------------------------------------------------------------


def test_what_the_emulator_does_not_know_is_what_the_list_says(account: Account) -> None:
    assert {name: types for name, types in account.refused.items() if types} == NOT_EMULATED


def test_every_template_fits_where_the_commands_put_it(account: Account) -> None:
    nested = dict(account.sizes)
    root = nested.pop("deploy.json")
    # In the request itself a template has at most 51,200 bytes: hence --s3-bucket.
    assert 51_200 < root < 1_000_000
    assert set(nested) == set(account.nested)
    assert max(nested.values()) < 1_000_000, nested


def test_the_capabilities_of_the_command_are_those_that_the_templates_ask_for(account: Account) -> None:
    (deploy,) = [command for command in documented() if command.startswith("aws cloudformation deploy")]
    named = set(re.findall(r"CAPABILITY_\w+", deploy))
    assert named == account.capabilities == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}


def test_the_migrations_stack_is_there_before_any_other_function_changes(account: Account) -> None:
    begun = {name: index for index, (name, status) in reversed(list(enumerate(account.events)))
             if status == "CREATE_IN_PROGRESS"}  # fmt: skip
    ended = {
        name: index for index, (name, status) in enumerate(account.events) if status == "CREATE_COMPLETE"
    }
    assert set(account.stacks) == set(account.nested) < set(ended)
    functions = {name for name in account.stacks if name.startswith("Functions")}
    for name in functions - {"FunctionsMigration"}:
        assert ended["Database"] < ended["FunctionsMigration"] < begun[name] < ended[name] < begun["Api"]


def test_each_stack_gets_what_another_gave(account: Account) -> None:
    handed = 0
    for name, child in account.stacks.items():
        given = {found["ParameterKey"]: found["ParameterValue"] for found in child["Parameters"]}
        asked = account.root["Resources"][name]["Properties"]["Parameters"]
        assert set(asked) == set(given) == set(account.nested[name].get("Parameters", {}))
        for parameter, value in asked.items():
            # A stack hands 4,096 bytes to another at most.
            assert len(given[parameter].encode()) <= 4096
            if isinstance(value, dict) and "Fn::GetAtt" in value:
                other, attribute = value["Fn::GetAtt"]
                assert (
                    given[parameter] == outputs_of(account.stacks[other])[attribute.removeprefix("Outputs.")]
                )
                handed += 1
    assert handed > 250


def test_the_last_commands_show_the_address_and_the_first_admin(account: Account) -> None:
    *_, describe, secret, put = documented()
    shown = {output["OutputKey"]: output["OutputValue"] for output in json.loads(account.run(describe))}
    assert shown == account.outputs
    assert re.fullmatch(r"https://\w+\.execute-api\.us-east-1\.amazonaws\.com/api", shown["Url"])
    admin = json.loads(account.run(secret.replace("ADMIN_SECRET_ARN", shown["AdminSecretArn"])))
    # It does not keep the punctuation out of it.
    assert admin["apiKey"] == "admin" and len(admin["apiSecret"]) == 48
    account.run(put.replace("LLM_KEY_SECRET_ARN", shown["LlmKeySecretArn"]), given="sk-1")
    stored = account.aws.client("secretsmanager").get_secret_value(SecretId=shown["LlmKeySecretArn"])
    assert stored["SecretString"] == "sk-1"


# -- what was made -------------------------------------------------------------------------------------------------


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
    for function in table.functions:
        found = functions[f"{PREFIX}-{function.name}"]
        kept = (found["Handler"], found["Timeout"], found["MemorySize"], found["TracingConfig"]["Mode"])
        assert kept == (function.handler, function.timeout_s, function.memory_mb, "Active")
        assert [layer["Arn"].split(":")[6] for layer in found["Layers"]] == [f"{PREFIX}-dependencies"]


def test_functions_are_told_of_what_the_other_stacks_made(account: Account) -> None:
    configured = account.aws.client("lambda").get_function_configuration
    variables = configured(FunctionName=f"{PREFIX}-register")["Environment"]["Variables"]
    (cluster,) = account.aws.client("rds").describe_db_clusters()["DBClusters"]
    storage = outputs_of(account.stacks["Storage"])
    assert variables["HOTPLUG_BUCKET"] == account.outputs["Bucket"]
    assert variables["HOTPLUG_KMS_KEY_ID"] == storage["DataKeyId"]
    assert variables["HOTPLUG_INSTALL_QUEUE_URL"].endswith(f"/{PREFIX}-installs")
    migrate = configured(FunctionName=f"{PREFIX}-migrate")["Environment"]["Variables"]
    assert migrate["MYSQL_HOST"] == cluster["Endpoint"]
    assert migrate["HOTPLUG_ADMIN_SECRET"] == account.outputs["AdminSecretArn"]


def test_what_the_emulator_forgets_of_a_function_is_what_the_list_says(account: Account) -> None:
    client = account.aws.client("lambda")
    forgotten = set()
    for properties in resources(account, "AWS::Lambda::Function"):
        name = properties["FunctionName"]["Fn::Sub"].replace("${Prefix}", PREFIX)
        forgotten |= set(properties) - set(client.get_function_configuration(FunctionName=name))
    assert forgotten == NOT_KEPT | {"Code", "Tags"}, "code and tags are described by calls of their own"


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
    assert notified["QueueArn"] == outputs_of(account.stacks["Storage"])["InstallQueueArn"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    mappings = account.aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert {mapping["EventSourceArn"].rpartition(":")[2] for mapping in mappings} == {
        f"{PREFIX}-installs",
        f"{PREFIX}-installs-dead",
    }


def test_what_the_bucket_sends_is_taken_from_the_queue_by_its_function(account: Account) -> None:
    """S3 tells a new destination once that it is one: `register` gets that message, and has nothing to do."""
    sqs, logs = account.aws.client("sqs"), account.aws.client("logs")
    url = sqs.get_queue_url(QueueName=f"{PREFIX}-installs")["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    end = time.monotonic() + 60
    while any(
        number != "0"
        for number in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
    ):
        assert time.monotonic() < end, "the message is still there"
        time.sleep(0.1)
    streams = logs.describe_log_streams(logGroupName=f"/hotplug/{PREFIX}/events")["logStreams"]
    assert streams, "it went away, but no function ran"


def test_schedules_start_their_functions_and_leave_what_fails_in_a_queue(
    account: Account, table: FunctionTable
) -> None:
    client = account.aws.client("events")
    dead = outputs_of(account.stacks["Storage"])["ScheduleDeadQueueArn"]
    found = {}
    for rule in client.list_rules()["Rules"]:
        (target,) = client.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert rule["State"] == "ENABLED" and target["DeadLetterConfig"] == {"Arn": dead}
        found[target["Arn"].partition(":function:")[2]] = rule["ScheduleExpression"]
    assert found == {
        f"{PREFIX}-{function.name}:live": function.schedule
        for function in table.functions
        if function.kind == "schedule"
    }


def test_the_database_stands_in_its_own_subnets_and_group(account: Account) -> None:
    client = account.aws.client("rds")
    network = outputs_of(account.stacks["Network"])
    (cluster,) = client.describe_db_clusters()["DBClusters"]
    (group,) = client.describe_db_subnet_groups(DBSubnetGroupName=cluster["DBSubnetGroup"])["DBSubnetGroups"]
    assert {subnet["SubnetIdentifier"] for subnet in group["Subnets"]} == set(
        network["DataSubnets"].split(",")
    )
    assert [found["VpcSecurityGroupId"] for found in cluster["VpcSecurityGroups"]] == [
        network["ClusterGroup"]
    ]
    assert cluster["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 16}
    assert (cluster["BackupRetentionPeriod"], cluster["DeletionProtection"]) == (14, True)
    assert cluster["StorageEncrypted"]
    instances = client.describe_db_instances()["DBInstances"]
    assert [(found["DBInstanceClass"], found["PromotionTier"]) for found in instances] == [
        ("db.serverless", 0),
        ("db.serverless", 1),
    ]
    for found in instances:
        assert found["DBClusterIdentifier"] == cluster["DBClusterIdentifier"]
        assert not found["PubliclyAccessible"]
    # It forgets these.
    assert (cluster["DBClusterParameterGroup"], cluster["KmsKeyId"]) == ("", "")


def test_the_networks_lead_where_they_should(account: Account) -> None:
    client = account.aws.client("ec2")
    network = outputs_of(account.stacks["Network"])
    tables = client.describe_route_tables()["RouteTables"]

    def ways(output: str) -> list[set[str]]:
        found = []
        for subnet in network[output].split(","):
            (table,) = [t for t in tables if subnet in [a.get("SubnetId") for a in t["Associations"]]]
            found.append({route.get("GatewayId") or route["NatGatewayId"] for route in table["Routes"]})
        return found

    assert ways("AppSubnets") == [{"local", "NatA"}, {"local", "NatB"}]
    assert ways("DataSubnets") == ways("RuntimeSubnets") == [{"local"}, {"local"}]
    subnets = client.describe_subnets(SubnetIds=[s for name in ("AppSubnets", "DataSubnets", "RuntimeSubnets")
                                                 for s in network[name].split(",")])["Subnets"]  # fmt: skip
    assert len({subnet["VpcId"] for subnet in subnets}) == 2
    assert not any(subnet["MapPublicIpOnLaunch"] for subnet in subnets)
    # What a group lets out are rules of their own, which the emulator does not know: without them, nothing.
    groups = [network[name] for name in network if name.endswith(("Group", "Clients"))]
    for group in client.describe_security_groups(GroupIds=groups)["SecurityGroups"]:
        assert [r["CidrIp"] for rule in group["IpPermissionsEgress"] for r in rule["IpRanges"]] == [
            "127.0.0.1/32"
        ]


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
    (stage,) = client.get_stages(restApiId=api["id"])["item"]
    settings = stage["methodSettings"]["*/*"]
    assert (settings["throttlingRateLimit"], settings["throttlingBurstLimit"]) == (500, 1000)
    assert stage["tracingEnabled"]
    assert stage["accessLogSettings"] == {}, "the emulator keeps the access log by now"


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


# -- what watches it -----------------------------------------------------------------------------------------------


def test_every_alarm_is_there_and_tells_the_topic(account: Account, table: FunctionTable) -> None:
    client, sns = account.aws.client("cloudwatch"), account.aws.client("sns")
    found = {
        alarm["AlarmName"]: alarm
        for page in client.get_paginator("describe_alarms").paginate()
        for alarm in page["MetricAlarms"]
    }
    wanted = {f"{PREFIX}-{alarm.name}": alarm for alarm in alarms(domains(table.functions))}
    assert set(found) == set(wanted)
    (topic,) = sns.list_topics()["Topics"]
    for name, alarm in found.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic["TopicArn"]]
        assert (alarm["MetricName"], alarm["Period"]) == (wanted[name].metric, wanted[name].period_s)
        assert alarm.get("Statistic") or alarm["ExtendedStatistic"] == "p99"
    assert found[f"{PREFIX}-database-capacity"]["Threshold"] == 16
    # It forgets the topic's key.
    assert "KmsMasterKeyId" not in sns.get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"]
    (mail,) = sns.list_subscriptions_by_topic(TopicArn=topic["TopicArn"])["Subscriptions"]
    assert (mail["Protocol"], mail["Endpoint"]) == ("email", "ops@example.com")


def test_alarms_watch_what_was_made(account: Account) -> None:
    client = account.aws.client("cloudwatch")
    found = client.describe_alarms(MaxRecords=100)["MetricAlarms"]
    named: dict[str, set[str]] = {}
    for alarm in found:
        for dimension in alarm["Dimensions"]:
            named.setdefault(dimension["Name"], set()).add(dimension["Value"])
    queues = {url.rpartition("/")[2] for url in account.aws.client("sqs").list_queues()["QueueUrls"]}
    (cluster,) = account.aws.client("rds").describe_db_clusters()["DBClusters"]
    (api,) = account.aws.client("apigateway").get_rest_apis()["items"]
    assert named.pop("QueueName") == queues
    assert named.pop("DBClusterIdentifier") == {cluster["DBClusterIdentifier"]}
    assert named.pop("ApiName") == {api["name"]}
    for function in named.pop("FunctionName"):
        account.aws.client("lambda").get_function(FunctionName=function)
    assert named == {"Stage": {"api"}, "service": {"hotplug"}, "ProxyName": {"Proxy"}}


def test_error_lines_are_counted_in_the_log_of_every_domain(account: Account, table: FunctionTable) -> None:
    client = account.aws.client("logs")
    groups = {
        group["logGroupName"]
        for page in client.get_paginator("describe_log_groups").paginate()
        for group in page["logGroups"]
    }
    filters = {
        found["logGroupName"]: found["metricTransformations"][0]
        for page in client.get_paginator("describe_metric_filters").paginate()
        for found in page["metricFilters"]
    }
    names = {domain.name for domain in domains(table.functions)}
    assert set(filters) == {f"/hotplug/{PREFIX}/{name}" for name in names} < groups
    alarmed = {
        (alarm["Namespace"], alarm["MetricName"])
        for alarm in account.aws.client("cloudwatch").describe_alarms(MaxRecords=100)["MetricAlarms"]
    }
    for found in filters.values():
        assert (found["metricNamespace"], found["metricName"]) in alarmed


def test_the_dashboard_is_filled_in(account: Account) -> None:
    body = account.aws.client("cloudwatch").get_dashboard(DashboardName=PREFIX)["DashboardBody"]
    assert "${" not in body
    widgets = json.loads(body)["widgets"]
    assert {widget["properties"]["region"] for widget in widgets} == {"us-east-1"}
    assert f'"{PREFIX}-installs"' in body


# -- and what is not shown -----------------------------------------------------------------------------------------


def test_the_manual_lists_what_the_emulator_cannot_do() -> None:
    section = README.read_text().partition("\n## What was shown, and what was not\n")[2]
    listed = set(re.findall(r"`((?:AWS|Custom)::[\w:]+)`", section))
    assert listed == set().union(*NOT_EMULATED.values()) | {LEFT_OUT}
    for name in NOT_KEPT:
        assert f"`{name}`" in section
