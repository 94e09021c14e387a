"""Durable executions of a function: starting one, and answering what one waits for."""

from __future__ import annotations

import json
from typing import Any, Protocol

from chalicelib.core import guards
from chalicelib.core.errors import Unavailable
from chalicelib.core.functions import lambda_client

READ_TIMEOUT_S = 10
# Each call can be repeated: an execution is started once for its name, a callback is answered once.
ATTEMPTS = 2
# What the service says of an execution that was started before, and of a callback that nobody waits for any more.
_STARTED_BEFORE = frozenset({"DurableExecutionAlreadyStartedException"})
_ANSWERED_BEFORE = frozenset({"CallbackTimeoutException", "ResourceNotFoundException"})
_FORGOTTEN = frozenset({"ResourceNotFoundException"})


class Executions(Protocol):
    """What starts and answers executions; a test hands in another."""

    def start(self, function: str, name: str, payload: dict[str, Any]) -> None:
        """Start an execution, once for each name. Not inside a unit of work.

        Parameters
        ----------
        function
            Its name, with the alias that it is invoked through where there is one: `hotplug-run:live`.

        Raises
        ------
        errors.Unavailable
            `run.away`: it may have been started or not; starting it again is safe.
        """
        ...

    def answer(self, callback_id: str, payload: dict[str, Any]) -> None:
        """Answer a callback; one that nobody waits for any more is answered already. Not inside a unit of work.

        Raises
        ------
        errors.Unavailable
            `run.away`
        """
        ...

    def is_running(self, arn: str) -> bool:
        """Return whether an execution has not ended. Not inside a unit of work.

        Raises
        ------
        errors.Unavailable
            `run.away`
        """
        ...


class LambdaExecutions:
    """`Executions` over Lambda's API, or the local stack's."""

    def __init__(self, client: Any | None = None) -> None:
        self._made = client

    def start(self, function: str, name: str, payload: dict[str, Any]) -> None:
        self._call(
            "invoke",
            _STARTED_BEFORE,
            FunctionName=function,
            InvocationType="Event",
            DurableExecutionName=name,
            Payload=json.dumps(payload, separators=(",", ":")).encode(),
        )

    def answer(self, callback_id: str, payload: dict[str, Any]) -> None:
        self._call(
            "send_durable_execution_callback_success",
            _ANSWERED_BEFORE,
            CallbackId=callback_id,
            Result=json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode(),
        )

    def is_running(self, arn: str) -> bool:
        found = self._call("get_durable_execution", _FORGOTTEN, DurableExecutionArn=arn)
        return found is not None and found["Status"] == "RUNNING"

    def _call(self, operation: str, done_before: frozenset[str], **parameters: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        guards.forbid_in_unit("lambda")
        if self._made is None:
            self._made = lambda_client(READ_TIMEOUT_S, ATTEMPTS)
        try:
            return getattr(self._made, operation)(**parameters)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in done_before:
                return None
            raise _away() from error
        except BotoCoreError as error:
            raise _away() from error


def _away() -> Unavailable:
    return Unavailable("Durable runs cannot be reached at the moment.", code="run.away", retry_after=5)
