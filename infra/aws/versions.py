"""What Lambda keeps of a stage: its functions, their versions, where `live` points, and the versions of the layer.

Everything here only looks. What may be done with what it finds is decided in `releases.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.aws.functions import ALIAS, RELEASE
from infra.aws.template import Json

LATEST = "$LATEST"
# Beside `live`, each version that was left for an older one has an alias of this name. Lambda keeps no history of an
# alias, and without it the next release could not tell what it may go back to.
WITHDRAWN = "withdrawn-{}"
# What a durable execution can be in before it has ended: it goes on in the version that it began in.
UNENDED = ("RUNNING", "PAUSING", "PAUSED")
_RELEASE = re.compile(re.escape(RELEASE).replace(r"\{\}", "([0-9a-f]{16})"))
# Of a configuration, what says which version it is and when it was made, but not what it does.
_IDENTITY = frozenset({
    "FunctionArn", "Version", "LastModified", "RevisionId", "ConfigSha256", "MasterArn", "State", "StateReason",
    "StateReasonCode", "LastUpdateStatus", "LastUpdateStatusReason", "LastUpdateStatusReasonCode", "SnapStart",
    "RuntimeVersionConfig",
})  # fmt: skip


class Moved(RuntimeError):
    """What was looked at is not what is there any more; the message says what."""


def new_client(region: str | None = None) -> Any:
    """Return a client for Lambda's control plane, with bounded waits and retries.

    Parameters
    ----------
    region
        None: the one of the shell's profile or environment.
    """
    import boto3
    from botocore.config import Config

    # The control plane takes about fifteen calls a second of an account, and a stage has 130 functions.
    retries = {"total_max_attempts": 8, "mode": "standard"}
    return boto3.client(
        "lambda", region_name=region, config=Config(connect_timeout=5, read_timeout=20, retries=retries)
    )


@dataclass(frozen=True)
class Version:
    """A published version of a function.

    Parameters
    ----------
    release
        The release that it says it belongs to; empty where it says none.
    size
        Bytes of its code, the layer's not among them.
    behaviour
        Its configuration without what only identifies it.
    """

    number: int
    release: str
    size: int
    layers: tuple[str, ...]
    behaviour: Json = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class DeployedFunction:
    """A function that has an alias `live`.

    Parameters
    ----------
    revision
        Of the alias, as it was seen: it is only moved if it still has it.
    versions
        The published ones, the oldest first.
    latest
        `$LATEST`, which no caller reaches; its number is 0.
    latest_revision
        Of `$LATEST`, as it was seen.
    withdrawn
        Numbers of versions that were left for an older one.
    aliased
        Numbers of versions that an alias of somebody's leads to, `live` and its weights among them.
    """

    name: str
    live: int
    revision: str
    versions: tuple[Version, ...]
    latest: Version
    latest_revision: str
    withdrawn: frozenset[int] = frozenset()
    aliased: frozenset[int] = frozenset()
    durable: bool = False

    @property
    def serving(self) -> Version:
        """The version that `live` points to."""
        return next(version for version in self.versions if version.number == self.live)

    @property
    def before(self) -> Version | None:
        """The newest version before `live` that was not withdrawn and is of another release."""
        older = [
            version
            for version in self.versions
            if version.number < self.live
            and version.number not in self.withdrawn
            and not (version.release and version.release == self.serving.release)
        ]
        return older[-1] if older else None

    def newest_of(self, release: str) -> Version | None:
        """Return the newest version of a release, None where there is none."""
        return next((version for version in reversed(self.versions) if version.release == release), None)


def functions(client: Any, stage: str) -> Iterator[DeployedFunction]:
    """Yield the functions of a stage, by their names, one at a time: each takes two calls.

    Raises
    ------
    Moved
        An alias moved while its function was looked at.
    """
    prefix = f"hotplug-{stage}-"
    pages = client.get_paginator("list_functions").paginate()
    names = sorted(
        function["FunctionName"]
        for page in pages
        for function in page["Functions"]
        if function["FunctionName"].startswith(prefix)
    )
    for name in names:
        found = _function(client, name)
        if found is not None:
            yield found


def _function(client: Any, name: str) -> DeployedFunction | None:
    # The alias first: what it points to is then in the list, unless it moves and somebody deletes.
    aliases = _pages(client, "list_aliases", "Aliases", name)
    live = next((alias for alias in aliases if alias["Name"] == ALIAS), None)
    if live is None or live["FunctionVersion"] == LATEST:
        return None
    configurations = _pages(client, "list_versions_by_function", "Versions", name)
    latest = next(found for found in configurations if found["Version"] == LATEST)
    versions = [_version(found) for found in configurations if found["Version"] != LATEST]
    if live["FunctionVersion"] not in {found["Version"] for found in configurations}:
        raise Moved(f"{name}: somebody moves {ALIAS} at this moment; look again")
    marks = {WITHDRAWN.format(version.number): version.number for version in versions}
    return DeployedFunction(
        name=name,
        live=int(live["FunctionVersion"]),
        revision=live["RevisionId"],
        versions=tuple(sorted(versions, key=lambda version: version.number)),
        latest=_version(latest),
        latest_revision=latest["RevisionId"],
        withdrawn=frozenset(marks[alias["Name"]] for alias in aliases if alias["Name"] in marks),
        aliased=frozenset().union(*(_led_to(alias) for alias in aliases if alias["Name"] not in marks)),
        durable=any(found.get("DurableConfig") for found in configurations),
    )


def _pages(client: Any, operation: str, key: str, name: str) -> list[Json]:
    pages = client.get_paginator(operation).paginate(FunctionName=name)
    return [found for page in pages for found in page[key]]


def _led_to(alias: Mapping[str, Any]) -> frozenset[int]:
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    return frozenset(int(number) for number in (alias["FunctionVersion"], *weights) if number != LATEST)


def _version(configuration: Json) -> Version:
    said = _RELEASE.fullmatch(configuration.get("Description", ""))
    number = configuration["Version"]
    return Version(
        number=0 if number == LATEST else int(number),
        release=said[1] if said else "",
        size=configuration["CodeSize"],
        layers=tuple(layer["Arn"] for layer in configuration.get("Layers", ())),
        behaviour={name: value for name, value in configuration.items() if name not in _IDENTITY},
    )


def is_held(client: Any, name: str, number: int) -> bool:
    """Whether a durable execution that has not ended began in this version."""
    pages = client.get_paginator("list_durable_executions_by_function").paginate(
        FunctionName=name, Qualifier=str(number), Statuses=list(UNENDED)
    )
    # A page may be empty and have another behind it.
    return any(page["DurableExecutions"] for page in pages)


def layer_versions(client: Any, stage: str) -> dict[int, str]:
    """Return the versions of a stage's layer: ARN by number."""
    pages = client.get_paginator("list_layer_versions").paginate(LayerName=layer_name(stage))
    return {found["Version"]: found["LayerVersionArn"] for page in pages for found in page["LayerVersions"]}


def layer_name(stage: str) -> str:
    """Return the name of a stage's layer."""
    return f"hotplug-{stage}-dependencies"
