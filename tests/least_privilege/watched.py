"""The local stack that notes what its functions call on AWS, and cannot be stopped in silence where a role would have
refused one of the calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.local.stack import LocalStack
from tests.least_privilege.calls import Call, place_of, read
from tests.least_privilege.roles import Roles, deployed_functions, deployed_roles

RECORDER = Path(__file__).resolve().parent / "recorder"


class WatchedStack(LocalStack):
    """A local stack as the end-to-end tests start it; all parameters are `LocalStack`'s but one.

    Parameters
    ----------
    roles
        Default: those of the deployment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        roles: Roles | None = None,
        **options: Any,
    ) -> None:
        given = dict(environment or {})
        self._roles = roles
        self.recording = folder.resolve() / "logs" / "aws-calls"
        found = [str(RECORDER), *filter(None, [given.get("PYTHONPATH")])]
        given |= {"PYTHONPATH": os.pathsep.join(found), "HOTPLUG_RECORD": str(self.recording)}
        super().__init__(folder, environment=given, **options)

    def stop(self) -> None:
        """Stop the stack.

        Raises
        ------
        AssertionError
            A function made a call that its role refuses.
        """
        super().stop()
        found = refused(self.calls(), self._roles or deployed_roles())
        assert not found, "\n".join(found)

    def calls(self) -> list[Call]:
        """Return what the functions have called so far, in that order."""
        return list(read(self.recording, deployed_functions()))


def refused(calls: Iterable[Call], roles: Roles) -> list[str]:
    """Return a line for each thing that a function did and its role refuses."""
    return sorted(
        {
            f"{call.function} needs {need.action} on {need.resource}, which its role refuses"
            for call in calls
            for need in call.needs()
            if not roles.allow(call.function, need)
        }
    )


def unused(calls: Iterable[Call], roles: Roles) -> set[tuple[str, str, str]]:
    """Return (function, action, place) of all that is granted and that no call needed."""
    used = {(call.function, need.action, place_of(need.resource)) for call in calls for need in call.needs()}
    granted = {(name, *found) for name in roles.statements for found in roles.granted(name)}
    return granted - used
