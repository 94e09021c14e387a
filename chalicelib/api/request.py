"""What a handler gets and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.audit import AuditLog
from chalicelib.core.caller import Caller
from chalicelib.core.database import CommitUnknown, DatabaseService, Unit
from chalicelib.core.errors import Unavailable
from chalicelib.core.hotcache import HotCache
from chalicelib.core.ids import new_id
from chalicelib.core.paging import Page
from chalicelib.core.representation import entity_tag

Complete = Callable[[Session, dict[str, Any]], None]

# A server that lost its client may still be committing; a failover takes longer, and is the client's to wait for.
READ_BACK_AFTER_S = (0.1, 0.4, 1.5)


@dataclass(frozen=True)
class Answer:
    """A handler's answer where a bare 200 resource does not say it all.

    Parameters
    ----------
    body
        The resource (a JSON value, or the text of an endpoint of another media type), None for an empty body.
    headers
        Further headers, `Location` for instance.
    tagged
        The resource that the ETag stands for where the body shows more than that (a secret, shown once).
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    tagged: Any = None

    def stored(self) -> dict[str, Any]:
        """Return the JSON form that an Idempotency-Key keeps."""
        headers = dict(self.headers)
        if self.tagged is not None:
            headers["ETag"] = entity_tag(self.tagged)
        return {"body": self.body, "status": self.status, "headers": headers}


@dataclass(frozen=True)
class UploadedFile:
    """A file of a multipart form; held in memory, bounded by the endpoint's body limit."""

    filename: str
    content: bytes


@dataclass
class Request:
    """One authenticated, validated request.

    The edge owns the transaction: `reads()` for reading, `write(work)` for the one unit that answers the request.
    No network call may be made inside `work`.
    """

    caller: Caller
    path: dict[str, str]
    query: dict[str, Any]
    body: Any
    files: dict[str, UploadedFile]
    headers: Mapping[str, str]
    database: DatabaseService
    cache: HotCache
    url_path: str
    complete: Complete | None = None
    committed: bool = False

    @property
    def if_match(self) -> str | None:
        """The If-Match header."""
        return self.headers.get("if-match")

    def reads(self) -> AbstractContextManager[Session]:
        """Return a context manager with a session that reads in AUTOCOMMIT."""
        return self.database.reads()

    def page(self) -> Page:
        """Return the page that the query asks for, its cursor bound to this caller, path and filter."""
        binding = {name: value for name, value in self.query.items() if name not in ("limit", "cursor")}
        binding |= {
            "$app": self.caller.app_id,
            "$credential": self.caller.credential_id,
            "$path": self.url_path,
        }
        # Random, shared by every function, never shown to a client, and already read for this request.
        key = self.cache.version("apps")[1].encode()
        return Page(self.query["limit"], self.query.get("cursor"), binding, key)

    def write(self, work: Callable[[Unit], Answer | dict[str, Any]]) -> Answer:
        """Run `work` as the unit of work that answers this request, and return its answer.

        With an Idempotency-Key the answer is stored in the same transaction. A deadlock runs `work` again from
        its beginning. A connection that is lost during the commit leaves the outcome open: it is read back from
        the audit row that the unit wrote.

        Raises
        ------
        errors.Unavailable
            `database.outcome_unknown` where the row is not found: trying again with the same Idempotency-Key is
            safe, without one the client must look first.
        """
        attempts: list[tuple[int, Answer]] = []

        def unit(session: Unit) -> Answer:
            # Ids of one process only grow: the unit's own audit rows are those above this one.
            began = new_id()
            result = work(session)
            answer = result if isinstance(result, Answer) else Answer(result)
            if self.complete is not None:
                self.complete(session, answer.stored())
            attempts.append((began, answer))
            return answer

        try:
            answer = self.database.run(unit)
        except CommitUnknown as error:
            began, answer = attempts[-1]
            if not self._was_committed(began):
                raise Unavailable(
                    "The database was lost while it stored this; whether it did is not known. Look before you"
                    " try again, or try again with the same Idempotency-Key.",
                    code="database.outcome_unknown",
                    retry_after=5,
                ) from error
        self.committed = True
        return answer

    def _was_committed(self, began: int) -> bool:
        # The index (app_id, id) leads straight to the few rows that this app has written since.
        own = select(AuditLog.id).where(
            AuditLog.app_id == self.caller.app_id,
            AuditLog.id > began,
            AuditLog.request_id == self.caller.request_id,
        )
        for delay in READ_BACK_AFTER_S:
            time.sleep(delay)
            try:
                with self.reads() as session:
                    if session.scalar(own.limit(1)) is not None:
                        return True
            except Unavailable:
                # Still away; the next try, or the caller's 503, says so.
                continue
        return False
