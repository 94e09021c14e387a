"""`python -m infra.aws releases list|prune|back|publish`: see infra/aws/README.md, Updating and Rolling back."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from infra.aws import releases, versions
from infra.aws.releases import Plan
from infra.aws.versions import DeployedFunction, Version

# As the parameter Stage of the deployment.
_STAGE = re.compile(r"[a-z][a-z0-9]{1,11}")
_RELEASE = re.compile(r"[0-9a-f]{16}")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    commands = parser.add_subparsers(dest="releases", required=True)
    listing = commands.add_parser("list", help="what serves, what is kept, and how large it is")
    pruning = commands.add_parser("prune", help="delete versions that are older than the release before")
    pruning.add_argument(
        "--newer",
        action="store_true",
        help="and what a failed deployment has left; not while one is under way",
    )
    going = commands.add_parser("back", help="let a release serve that was published before")
    going.add_argument("--to", metavar="RELEASE", type=_release, help="16 hex digits, see list")
    publishing = commands.add_parser("publish", help="let functions serve parameters that were deployed")
    for command in (listing, pruning, going, publishing):
        command.add_argument("--stage", required=True, type=_stage)
        command.add_argument("--region", help="default: the profile's or the environment's")
    for command in (pruning, going, publishing):
        command.add_argument("--yes", action="store_true", help="do it; without, only say what would be done")


def _stage(text: str) -> str:
    if not _STAGE.fullmatch(text):
        raise argparse.ArgumentTypeError("not a stage: 2 to 12 lower-case letters and digits")
    return text


def _release(text: str) -> str:
    if not _RELEASE.fullmatch(text):
        raise argparse.ArgumentTypeError("not a release: 16 hex digits")
    return text


def run(chosen: argparse.Namespace, client: Any = None) -> int:
    """Run one command and return the process's exit status: 1 where something was left undone.

    Parameters
    ----------
    client
        Of Lambda; None makes one.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = client or versions.new_client(chosen.region)
        found = list(versions.functions(client, chosen.stage))
        if not found:
            print(f"error: there is no function hotplug-{chosen.stage}-… with an alias live", file=sys.stderr)
            return 1
        if chosen.releases == "list":
            return _list(found)
        plan = _plan(client, chosen, found)
        return 1 if plan is None else _carry_out(client, plan, chosen.yes)
    except (BotoCoreError, ClientError, versions.Moved) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _plan(client: Any, chosen: argparse.Namespace, found: Sequence[DeployedFunction]) -> Plan | None:
    if chosen.releases == "prune":
        layers = versions.layer_versions(client, chosen.stage)
        return releases.plan_prune(client, chosen.stage, found, layers, newer=chosen.newer)
    if chosen.releases == "publish":
        return releases.plan_publish(found)
    release = chosen.to
    if release is None:
        release = releases.suggested(found)
        if not release:
            print("error: no version says which release is before; see list, and --to", file=sys.stderr)
            return None
        print(f"The release before the one that serves: --to {release}")
        if chosen.yes:
            # By its name the command can be repeated: without one, a second run would go back by one more.
            print("error: --yes goes with --to RELEASE", file=sys.stderr)
            return None
    elif not any(function.newest_of(release) for function in found):
        print(f"error: no function has a version of {release}; see list", file=sys.stderr)
        return None
    return releases.plan_back(found, release)


def _carry_out(client: Any, plan: Plan, yes: bool) -> int:
    from botocore.exceptions import ClientError

    for note in plan.notes:
        print(note)
    undone = 0
    for step in plan.steps:
        reason = ""
        if yes:
            try:
                reason = step.work(client)
            except ClientError as error:
                reason = str(error)
        undone += bool(reason)
        print(f"{step.what}: NOT DONE, {reason}" if reason else step.what)
    freed = sum(step.size for step in plan.steps) / 1e6
    size = f", {freed:.1f} MB of code" if freed else ""
    if yes:
        print(f"{len(plan.steps) - undone} of {len(plan.steps)} done{size if not undone else ''}")
    else:
        print(f"{len(plan.steps)} to do{size}; nothing was changed: --yes does it")
    return 1 if undone else 0


def _list(found: Sequence[DeployedFunction]) -> int:
    for function in found:
        before = f", before {_named(function.before)}" if function.before else ""
        withdrawn = "".join(f", withdrawn {number}" for number in sorted(function.withdrawn))
        size = sum(version.size for version in function.versions) / 1e6
        print(
            f"{function.name}: live {_named(function.serving)}{before}{withdrawn}; "
            f"{len(function.versions)} versions, {size:.1f} MB"
        )
    serving = Counter(function.serving.release for function in found)
    kept = Counter(version.release for function in found for version in function.versions)
    # Numbers of a function's versions grow with time, and so do the highest ones of the releases.
    newest = {release: max(version.number for function in found for version in function.versions
                           if version.release == release) for release in kept}  # fmt: skip
    print()
    for release in sorted(kept, key=lambda release: newest[release], reverse=True):
        print(f"{release or 'no release'}: {serving[release]} functions serve it, {kept[release]} versions")
    total = sum(version.size for function in found for version in function.versions) / 1e6
    print(
        f"{len(found)} functions, {sum(kept.values())} versions, {total:.1f} MB of code beside $LATEST and the layer"
    )
    return 0


def _named(version: Version) -> str:
    return f"{version.number} ({version.release})" if version.release else str(version.number)
