"""What running flows works with: the services of one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.executions import Executions, LambdaExecutions
from chalicelib.core.hotcache import HotCache
from chalicelib.core.storage import Storage, storage
from chalicelib.flows.engine.call import Execute


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols.

    Parameters
    ----------
    executions
        Starts durable runs, and hands them answers.
    storage
        Keeps what is too large for a checkpoint.
    kinds
        What nodes do that work outside the interpreter, by type.
    """

    database: DatabaseService
    cache: HotCache
    executions: Executions
    storage: Storage
    kinds: Mapping[str, Execute]


_executions: Executions | None = None


def flow_services() -> Services:
    """Return the services of this process."""
    from chalicelib.flows.nodes.table import kinds

    global _executions
    if _executions is None:
        _executions = LambdaExecutions()
    return Services(process.database(), process.cache(), _executions, storage(), kinds())


def use(replacement: Executions | None) -> None:
    """Let `flow_services()` start executions through `replacement`; None goes back to Lambda."""
    global _executions
    _executions = replacement
