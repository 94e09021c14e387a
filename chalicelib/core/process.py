"""The one place that wires things: what a warm process keeps from one invocation to the next, made on first use."""

from __future__ import annotations

import os
from functools import lru_cache
from uuid import uuid4

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.settings import settings

# Names this execution environment in GET /api/v1/instances; a new process is a new instance.
INSTANCE_ID = uuid4().hex
FUNCTION_NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")


@lru_cache(maxsize=1)
def database() -> DatabaseService:
    """Return this process's database service; nothing connects before the first statement."""
    return DatabaseService(settings().database_url, ca_file=settings().database_ca)


@lru_cache(maxsize=1)
def cache() -> HotCache:
    """Return this process's hot cache."""
    return HotCache(database(), max_staleness_ms=settings().max_staleness_ms)
