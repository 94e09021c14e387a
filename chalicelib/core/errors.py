"""Every error that Hotplug raises on purpose, as one tree.

::

    HotplugError                 500  internal
    ├── BadRequest               400  malformed: not JSON, a bad cursor, an unknown query parameter
    ├── Unauthenticated          401
    ├── Forbidden                403
    ├── NotFound                 404  also for what belongs to another tenant
    ├── MethodNotAllowed         405
    ├── Conflict                 409
    ├── PreconditionFailed       412  If-Match named another state
    ├── TooLarge                 413
    ├── UnsupportedMediaType     415
    ├── Invalid                  422  well-formed but refused, with every violation
    ├── PreconditionRequired     428
    ├── TooManyRequests          429  Retry-After
    ├── UpstreamFailed           502  a plugin, a tool or another service answered with an error
    ├── Unavailable              503  Retry-After; the database or a queue is away
    └── UpstreamTimeout          504

The HTTP edge turns each into an RFC 9457 problem document; nothing else about an exception leaves the service.
A domain adds a small subclass where a caller must catch the rule by name; otherwise it raises one of these with
its own `code`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_SHOWN = 1_024
"""Characters of a pointer or of a message that an answer shows."""


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


@dataclass(frozen=True)
class Violation:
    """One broken rule of an input.

    Parameters
    ----------
    pointer
        Where: an RFC 6901 JSON pointer into the document (`/manifest/version`), or the entry of an archive.
    rule
        Stable slug of the rule (`zip.traversal`, `schema.required`); clients may test it.
    message
        For people; it may change.
    """

    pointer: str
    rule: str
    message: str

    def as_dict(self) -> dict[str, str]:
        """Return it as an answer shows it: a name of a megabyte must not come back with each of a hundred violations
        below it."""
        return {"pointer": _cut(self.pointer), "rule": self.rule, "message": _cut(self.message)}


class HotplugError(Exception):
    """Root of the tree.

    Parameters
    ----------
    detail
        One sentence for the person who reads the answer. Never a secret, an SQL text or an internal address.
    code
        Stable slug, `plugin.version_exists`; the class default where none is given.
    errors
        All violations, in the order they were found.
    extensions
        Further members of the problem document (`{"dependents": [...]}`).
    retry_after
        Seconds after which trying again makes sense; becomes the `Retry-After` header.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        errors: Iterable[Violation] = (),
        extensions: Mapping[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.code = code or self.default_code
        self.errors = tuple(errors)
        self.extensions = dict(extensions or {})
        self.retry_after = retry_after


class BadRequest(HotplugError):
    status, title, default_code = 400, "Malformed request", "request.malformed"


class Unauthenticated(HotplugError):
    status, title, default_code = 401, "Authentication needed", "auth.unauthenticated"


class Forbidden(HotplugError):
    status, title, default_code = 403, "Not allowed", "auth.forbidden"


class NotFound(HotplugError):
    status, title, default_code = 404, "Not found", "not_found"


class MethodNotAllowed(HotplugError):
    status, title, default_code = 405, "Method not allowed", "method_not_allowed"


class Conflict(HotplugError):
    status, title, default_code = 409, "Conflict", "conflict"


class PreconditionFailed(HotplugError):
    status, title, default_code = 412, "Precondition failed", "precondition.failed"


class TooLarge(HotplugError):
    status, title, default_code = 413, "Too large", "request.too_large"


class UnsupportedMediaType(HotplugError):
    status, title, default_code = 415, "Unsupported media type", "request.media_type"


class Invalid(HotplugError):
    status, title, default_code = 422, "Invalid", "request.invalid"


class PreconditionRequired(HotplugError):
    status, title, default_code = 428, "Precondition required", "precondition.required"


class TooManyRequests(HotplugError):
    status, title, default_code = 429, "Too many requests", "rate_limited"


class UpstreamFailed(HotplugError):
    status, title, default_code = 502, "Upstream failed", "upstream.failed"


class Unavailable(HotplugError):
    status, title, default_code = 503, "Temporarily unavailable", "unavailable"


class UpstreamTimeout(HotplugError):
    status, title, default_code = 504, "Upstream timed out", "upstream.timeout"
