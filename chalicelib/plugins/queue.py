"""Sending to the install queue: for a retry, and for an event that never came."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from chalicelib.core import guards
from chalicelib.core.errors import Unavailable

TIMEOUT_S = 5


@lru_cache(maxsize=1)
def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": 3, "mode": "standard"}
    return boto3.client(
        "sqs", config=Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries=retries)
    )


def send(url: str, message: dict[str, Any]) -> None:
    """Send one message.

    Parameters
    ----------
    url
        Of the queue.

    Raises
    ------
    errors.Unavailable
    """
    from botocore.exceptions import BotoCoreError, ClientError

    guards.forbid_in_unit("sqs")
    try:
        _client().send_message(QueueUrl=url, MessageBody=json.dumps(message))
    except (BotoCoreError, ClientError) as error:
        raise Unavailable("The install queue cannot be reached.", code="queue.away", retry_after=2) from error
