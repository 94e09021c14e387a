"""`multipart/form-data` (RFC 7578), as browsers write it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chalicelib.core.outbound.request import MAX_REQUEST_BYTES
from chalicelib.tools.binding.serialization import CannotSerialize

DrawBoundary = Callable[[], str]
_MAX_DRAWS = 10
_CONTROLS = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Part:
    """One part. `filename` makes it a file for the server that reads it; `content_type` None means text/plain."""

    name: str
    content: bytes
    content_type: str | None = None
    filename: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def draw_boundary() -> str:
    """Return a boundary that nobody can guess and put into a part."""
    return f"hotplug-{secrets.token_hex(16)}"


def written(parts: Iterable[Part], draw: DrawBoundary = draw_boundary) -> tuple[bytes, str]:
    """Return the body and its boundary.

    Parameters
    ----------
    draw
        Where boundaries come from; asked again while the one that it gave occurs in a part.

    Raises
    ------
    CannotSerialize
        `argument.too_large`, `argument.name`, `argument.boundary`.
    """
    kept, size = [], 0
    for part in parts:
        kept.append((_head(part), part.content))
        size += len(kept[-1][0]) + len(part.content)
        if size > MAX_REQUEST_BYTES:
            raise CannotSerialize("argument.too_large", f"takes more than {MAX_REQUEST_BYTES} bytes")
    boundary = _unused(kept, draw)
    body = bytearray()
    for head, content in kept:
        body += b"--" + boundary + b"\r\n" + head + b"\r\n" + content + b"\r\n"
    return bytes(body + b"--" + boundary + b"--\r\n"), boundary.decode()


def _unused(kept: list[tuple[bytes, bytes]], draw: DrawBoundary) -> bytes:
    for _ in range(_MAX_DRAWS):
        boundary = draw().encode("ascii")
        if not any(boundary in head or boundary in content for head, content in kept):
            return boundary
    raise CannotSerialize("argument.boundary", "holds every boundary that was drawn for it")


def _head(part: Part) -> bytes:
    disposition = f'form-data; name="{_quoted(part.name)}"'
    if part.filename is not None:
        disposition += f'; filename="{_quoted(part.filename)}"'
    lines = [("Content-Disposition", disposition)]
    if part.content_type is not None:
        lines.append(("Content-Type", part.content_type))
    return "".join(f"{name}: {value}\r\n" for name, value in (*lines, *part.headers)).encode("utf-8")


def _quoted(text: str) -> str:
    """Return a name as HTML's form submission escapes it ("multipart/form-data encoding algorithm")."""
    if _CONTROLS.search(text):
        raise CannotSerialize("argument.name", "has control characters in a name")
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
