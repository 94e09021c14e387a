"""Alarms and dashboard name metrics that exist, and each alarm has its page in the manual."""

from __future__ import annotations

import json
import re
from pathlib import Path

from infra.aws.functions import domains
from infra.aws.watch import alarms
from infra.functions import FunctionTable
from tests.aws_templates import Deployment

ROOT = Path(__file__).resolve().parents[3]
MANUAL = (ROOT / "docs/operations.md").read_text()


def test_each_alarm_has_a_line_that_says_what_to_do(table: FunctionTable) -> None:
    section = MANUAL.partition("## Alarms")[2].partition("\n## ")[0]
    written = set(re.findall(r"^\| `([a-zA-Z-]+)` \| [^|]{20,} \| [^|]{40,} \|$", section, re.MULTILINE))
    rung = set()
    for alarm in alarms(domains(table.functions)):
        name = "errors-DOMAIN" if alarm.name.startswith("errors-") else alarm.name
        rung.add(name)
    assert written == rung


def test_alarms_ring_somewhere_and_say_where_to_read_on(deployment: Deployment) -> None:
    found = deployment.of_type("AWS::CloudWatch::Alarm")
    assert len(found) >= 20
    for alarm in found.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == ["Watch/Alarms"]
        assert "docs/operations.md" in alarm["AlarmDescription"]
        assert alarm["Period"] * alarm["EvaluationPeriods"] <= 86_400
    (mail,) = deployment.of_type("AWS::SNS::Subscription").values()
    assert mail["Endpoint"] == "ops@example.com"


def test_our_own_metrics_are_ones_that_the_functions_write(
    table: FunctionTable, deployment: Deployment
) -> None:
    source = "".join(path.read_text() for path in (ROOT / "chalicelib").rglob("*.py"))
    (dashboard,) = deployment.of_type("AWS::CloudWatch::Dashboard").values()
    shown = {
        line[1]
        for widget in json.loads(dashboard["DashboardBody"])["widgets"]
        for line in widget["properties"]["metrics"]
        if line[0] == "Hotplug"
    }
    alarmed = {alarm.metric for alarm in alarms(domains(table.functions)) if alarm.namespace == "Hotplug"}
    for metric in shown | alarmed:
        assert f'"{metric}"' in source, metric


def test_every_domain_counts_its_error_lines(table: FunctionTable, deployment: Deployment) -> None:
    filters = deployment.of_type("AWS::Logs::MetricFilter").values()
    groups = {group["LogGroupName"] for group in deployment.of_type("AWS::Logs::LogGroup").values()}
    assert {found["LogGroupName"] for found in filters} <= groups
    assert len(filters) == len(domains(table.functions))
    assert all(group.get("RetentionInDays") for group in deployment.of_type("AWS::Logs::LogGroup").values())


def test_functions_write_to_the_log_group_of_their_domain(deployment: Deployment) -> None:
    for function in deployment.functions().values():
        name = function["LoggingConfig"]["LogGroup"]
        assert deployment.resources[name]["Type"] == "AWS::Logs::LogGroup"
        (logs,) = [s for s in deployment.statements(function) if "logs:PutLogEvents" in s["Action"]]
        assert logs["Resource"] == f"{name}.Arn"
