"""What an operator does with releases, against an emulator of Lambda's versions, aliases and revisions (ministack).

It refuses to delete a version that an alias leads to, gives the last version for one that has not changed, checks
RevisionId of an alias, and knows which durable executions began in a version. It does not check RevisionId where a
version is published, and of several statuses it looks at the first alone: tests/unit/aws/test_releases.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.aws import releases, versions
from infra.aws.__main__ import main
from infra.aws.functions import RELEASE
from tests.lambda_stage import PREFIX, STAGE, Stage
from tests.ministack import Ministack, running_ministack

A, B, C, D = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
READ, RUN = f"{PREFIX}-plugins-list", f"{PREFIX}-run"


@pytest.fixture(scope="module")
def aws() -> Iterator[Ministack]:
    with running_ministack() as server:
        yield server


@pytest.fixture
def stage(aws: Ministack, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    made = Stage(aws)
    for page in made.client.get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            made.client.delete_function(FunctionName=function["FunctionName"])
    for number in made.layers():
        made.client.delete_layer_version(LayerName=versions.layer_name(STAGE), VersionNumber=number)
    made.create(READ)
    return made


def command(*words: str) -> int:
    return main(["releases", *words, "--stage", STAGE])


# -- looking -------------------------------------------------------------------------------------------------------


def test_list_tells_what_serves_what_is_before_and_what_is_kept(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for release in (A, B):
        stage.release(READ, release)
    stage.create("hotplug-devel-other")
    stage.create(f"{PREFIX}-stranger")
    assert command("list") == 0
    said = capsys.readouterr().out.splitlines()
    # THEN neither another stage's function nor one that has no `live` is among them
    assert said[0].startswith(f"{READ}: live 2 ({B}), before 1 ({A}); 2 versions, ")
    assert said[1:4] == [
        "",
        f"{B}: 1 functions serve it, 1 versions",
        f"{A}: 0 functions serve it, 1 versions",
    ]
    assert said[4].startswith("1 functions, 2 versions, ")


def test_every_page_is_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator gives fifty to a page; here it is asked for less, so that few versions make many pages."""
    for release in (A, B, C):
        stage.release(READ, release)
        stage.release(READ, release, level="DEBUG")
    for number in range(3):
        stage.create(f"{PREFIX}-agents-{number}")
        stage.release(f"{PREFIX}-agents-{number}", A)
    client = stage.aws.client("lambda")

    def two(params: dict[str, Any], **_: Any) -> None:
        params["MaxItems"] = 2

    for operation in ("ListFunctions", "ListVersionsByFunction", "ListAliases"):
        client.meta.events.register(f"before-parameter-build.lambda.{operation}", two)
    found = list(versions.functions(client, STAGE))
    assert [one.name for one in found] == [*(f"{PREFIX}-agents-{n}" for n in range(3)), READ]
    assert [version.number for version in found[-1].versions] == [1, 2, 3, 4, 5, 6]


def test_a_stage_that_is_not_there_is_an_error(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 1
    assert "there is no function hotplug-dev-" in capsys.readouterr().err


# -- deleting ------------------------------------------------------------------------------------------------------


def test_prune_keeps_the_release_before_and_what_is_newer(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for release in (A, B, C, D):
        stage.release(READ, release)
    assert command("prune") == 0
    assert "2 to do" in capsys.readouterr().out
    assert stage.state(READ) == (4, [1, 2, 3, 4], set())
    # WHEN a deployment has published what it has not pointed to yet
    assert stage.publish(READ, "e" * 16) == 5
    assert command("prune", "--yes") == 0
    assert stage.state(READ) == (4, [3, 4, 5], set())
    # THEN a second time there is nothing left, and the function is there
    assert command("prune", "--yes") == 0
    assert stage.state(READ) == (4, [3, 4, 5], set())
    # WHEN that deployment has failed
    assert command("prune", "--newer", "--yes") == 0
    assert stage.state(READ) == (4, [3, 4], set())


def test_two_versions_of_one_release_do_not_use_up_the_release_before(stage: Stage) -> None:
    stage.release(READ, A)
    stage.release(READ, B)
    stage.release(READ, C)
    stage.release(READ, C, level="DEBUG")
    assert command("prune", "--yes") == 0
    assert stage.state(READ) == (4, [2, 3, 4], set())


def test_a_version_that_an_alias_of_somebodys_leads_to_stays(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for release in (A, B, C, D):
        stage.release(READ, release)
    stage.client.create_alias(FunctionName=READ, Name="mine", FunctionVersion="1")
    assert command("prune", "--yes") == 0
    assert f"{READ}:1 stays: an alias leads to it" in capsys.readouterr().out
    assert stage.state(READ) == (4, [1, 3, 4], set())


def test_a_version_that_gets_an_alias_meanwhile_stays(stage: Stage) -> None:
    for release in (A, B, C):
        stage.release(READ, release)
    plan = releases.plan_prune(stage.client, STAGE, [stage.seen(READ)], ())
    stage.client.create_alias(FunctionName=READ, Name="mine", FunctionVersion="1")
    assert [step.work(stage.client) for step in plan.steps] == ["an alias leads to it"]
    assert stage.state(READ) == (3, [1, 2, 3], set())


def test_a_version_in_which_a_durable_execution_goes_on_stays(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.create(RUN, DurableConfig={"Enabled": True, "ExecutionTimeout": 3600, "RetentionPeriodInDays": 14})
    stage.release(RUN, A)
    # Not awaited: the emulator leaves an execution that was started so as running.
    stage.client.invoke(FunctionName=f"{RUN}:live", InvocationType="Event", Payload=b"{}")
    for release in (B, C, D):
        stage.release(RUN, release)
    assert command("prune", "--yes") == 0
    assert f"{RUN}:1 stays: a durable execution goes on in it" in capsys.readouterr().out
    assert stage.state(RUN) == (4, [1, 3, 4], set())
    # WHEN it has ended
    (execution,) = stage.client.list_durable_executions_by_function(FunctionName=RUN, Qualifier="1")[
        "DurableExecutions"
    ]
    stage.client.stop_durable_execution(DurableExecutionArn=execution["DurableExecutionArn"])
    assert command("prune", "--yes") == 0
    assert stage.state(RUN) == (4, [3, 4], set())


def test_layer_versions_that_no_kept_version_has_go(stage: Stage) -> None:
    old, before, serving = (stage.layer(text) for text in ("one", "two", "three"))
    for release, layer in ((A, old), (B, before), (C, serving)):
        stage.release(READ, release, layer)
    first, *kept = stage.layers()
    # GIVEN the layer of a deployment that goes on
    stage.layer("four")
    assert command("prune", "--yes") == 0
    assert stage.layers() == [*kept, kept[-1] + 1]
    assert first < kept[0]
    assert command("prune", "--yes") == 0
    assert stage.layers() == [*kept, kept[-1] + 1]


# -- going back ----------------------------------------------------------------------------------------------------


def test_back_moves_every_function_that_has_a_version_of_the_release(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    new = f"{PREFIX}-plugins-new"
    stage.create(new)
    for release in (A, B):
        stage.release(READ, release)
    stage.release(new, B)
    # WITHOUT a name it only says which release is before, and never moves: a second run would go back by one more
    assert command("back") == 0
    assert f"--to {A}" in capsys.readouterr().out
    assert command("back", "--yes") == 1
    assert command("back", "--to", A) == 0
    assert stage.state(READ) == (2, [1, 2], set())
    for _ in range(2):
        assert command("back", "--to", A, "--yes") == 0
        assert stage.state(READ) == (1, [1, 2], {2})
        assert stage.state(new) == (1, [1], set())
    assert f"{new} stays at 1: it has no version of the release" in capsys.readouterr().out
    assert command("back", "--to", D, "--yes") == 1


def test_after_going_back_the_next_release_has_the_right_one_before(stage: Stage) -> None:
    """`Versions[-2]` would be the release that was withdrawn."""
    for release in (A, B):
        stage.release(READ, release)
    assert command("back", "--to", A, "--yes") == 0
    stage.release(READ, C)
    assert stage.state(READ) == (3, [1, 2, 3], {2})
    assert releases.suggested([stage.seen(READ)]) == A
    assert command("prune", "--yes") == 0
    assert stage.state(READ) == (3, [1, 2, 3], {2})
    assert command("back", "--to", A, "--yes") == 0
    assert command("prune", "--newer", "--yes") == 0
    assert stage.state(READ) == (1, [1, 2, 3], {2, 3})
    assert command("back", "--to", C, "--yes") == 0
    # THEN what was withdrawn goes with the release that is older than the one before, and its mark with it
    stage.release(READ, D)
    assert command("prune", "--yes") == 0
    assert stage.state(READ) == (4, [3, 4], set())


def test_going_back_can_be_undone(stage: Stage) -> None:
    for release in (A, B):
        stage.release(READ, release)
    assert command("back", "--to", A, "--yes") == 0
    assert command("back", "--to", B, "--yes") == 0
    assert stage.state(READ) == (2, [1, 2], set())


def test_back_leaves_no_share_of_the_calls_with_another_version(stage: Stage) -> None:
    for release in (A, B):
        stage.release(READ, release)
    stage.client.update_alias(
        FunctionName=READ,
        Name="live",
        FunctionVersion="2",
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.1}},
    )
    assert command("back", "--to", A, "--yes") == 0
    assert "RoutingConfig" not in stage.client.get_alias(FunctionName=READ, Name="live")


class Killed(BaseException):
    """What ends a process."""


def killed_before(client: Any, operation: str) -> Callable[..., None]:
    def die(**_: Any) -> None:
        raise Killed

    client.meta.events.register(f"before-call.lambda.{operation}", die)
    return die


@pytest.mark.parametrize("operation", ["CreateAlias", "UpdateAlias"])
def test_going_back_that_was_interrupted_is_finished_by_the_same_command(
    stage: Stage, operation: str
) -> None:
    other = f"{PREFIX}-agents-list"
    stage.create(other)
    for name in (other, READ):
        for release in (D, A, B):
            stage.release(name, release)
    # GIVEN that the first function has moved and the second has not
    dying = stage.aws.client("lambda")
    first, second = releases.plan_back(versions.functions(dying, STAGE), A).steps
    assert first.work(dying) == ""
    killed_before(dying, operation)
    with pytest.raises(Killed):
        second.work(dying)
    assert (stage.seen(other).live, stage.seen(READ).live) == (2, 3)
    # THEN what is before is still told right
    assert releases.suggested(versions.functions(stage.client, STAGE)) == A
    assert command("back", "--to", A, "--yes") == 0
    assert stage.state(other) == stage.state(READ) == (2, [1, 2, 3], {3})


def test_undoing_that_was_interrupted_leaves_no_mark_on_what_serves(stage: Stage) -> None:
    for release in (A, B):
        stage.release(READ, release)
    assert command("back", "--to", A, "--yes") == 0
    dying = stage.aws.client("lambda")
    (step,) = releases.plan_back(versions.functions(dying, STAGE), B).steps
    killed_before(dying, "DeleteAlias")
    with pytest.raises(Killed):
        step.work(dying)
    assert stage.state(READ) == (2, [1, 2], {2})
    assert command("back", "--to", B, "--yes") == 0
    assert stage.state(READ) == (2, [1, 2], set())


def test_an_alias_that_moved_meanwhile_is_left_where_it_is(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    for release in (A, B):
        stage.release(READ, release)
    plan = releases.plan_back([stage.seen(READ)], A)
    stage.release(READ, C)
    assert [step.work(stage.client) for step in plan.steps] == [
        "somebody has moved live meanwhile; look again"
    ]
    assert stage.seen(READ).live == 3


def test_of_two_operators_who_go_to_different_releases_each_function_obeys_one(stage: Stage) -> None:
    names = [f"{PREFIX}-agents-{number}" for number in range(4)]
    for name in names:
        stage.create(name)
        for release in (A, B, C):
            stage.release(name, release)
    stage.client.delete_function(FunctionName=READ)
    seen = list(versions.functions(stage.client, STAGE))
    answers: dict[str, list[str]] = {}
    together = threading.Barrier(2)

    def go(release: str) -> None:
        client = stage.aws.client("lambda")
        steps = releases.plan_back(seen, release).steps
        together.wait(20)
        answers[release] = [step.work(client) for step in steps]

    operators = [threading.Thread(target=go, args=(release,)) for release in (A, B)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join(60)
    for index, name in enumerate(names):
        moved = [release for release in (A, B) if answers[release][index] == ""]
        assert len(moved) == 1
        assert stage.seen(name).serving.release == moved[0]


# -- publishing a parameter ----------------------------------------------------------------------------------------


def test_a_parameter_that_was_deployed_is_published(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.release(READ, A)
    stage.release(READ, B)
    assert command("publish", "--yes") == 0
    assert stage.state(READ) == (2, [1, 2], set())
    # WHEN a deployment changes $LATEST alone
    stage.configure(READ, B, level="DEBUG")
    assert command("publish") == 0
    assert stage.state(READ) == (2, [1, 2], set())
    for _ in range(2):
        assert command("publish", "--yes") == 0
        assert stage.state(READ) == (3, [1, 2, 3], set())
    live = stage.client.get_function_configuration(FunctionName=READ, Qualifier="live")
    assert live["Environment"]["Variables"] == {"HOTPLUG_LOG_LEVEL": "DEBUG"}
    assert live["Description"] == RELEASE.format(B)


def test_publishing_that_was_interrupted_makes_no_second_version(stage: Stage) -> None:
    stage.release(READ, A)
    stage.configure(READ, A, level="DEBUG")
    dying = stage.aws.client("lambda")
    (step,) = releases.plan_publish(versions.functions(dying, STAGE)).steps
    killed_before(dying, "UpdateAlias")
    with pytest.raises(Killed):
        step.work(dying)
    assert stage.state(READ) == (1, [1, 2], set())
    assert command("publish", "--yes") == 0
    assert stage.state(READ) == (2, [1, 2], set())


def test_what_was_gone_back_from_is_not_published(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    for release in (A, B):
        stage.release(READ, release)
    assert command("back", "--to", A, "--yes") == 0
    assert command("publish", "--yes") == 0
    assert "stays at 1: what is newer is not of the same release" in capsys.readouterr().out
    assert stage.state(READ) == (1, [1, 2], {2})
