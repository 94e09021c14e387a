"""What the plugin domain works with: the services of one process."""

from __future__ import annotations

from dataclasses import dataclass

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


_functions: Functions | None = None


def plugin_services() -> Services:
    """Return the services of this process. Nothing is kept here: each of them is kept where it is made, and what
    `process.forget` forgets is forgotten here too."""
    global _functions
    if _functions is None:
        _functions = LambdaFunctions()
    return Services(process.database(), storage(), _functions, process.cache())


def use(replacement: Functions | None) -> None:
    """Let `plugin_services()` invoke functions through `replacement`; None goes back to Lambda."""
    global _functions
    _functions = replacement
