"""Secrets of the deployment itself, kept in AWS Secrets Manager: settings name them, no environment holds them.

Read when they are needed, outside transactions, and kept for five minutes: a new value holds everywhere after that
time, without a deployment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from chalicelib.core import guards
from chalicelib.core.aws_clients import new_client
from chalicelib.core.errors import HotplugError, Unavailable

KEPT_S = 300
TIMEOUT_S = 3
ATTEMPTS = 3


class DeploymentSecrets:
    """Values by the name or ARN of their secret.

    Parameters
    ----------
    client
        A Secrets Manager client; made on first use by default.
    clock
        Seconds, monotonic.
    """

    def __init__(self, client: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._kept: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def value(self, name: str) -> str:
        """Return a secret's text. Not inside a unit of work.

        Raises
        ------
        errors.Unavailable
            `secrets.away`
        errors.HotplugError
            `secrets.refused`: there is no such secret, or the role may not read it; `secrets.not_text`.
        """
        now = self._clock()
        with self._lock:
            until, kept = self._kept.get(name, (0.0, ""))
        if until > now:
            return kept
        found = self._read(name)
        with self._lock:
            self._kept[name] = (now + KEPT_S, found)
        return found

    def _read(self, name: str) -> str:
        from botocore import exceptions as boto

        guards.forbid_in_unit("secretsmanager")
        if self._client is None:
            self._client = secrets_client()
        try:
            answer = self._client.get_secret_value(SecretId=name)
        except boto.ClientError as error:
            raise _refusal(error) from error
        except boto.BotoCoreError as error:
            raise _away() from error
        text = answer.get("SecretString")
        if not text:
            raise HotplugError("A secret of this deployment is not text.", code="secrets.not_text")
        return str(text)


def secrets_client() -> Any:
    """Return a new Secrets Manager client with bounded waits and retries."""
    return new_client(
        "secretsmanager",
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )


def _refusal(error: Any) -> HotplugError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status >= 500 or status == 429 or "Throttl" in code:
        return _away()
    return HotplugError("The secret store refused a request of this service.", code="secrets.refused")


def _away() -> Unavailable:
    return Unavailable("The secret store cannot be reached.", code="secrets.away", retry_after=2)
