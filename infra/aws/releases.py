"""What an operator does with the versions of functions: delete old ones, go back to a release, publish a parameter.

First a plan, which the dry run shows; then the same plan is carried out, one function after the other. Each step names
what it expects to find, may be repeated, and one that fails stops no other. So a run that was interrupted is finished
by the same command, and of two at once each function obeys one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from infra.aws.functions import ALIAS
from infra.aws.versions import WITHDRAWN, DeployedFunction, Version, is_held, layer_name


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Parameters
    ----------
    work
        Does it, and returns what it did not do and why, empty where it did all.
    size
        Bytes that it frees.
    """

    what: str
    work: Callable[[Any], str]
    size: int = 0


@dataclass(frozen=True)
class Plan:
    """What to do, and what is left alone for a reason that an operator should know."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


# -- deleting what is old ------------------------------------------------------------------------------------------


def plan_prune(
    client: Any, stage: str, found: Iterable[DeployedFunction], layers: Iterable[int], *, newer: bool = False
) -> Plan:
    """Plan to delete what is older than the release before.

    What is newer than that stays: `live`, what a deployment has just published and not pointed to yet, and what was
    withdrawn, for a while. Layer versions go when no version that stays has them.

    Parameters
    ----------
    client
        Asked which versions durable executions hold.
    layers
        Numbers of the layer's versions.
    newer
        Also what is newer than `live` and was not withdrawn: what a deployment that failed has left.
    """
    steps: list[Step] = []
    notes: list[str] = []
    used: set[int] = set()
    for function in found:
        kept = [function.latest]
        for version in function.versions:
            reason = _kept_for(client, function, version, newer)
            if reason is None:
                steps.append(_deletion(function, version))
                continue
            kept.append(version)
            if reason:
                notes.append(f"{function.name}:{version.number} stays: {reason}")
        used |= {int(arn.rpartition(":")[2]) for version in kept for arn in version.layers
                 if f":layer:{layer_name(stage)}:" in arn}  # fmt: skip
    # A deployment makes the layer first: what is newer than all that functions have may be its.
    steps += [_layer_deletion(stage, number) for number in sorted(layers) if used and number < max(used)
              and number not in used]  # fmt: skip
    return Plan(tuple(steps), tuple(notes))


def _kept_for(client: Any, function: DeployedFunction, version: Version, newer: bool) -> str | None:
    """Return why a version stays, empty for the rule itself, None where it may go."""
    is_old = function.before is not None and version.number < function.before.number
    is_left_over = newer and version.number > function.live and version.number not in function.withdrawn
    if not is_old and not is_left_over:
        return ""
    if version.number in function.aliased:
        return "an alias leads to it"
    if function.durable and is_held(client, function.name, version.number):
        return "a durable execution goes on in it"
    return None


def _deletion(function: DeployedFunction, version: Version) -> Step:
    def work(client: Any) -> str:
        if function.durable and is_held(client, function.name, version.number):
            return "a durable execution goes on in it"
        if version.number in function.withdrawn:
            _remove_mark(client, function.name, version.number)
        try:
            # Never without a qualifier, which would delete the function.
            client.delete_function(FunctionName=function.name, Qualifier=str(version.number))
        except client.exceptions.ResourceNotFoundException:
            pass  # another run was first
        except client.exceptions.ResourceConflictException:
            return "an alias leads to it"
        return ""

    return Step(f"delete {function.name}:{version.number}{_of(version)}", work, version.size)


def _layer_deletion(stage: str, number: int) -> Step:
    # Lambda keeps a copy for versions that refer to it, such as one whose deletion has just failed.
    def work(client: Any) -> str:
        try:
            client.delete_layer_version(LayerName=layer_name(stage), VersionNumber=number)
        except client.exceptions.ResourceNotFoundException:
            pass  # another run was first
        return ""

    return Step(f"delete layer {layer_name(stage)}:{number}", work)


# -- going back ----------------------------------------------------------------------------------------------------


def suggested(found: Iterable[DeployedFunction]) -> str:
    """Return the release before the one that serves, empty where no version says it.

    Half-way through going back two releases serve, and it is the one before the newer.
    """
    moved: Counter[str] = Counter()
    unmoved: Counter[str] = Counter()
    for function in found:
        if function.before is not None and function.before.release:
            counted = unmoved if function.live == function.versions[-1].number else moved
            counted[function.before.release] += 1
    counted = unmoved or moved
    return max(counted, key=lambda release: counted[release], default="")


def plan_back(found: Iterable[DeployedFunction], release: str) -> Plan:
    """Plan to let a release serve that was published before: `live` of every function moves to its newest version.

    What it is moved away from is marked as withdrawn, unless it is older: then the mark of the release goes.
    """
    steps: list[Step] = []
    notes: list[str] = []
    for function in found:
        target = function.newest_of(release)
        if target is None:
            notes.append(f"{function.name} stays at {function.live}: it has no version of the release")
        elif function.serving.release != release:
            steps.append(_move(function, target))
        elif function.live in function.withdrawn:
            steps.append(_unmarking(function))
    return Plan(tuple(steps), tuple(notes))


def _move(function: DeployedFunction, target: Version) -> Step:
    passed = (
        version.number for version in function.versions if target.number < version.number <= function.live
    )
    left = [number for number in passed if number not in function.withdrawn]

    def work(client: Any) -> str:
        # Marked first: were it the other way round, a run that ends between the two would leave no mark.
        for number in left:
            _mark(client, function.name, number)
        refused = _point(client, function, target.number)
        if not refused and target.number in function.withdrawn:
            _remove_mark(client, function.name, target.number)
        return refused

    return Step(f"move {function.name} from {function.live}{_of(function.serving)} to {target.number}", work)


def _unmarking(function: DeployedFunction) -> Step:
    def work(client: Any) -> str:
        _remove_mark(client, function.name, function.live)
        return ""

    return Step(f"unmark {function.name}:{function.live}, which serves", work)


def _mark(client: Any, name: str, number: int) -> None:
    try:
        client.create_alias(FunctionName=name, Name=WITHDRAWN.format(number), FunctionVersion=str(number))
    except client.exceptions.ResourceConflictException:
        pass  # it is there: another run was first


def _remove_mark(client: Any, name: str, number: int) -> None:
    try:
        client.delete_alias(FunctionName=name, Name=WITHDRAWN.format(number))
    except client.exceptions.ResourceNotFoundException:
        pass  # another run was first


def _point(client: Any, function: DeployedFunction, number: int) -> str:
    """Move `live`, if it is still where it was seen."""
    try:
        client.update_alias(
            FunctionName=function.name,
            Name=ALIAS,
            FunctionVersion=str(number),
            # A share of the calls that went to another version ends as well.
            RoutingConfig={"AdditionalVersionWeights": {}},
            RevisionId=function.revision,
        )
    except client.exceptions.PreconditionFailedException:
        return f"somebody has moved {ALIAS} meanwhile; look again"
    return ""


# -- publishing a parameter ----------------------------------------------------------------------------------------


def plan_publish(found: Iterable[DeployedFunction]) -> Plan:
    """Plan to publish what a deployment of other parameters has changed.

    CloudFormation then changes `$LATEST`, and no version. Only within a release: what `$LATEST` has of another one is a
    deployment under way, or one that was gone back from.
    """
    steps: list[Step] = []
    notes: list[str] = []
    for function in found:
        latest = function.latest
        if latest.behaviour == function.serving.behaviour:
            continue
        newer = {version.release for version in function.versions if version.number >= function.live}
        if latest.release and newer == {latest.release}:
            steps.append(_publication(function))
        else:
            notes.append(
                f"{function.name} stays at {function.live}: what is newer is not of the same release"
            )
    return Plan(tuple(steps), tuple(notes))


def _publication(function: DeployedFunction) -> Step:
    def work(client: Any) -> str:
        try:
            # What has not changed since the last version is not published again: then this is the last version.
            made = client.publish_version(FunctionName=function.name, RevisionId=function.latest_revision)
        except client.exceptions.PreconditionFailedException:
            return "somebody has changed the function meanwhile; look again"
        return _point(client, function, int(made["Version"]))

    return Step(f"publish {function.name}, which serves {function.live}", work)


def _of(version: Version) -> str:
    return f" of {version.release}" if version.release else ""
