"""What a handler gets and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.hotcache import HotCache
from chalicelib.core.paging import Page

Complete = Callable[[Session, dict[str, Any]], None]


@dataclass(frozen=True)
class Answer:
    """A handler's answer where a bare 200 resource does not say it all.

    Parameters
    ----------
    body
        The resource (a JSON value), None for an empty body.
    headers
        Further headers, `Location` for instance.
    tagged
        The resource that the ETag stands for where the body is not that resource alone.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """Return the JSON form that an Idempotency-Key keeps."""
        return {"body": self.body, "status": self.status, "headers": dict(self.headers)}


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
        binding |= {"$app": self.caller.app_id, "$credential": self.caller.credential_id, "$path": self.url_path}
        # Random, shared by every function, never shown to a client, and already read for this request.
        key = self.cache.version("apps")[1].encode()
        return Page(self.query["limit"], self.query.get("cursor"), binding, key)

    def write(self, work: Callable[[Unit], Answer | dict[str, Any]]) -> Answer:
        """Run `work` as the unit of work that answers this request, and return its answer.

        With an Idempotency-Key the answer is stored in the same transaction. A deadlock runs `work` again from its
        beginning.
        """

        def unit(session: Unit) -> Answer:
            result = work(session)
            answer = result if isinstance(result, Answer) else Answer(result)
            if self.complete is not None:
                self.complete(session, answer.stored())
            return answer

        answer = self.database.run(unit)
        self.committed = True
        return answer
