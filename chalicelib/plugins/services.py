"""What the plugin domain works with: the services of one process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.functions import Functions, LambdaFunctions
from chalicelib.core.hotcache import HotCache
from chalicelib.core.storage import Storage, storage


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in fakes that keep the same protocols."""

    database: DatabaseService
    storage: Storage
    functions: Functions
    cache: HotCache


@lru_cache(maxsize=1)
def plugin_services() -> Services:
    """Return the services of this process, made on first use."""
    return Services(process.database(), storage(), LambdaFunctions(), process.cache())
