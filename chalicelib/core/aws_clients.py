"""Making boto3 clients. Threads share a client, but not the making of one: all clients come from one session, which
fills in its parts as they are first asked for (boto3, "Multithreading or multiprocessing with clients")."""

from __future__ import annotations

import threading
from typing import Any

MAX_CONNECTIONS = 64
"""Kept per client and host. With fewer than there are threads, the others connect anew for each call."""

_making = threading.Lock()


def new_client(service: str, **config: Any) -> Any:
    """Return a new client.

    Parameters
    ----------
    config
        Arguments of `botocore.config.Config`.
    """
    import boto3
    from botocore.config import Config

    with _making:
        return boto3.client(service, config=Config(max_pool_connections=MAX_CONNECTIONS, **config))
