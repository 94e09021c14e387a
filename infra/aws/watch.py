"""Alarms, each with a runbook in docs/operations.md, and one dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.aws.functions import Domain
from infra.aws.gateway import STAGE
from infra.aws.template import Json, Template, logical, ref, sub

NAMESPACE = "Hotplug"
MINUTE = 60
# Error lines, a metric for each domain: a filter on text gives its metric no dimensions.
ERROR_NAMESPACE = "Hotplug/${Prefix}/errors"


@dataclass(frozen=True)
class Alarm:
    """One alarm: rings when `statistic` of the metric stays over `threshold` for `periods` periods.

    Parameters
    ----------
    name
        As docs/operations.md calls it.
    period_s
        Seconds of one period.
    below
        Rings under the threshold instead.
    silence_rings
        No data at all rings too: for what must always be there.
    """

    name: str
    meaning: str
    namespace: str
    metric: str
    dimensions: tuple[tuple[str, Any], ...]
    statistic: str
    threshold: float
    periods: int = 1
    period_s: int = 5 * MINUTE
    below: bool = False
    silence_rings: bool = False


def watch(domains: Sequence[Domain]) -> Template:
    """Return the template of the alarms and the dashboard."""
    template = Template("Hotplug: alarms and dashboard")
    for name in ("Prefix", "AlarmMail", "StorageKeyArn", "ClusterName", "ProxyName", "ApiName", "InstallQueueName",
                 "InstallDeadQueueName", "ScheduleDeadQueueName"):  # fmt: skip
        template.parameter(name)
    for name in ("MaxCapacity", "MaxProxyConnections"):
        template.parameter(name, "Number")
    template.conditions["HasMail"] = {"Fn::Not": [{"Fn::Equals": [ref("AlarmMail"), ""]}]}
    template.add("Alarms", "AWS::SNS::Topic", {
        "TopicName": sub("${Prefix}-alarms"), "KmsMasterKeyId": ref("StorageKeyArn"),
    })  # fmt: skip
    template.add("AlarmMails", "AWS::SNS::Subscription", {
        "TopicArn": ref("Alarms"), "Protocol": "email", "Endpoint": ref("AlarmMail"),
    }, Condition="HasMail")  # fmt: skip
    for domain in domains:
        _error_lines(template, domain)
    found = alarms(domains)
    for alarm in found:
        _alarm(template, alarm)
    template.add("Dashboard", "AWS::CloudWatch::Dashboard", {
        "DashboardName": ref("Prefix"), "DashboardBody": sub(json.dumps(_dashboard(domains))),
    })  # fmt: skip
    template.output("AlarmTopicArn", ref("Alarms"))
    return template


def alarms(domains: Sequence[Domain]) -> tuple[Alarm, ...]:
    """Return every alarm of a deployment."""
    gateway = (("ApiName", ref("ApiName")), ("Stage", STAGE))
    ours = (("service", "hotplug"),)
    cluster = (("DBClusterIdentifier", ref("ClusterName")),)
    proxy = (("ProxyName", ref("ProxyName")),)

    def queue(name: str) -> tuple[tuple[str, Any], ...]:
        return (("QueueName", ref(name)),)

    found = [
        Alarm("api-errors", "more than 1 % of the answers are 5xx", "AWS/ApiGateway", "5XXError", gateway, "Average",
              0.01, periods=3),
        Alarm("api-latency", "one request in a hundred takes over 5 s", "AWS/ApiGateway", "Latency", gateway, "p99",
              5000, periods=3),
        Alarm("throttles", "functions are refused for want of concurrency", "AWS/Lambda", "Throttles", (), "Sum", 10,
              periods=2),
        Alarm("concurrency", "over 80 % of an account's default 1,000 environments run", "AWS/Lambda",
              "ConcurrentExecutions", (), "Maximum", 800, periods=2),
        Alarm("install-failures", "packages fail for a reason of ours", NAMESPACE, "plugin.install_failures", ours,
              "Sum", 0),
        Alarm("plugin-errors", "more than a quarter of the plugin runs fail", NAMESPACE, "plugin.errors", ours,
              "Average", 0.25, periods=3),
        Alarm("job-failures", "maintenance jobs fail", NAMESPACE, "job.failures", ours, "Sum", 0, periods=2),
        Alarm("installs-waiting", "a package has waited over 15 minutes to be registered", "AWS/SQS",
              "ApproximateAgeOfOldestMessage", queue("InstallQueueName"), "Maximum", 900),
        Alarm("installs-dead", "messages were delivered five times in vain and are not taken up", "AWS/SQS",
              "ApproximateNumberOfMessagesVisible", queue("InstallDeadQueueName"), "Maximum", 0, periods=3),
        Alarm("schedules-dead", "a schedule could not start its function", "AWS/SQS",
              "ApproximateNumberOfMessagesVisible", queue("ScheduleDeadQueueName"), "Maximum", 0),
        Alarm("database-capacity", "the database is at its largest size", "AWS/RDS", "ServerlessDatabaseCapacity",
              cluster, "Average", 0.0, periods=3),
        Alarm("database-cpu", "the database is busy", "AWS/RDS", "CPUUtilization", cluster, "Average", 85, periods=3),
        Alarm("database-deadlocks", "units of work block each other", "AWS/RDS", "Deadlocks", cluster, "Average", 0.1,
              periods=3),
        Alarm("proxy-connections", "the proxy holds more clients than it was sized for", "AWS/RDS",
              "ClientConnections", proxy, "Maximum", 0.0, periods=2),
        Alarm("proxy-pinned", "sessions of the proxy are pinned to their clients", "AWS/RDS",
              "DatabaseConnectionsCurrentlySessionPinned", proxy, "Average", 20, periods=3),
        Alarm("proxy-borrowing", "requests wait over 100 ms for a connection", "AWS/RDS",
              "DatabaseConnectionsBorrowLatency", proxy, "Average", 100_000, periods=3),
    ]  # fmt: skip
    for domain in domains:
        found.append(
            Alarm(f"errors-{domain.name}", f"functions of {domain.name} log errors", ERROR_NAMESPACE, domain.name,
                  (), "Sum", 5)
        )  # fmt: skip
        for function in domain.functions:
            if function.kind == "schedule" and function.schedule == "rate(1 minute)":
                name = (("FunctionName", sub(f"${{Prefix}}-{function.name}")),)
                found.append(
                    Alarm(f"{function.name}-silent", "the job of every minute does not run", "AWS/Lambda",
                          "Invocations", name, "Sum", 1, periods=3, below=True, silence_rings=True)
                )  # fmt: skip
    return tuple(found)


# Thresholds that the deployment's size decides.
_SIZED = {"database-capacity": "MaxCapacity", "proxy-connections": "MaxProxyConnections"}


def _alarm(template: Template, alarm: Alarm) -> None:
    sized = _SIZED.get(alarm.name)
    comparison = "LessThanThreshold" if alarm.below else "GreaterThanThreshold"
    if sized is not None:
        comparison = "GreaterThanOrEqualToThreshold"
    statistic = (
        {"ExtendedStatistic": alarm.statistic}
        if alarm.statistic[0] == "p"
        else {"Statistic": alarm.statistic}
    )
    template.add(logical("alarm", alarm.name), "AWS::CloudWatch::Alarm", {
        "AlarmName": sub(f"${{Prefix}}-{alarm.name}"),
        "AlarmDescription": f"{alarm.meaning}. What to do: docs/operations.md, `{alarm.name}`.",
        "Namespace": sub(alarm.namespace) if "$" in alarm.namespace else alarm.namespace, "MetricName": alarm.metric,
        "Dimensions": [{"Name": name, "Value": value} for name, value in alarm.dimensions],
        **statistic, "Period": alarm.period_s, "EvaluationPeriods": alarm.periods,
        "Threshold": ref(sized) if sized else alarm.threshold, "ComparisonOperator": comparison,
        "TreatMissingData": "breaching" if alarm.silence_rings else "notBreaching",
        "AlarmActions": [ref("Alarms")], "OKActions": [ref("Alarms")],
    })  # fmt: skip


def _error_lines(template: Template, domain: Domain) -> None:
    template.add(logical("errors", domain.name, "filter"), "AWS::Logs::MetricFilter", {
        "LogGroupName": sub(f"/hotplug/${{Prefix}}/{domain.name}"),
        # Lines of ours, and what Lambda itself writes of a function that was ended.
        "FilterPattern": '?"\\"level\\":\\"ERROR\\"" ?"Task timed out" ?"Runtime.ExitError" ?"Runtime.OutOfMemory"',
        "MetricTransformations": [{
            "MetricNamespace": sub(ERROR_NAMESPACE), "MetricName": domain.name, "MetricValue": "1", "DefaultValue": 0,
        }],
    })  # fmt: skip


def _dashboard(domains: Sequence[Domain]) -> Json:
    """Return the dashboard's body; `${…}` in it is filled in by CloudFormation."""
    region = "${AWS::Region}"

    def graph(title: str, *lines: list[Any], stat: str = "Sum") -> Json:
        return {
            "title": title, "region": region, "period": MINUTE, "stat": stat, "view": "timeSeries",
            "metrics": [list(line) for line in lines],
        }  # fmt: skip

    api = ["ApiName", "${ApiName}", "Stage", STAGE]
    mine = ["service", "hotplug"]
    database = ["DBClusterIdentifier", "${ClusterName}"]
    proxy = ["ProxyName", "${ProxyName}"]
    charts = [
        graph("Requests", ["AWS/ApiGateway", "Count", *api], ["AWS/ApiGateway", "4XXError", *api],
              ["AWS/ApiGateway", "5XXError", *api]),
        graph("Latency p50, p99 (ms)", ["AWS/ApiGateway", "Latency", *api, {"stat": "p50"}],
              ["AWS/ApiGateway", "Latency", *api, {"stat": "p99"}]),
        graph("Functions", ["AWS/Lambda", "Invocations"], ["AWS/Lambda", "Errors"], ["AWS/Lambda", "Throttles"],
              ["AWS/Lambda", "ConcurrentExecutions", {"stat": "Maximum"}]),
        graph("Plugins", [NAMESPACE, "plugin.executions", *mine], [NAMESPACE, "plugin.errors", *mine],
              [NAMESPACE, "plugin.reloads", *mine]),
        graph("Plugin time (ms)", [NAMESPACE, "plugin.duration", *mine, {"stat": "p99"}],
              [NAMESPACE, "plugin.load", *mine, {"stat": "p99"}]),
        graph("Installs", [NAMESPACE, "plugin.installs", *mine], [NAMESPACE, "plugin.install_refusals", *mine],
              [NAMESPACE, "plugin.install_failures", *mine]),
        graph("Tools, agents, MCP", [NAMESPACE, "tool.executions", *mine], [NAMESPACE, "tool.errors", *mine],
              [NAMESPACE, "agent.invocations", *mine], [NAMESPACE, "mcp.calls", *mine]),
        graph("Database", ["AWS/RDS", "ServerlessDatabaseCapacity", *database],
              ["AWS/RDS", "CPUUtilization", *database], stat="Average"),
        graph("Connections", ["AWS/RDS", "ClientConnections", *proxy],
              ["AWS/RDS", "DatabaseConnections", *proxy],
              ["AWS/RDS", "DatabaseConnectionsCurrentlySessionPinned", *proxy], stat="Maximum"),
        graph("Install queue", ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${InstallQueueName}"],
              ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "${InstallDeadQueueName}"],
              stat="Maximum"),
        graph("Error lines", *([ERROR_NAMESPACE, domain.name] for domain in domains)),
    ]  # fmt: skip
    return {
        "widgets": [
            {
                "type": "metric",
                "x": 12 * (index % 2),
                "y": 6 * (index // 2),
                "width": 12,
                "height": 6,
                "properties": chart,
            }
            for index, chart in enumerate(charts)
        ]
    }
