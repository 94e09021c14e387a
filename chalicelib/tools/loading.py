"""A version as warm functions keep it: its document parsed once, its operations compiled as they are first called."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools import catalog
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.models import ToolDocument, ToolMeta, ToolSchema
from chalicelib.tools.openapi.compile import Document, compile_operation, compile_operations

# Of the plans of one version, each about as heavy as what its operation reaches of the document.
KEPT_PLANS = 64
MOST_NAMED = 50
# Of documents that are read at once for a listing; a parsed one takes ten times its text.
READ_AT_ONCE_BYTES = 4 * ONE_MIB


class LoadedVersion:
    """One version of a tool, shared between requests. Only its memory of plans ever changes."""

    def __init__(self, tool_id: str, version: str, document: Document) -> None:
        self.tool_id = tool_id
        self.version = version
        self.document = document
        self._plans: dict[str, CallPlan] = {}
        self._lock = threading.Lock()

    @property
    def weight(self) -> int:
        """Bytes, about."""
        return self.document.weight

    def plan(self, operation_id: str) -> CallPlan:
        """Return the plan of an operation.

        Raises
        ------
        errors.Invalid
            `tool.unknown_operation`, naming some that there are.
        """
        plan = self._plans.get(operation_id)
        if plan is None:
            plan = plan_of(self.document, operation_id)
            with self._lock:
                if len(self._plans) >= KEPT_PLANS:
                    # The oldest: a dict keeps the order of insertion.
                    self._plans.pop(next(iter(self._plans)))
                plan = self._plans.setdefault(operation_id, plan)
        return plan


def plan_of(document: Document, operation_id: str) -> CallPlan:
    """Return the plan of an operation of any document; see `LoadedVersion.plan`."""
    if operation_id not in document:
        known = [one.operation_id for one in compile_operations(document)]
        shown = ", ".join(known[:MOST_NAMED]) + (", …" if len(known) > MOST_NAMED else "")
        raise Invalid(
            "The tool has no such operation.",
            code="tool.unknown_operation",
            errors=[Violation("/operationId", "tool.unknown_operation", f"is none of {shown}"[:2000])],
        )
    return CallPlan(compile_operation(document, operation_id))


def load(cache: HotCache, caller: Caller, tool_id: str, version: str | None) -> LoadedVersion:
    """Return a version of a tool that the caller may call, from memory where it is warm.

    Raises
    ------
    errors.NotFound, errors.Invalid
    """
    row_id = catalog.find(cache, caller, tool_id).row_of(version)

    def read(session: Session) -> tuple[LoadedVersion | None, list[Dependency]]:
        query = select(ToolSchema.version, ToolSchema.open_api_schema).where(
            ToolSchema.id == row_id, ToolSchema.is_deleted == 0
        )
        row = session.execute(query).one_or_none()
        loaded = (
            None
            if row is None
            else LoadedVersion(tool_id, row.version, Document(json.loads(row.open_api_schema)))
        )
        return loaded, [("tools", tool_id)]

    loaded = cache.load(("tool_version", row_id), read, lambda value: 0 if value is None else value.weight)
    if loaded is None:
        raise catalog.version_not_found()
    return loaded


def read_newest(database: DatabaseService, tool_ids: Sequence[str]) -> Iterator[tuple[str, Document]]:
    """Yield the ids of tools, each with the document of its newest version, in two statements where they are small.

    For listings: nothing is kept, because a hundred documents would displace what is called. Whether the caller may see
    them was decided by whoever knew their ids.
    """
    sizes = (
        select(ToolMeta.latest_id, ToolDocument.size)
        .join(ToolDocument, ToolDocument.schema_id == ToolMeta.latest_id)
        .where(ToolMeta.tool_id.in_(tool_ids), ToolMeta.is_deleted == 0)
    )
    with database.reads() as session:
        found = session.execute(sizes).all()
    for row_ids in _batches([(row.latest_id, row.size) for row in found]):
        texts = select(ToolSchema.tool_id, ToolSchema.open_api_schema).where(
            ToolSchema.id.in_(row_ids), ToolSchema.is_deleted == 0
        )
        with database.reads() as session:
            rows = session.execute(texts).all()
        for row in rows:
            yield row.tool_id, Document(json.loads(row.open_api_schema))


def _batches(sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield row ids, as many at once as READ_AT_ONCE_BYTES has room for, at least one."""
    batch: list[int] = []
    room = READ_AT_ONCE_BYTES
    for row_id, size in sizes:
        if batch and size > room:
            yield batch
            batch, room = [], READ_AT_ONCE_BYTES
        batch.append(row_id)
        room -= size
    if batch:
        yield batch
