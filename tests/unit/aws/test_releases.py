"""What Lambda may answer an operator, and no emulator does. The rest is in tests/integration/test_releases.py."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.stub import Stubber

from infra.aws import releases, releases_command, versions
from infra.aws.__main__ import main
from infra.aws.functions import RELEASE
from infra.aws.versions import DeployedFunction, Version

A, B, C = "a" * 16, "b" * 16, "c" * 16
RUN = "hotplug-dev-run"


@pytest.fixture
def client() -> Any:
    return boto3.client("lambda", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture
def answers(client: Any) -> Iterator[Stubber]:
    """What is asked, in this order and with these parameters, and nothing else."""
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def function(live: int, *published: str, name: str = RUN, **more: Any) -> DeployedFunction:
    """A function with a version of each release, from version 1 on."""
    made = tuple(Version(number, release, 1, ()) for number, release in enumerate(published, 1))
    latest = Version(0, published[-1], 1, ())
    return DeployedFunction(name, live, "alias-revision", made, latest, "latest-revision", **more)


def held(answers: Stubber, number: int, *pages: list[str]) -> None:
    for index, statuses in enumerate(pages):
        asked = {"FunctionName": RUN, "Qualifier": str(number), "Statuses": ["RUNNING", "PAUSING", "PAUSED"]}
        arn = f"arn:aws:lambda:us-east-1:123456789012:function:{RUN}"
        executions = [
            {
                "DurableExecutionArn": f"{arn}:{number}/durable-execution/n/i", "DurableExecutionName": "n",
                "FunctionArn": arn, "Status": status, "StartTimestamp": 0,
            }
            for status in statuses
        ]  # fmt: skip
        answer: dict[str, Any] = {"DurableExecutions": executions}
        if index + 1 < len(pages):
            answer["NextMarker"] = f"page-{index + 1}"
        marker = {"Marker": f"page-{index}"} if index else {}
        answers.add_response("list_durable_executions_by_function", answer, asked | marker)


def test_an_execution_that_is_paused_holds_its_version_also_behind_an_empty_page(
    client: Any, answers: Stubber
) -> None:
    held(answers, 1, [], ["PAUSED"])
    plan = releases.plan_prune(client, "dev", [function(3, A, B, C, durable=True)], ())
    assert plan.steps == ()
    assert plan.notes == (f"{RUN}:1 stays: a durable execution goes on in it",)


def test_an_execution_that_began_meanwhile_holds_its_version(client: Any, answers: Stubber) -> None:
    held(answers, 1, [])
    (step,) = releases.plan_prune(client, "dev", [function(3, A, B, C, durable=True)], ()).steps
    held(answers, 1, ["RUNNING"])
    assert step.work(client) == "a durable execution goes on in it"


def test_a_version_is_deleted_by_its_number_and_may_be_gone(client: Any, answers: Stubber) -> None:
    (step,) = releases.plan_prune(client, "dev", [function(3, A, B, C)], ()).steps
    answers.add_client_error(
        "delete_function",
        "ResourceNotFoundException",
        expected_params={"FunctionName": RUN, "Qualifier": "1"},
    )
    assert step.work(client) == ""


def test_versions_that_say_no_release_are_each_one_of_their_own(client: Any) -> None:
    """Such as were published before templates said it."""
    found = function(3, "", "", "")
    assert found.before is not None and found.before.number == 2
    plan = releases.plan_prune(client, "dev", [found], ())
    assert [step.what for step in plan.steps] == [f"delete {RUN}:1"]
    assert releases.suggested([found]) == ""


def test_a_description_of_somebodys_is_no_release() -> None:
    configuration = {"Version": "1", "CodeSize": 1, "Description": RELEASE.format(A) + " and more"}
    assert versions._version(configuration).release == ""


def test_layers_of_others_and_those_of_no_function_at_all_stay(client: Any) -> None:
    def with_layer(number: int, name: str) -> DeployedFunction:
        arn = f"arn:aws:lambda:us-east-1:123456789012:layer:{name}:{number}"
        version = Version(1, A, 1, (arn,))
        return DeployedFunction(RUN, 1, "r", (version,), Version(0, A, 1, (arn,)), "l")

    ours, other = with_layer(3, "hotplug-dev-dependencies"), with_layer(9, "insights")
    plan = releases.plan_prune(client, "dev", [ours, other], [1, 2, 3, 4])
    assert [step.what for step in plan.steps] == [
        f"delete layer hotplug-dev-dependencies:{n}" for n in (1, 2)
    ]
    assert releases.plan_prune(client, "dev", [other], [1, 2]).steps == ()


def test_a_function_that_changed_meanwhile_is_not_published(client: Any, answers: Stubber) -> None:
    (step,) = releases.plan_publish([changed(function(1, A))]).steps
    asked = {"FunctionName": RUN, "RevisionId": "latest-revision"}
    answers.add_client_error("publish_version", "PreconditionFailedException", expected_params=asked)
    assert step.work(client) == "somebody has changed the function meanwhile; look again"


def changed(found: DeployedFunction) -> DeployedFunction:
    latest = Version(0, found.latest.release, 1, (), {"Timeout": 3})
    return DeployedFunction(
        found.name, found.live, found.revision, found.versions, latest, found.latest_revision
    )


def test_a_deployment_that_is_under_way_is_not_published() -> None:
    under_way = function(1, A)
    latest = Version(0, B, 1, (), {"Timeout": 3})
    found = DeployedFunction(RUN, 1, "r", under_way.versions, latest, "l")
    plan = releases.plan_publish([found])
    assert (plan.steps, len(plan.notes)) == ((), 1)


def test_half_way_the_release_before_is_that_before_the_newer_one() -> None:
    moved = function(2, A, B, C, withdrawn=frozenset({3}))
    assert releases.suggested([moved, moved, function(3, A, B, C)]) == B
    assert releases.suggested([moved, moved]) == A
    assert releases.suggested([function(1, A)]) == ""


def test_an_alias_is_moved_only_as_it_was_seen(client: Any, answers: Stubber) -> None:
    (step,) = releases.plan_back([function(2, A, B)], A).steps
    mark = {"FunctionName": RUN, "Name": "withdrawn-2", "FunctionVersion": "2"}
    answers.add_client_error("create_alias", "ResourceConflictException", expected_params=mark)
    move = {
        "FunctionName": RUN, "Name": "live", "FunctionVersion": "1", "RevisionId": "alias-revision",
        "RoutingConfig": {"AdditionalVersionWeights": {}},
    }  # fmt: skip
    answers.add_response("update_alias", {}, move)
    assert step.work(client) == ""


# -- the command ---------------------------------------------------------------------------------------------------


def deployed(answers: Stubber, *names: str) -> None:
    """A stage whose functions have two versions each, and serve the second."""
    answers.add_response("list_functions", {"Functions": [{"FunctionName": name} for name in names]}, {})
    for name in names:
        live = {"Name": "live", "FunctionVersion": "2", "RevisionId": "alias-revision"}
        answers.add_response("list_aliases", {"Aliases": [live]}, {"FunctionName": name})
        published = [
            {"Version": version, "CodeSize": 1, "RevisionId": "r", "Description": RELEASE.format(release)}
            for version, release in (("$LATEST", B), ("1", A), ("2", B))
        ]
        answers.add_response("list_versions_by_function", {"Versions": published}, {"FunctionName": name})


def back(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    releases_command.add_to(parser)
    return parser.parse_args(["back", "--stage", "dev", "--to", A, *words])


def test_a_function_that_refuses_stops_no_other(
    client: Any, answers: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(answers, "hotplug-dev-a", "hotplug-dev-b")
    answers.add_client_error("create_alias", "AccessDeniedException")
    answers.add_response("create_alias", {})
    answers.add_response("update_alias", {})
    assert releases_command.run(back("--yes"), client) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert "NOT DONE" in first and "AccessDenied" in first
    assert second == f"move hotplug-dev-b from 2 of {B} to 1"
    assert last == "1 of 2 done"


def test_a_dry_run_asks_and_changes_nothing(
    client: Any, answers: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed(answers, "hotplug-dev-a")
    assert releases_command.run(back(), client) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 to do; nothing was changed: --yes does it"


def test_lambda_that_is_away_is_an_error_and_no_trace(
    client: Any, answers: Stubber, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise ConnectTimeoutError(endpoint_url="https://lambda.us-east-1.amazonaws.com")

    monkeypatch.setattr(versions, "functions", away)
    assert releases_command.run(back("--yes"), client) == 1
    assert capsys.readouterr().err.startswith("error: Connect timeout")


def test_an_alias_that_moves_while_it_is_looked_at_is_told(
    client: Any, answers: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.add_response("list_functions", {"Functions": [{"FunctionName": RUN}]}, {})
    live = {"Name": "live", "FunctionVersion": "7", "RevisionId": "r"}
    answers.add_response("list_aliases", {"Aliases": [live]})
    latest = {"Version": "$LATEST", "CodeSize": 1, "RevisionId": "r"}
    answers.add_response("list_versions_by_function", {"Versions": [latest]})
    assert releases_command.run(back(), client) == 1
    assert capsys.readouterr().err == f"error: {RUN}: somebody moves live at this moment; look again\n"


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["list", "--stage", "prod-x"],
        ["list", "--stage", "p"],
        ["back", "--stage", "dev", "--to", "last"],
        ["drop", "--stage", "dev"],
    ],
)
def test_what_is_no_stage_and_no_release_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["releases", *words])
    assert refused.value.code == 2


def test_the_client_waits_and_retries_within_bounds() -> None:
    config = versions.new_client("eu-central-1").meta.config
    assert (config.connect_timeout, config.read_timeout) == (5, 20)
    assert config.retries == {"total_max_attempts": 8, "mode": "standard"}
