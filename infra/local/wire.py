"""A small HTTP/1.1 server on asyncio: what the gateway, the Invoke API and the Runtime API have in common.

Keep-alive, Content-Length and chunked bodies, a limit on every size, TCP_NODELAY (asyncio's default).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 64 * 1024
DRAIN_LIMIT = 64 * 1024 * 1024
KEEP_ALIVE_S = 75
BODY_TIMEOUT_S = 60

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(r"[!-~]+")  # printable ASCII without spaces; anything else is not a request target
_VALUE = re.compile(r"[\t -~\x80-\xff]*")


@dataclass(frozen=True)
class Request:
    """One request. `target` and header values are as sent; `too_large` means that the body was thrown away."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    peer: str
    too_large: bool = False

    def header(self, name: str) -> str | None:
        """Return the last value of a header, or None."""
        wanted = name.lower()
        for key, value in reversed(self.headers):
            if key.lower() == wanted:
                return value
        return None


@dataclass(frozen=True)
class Response:
    """One response; Content-Length and Connection are added when it is written."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


Handler = Callable[[Request], Awaitable[Response]]
Refusal = Callable[[int, str], Response]


class _Malformed(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _plain_refusal(status: int, detail: str) -> Response:
    return Response(status, [("Content-Type", "text/plain")], detail.encode())


class HttpServer:
    """Serves one handler on a loopback port.

    Parameters
    ----------
    max_body
        Bytes; a longer body is read, dropped, and reported to the handler as `too_large`.
    keep_alive_s
        How long an idle connection stays open; None for ever (a runtime waits for its next invocation).
    refusal
        Makes the answer for what never reaches the handler: malformed requests and crashes of the handler.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        max_body: int,
        log: logging.Logger,
        keep_alive_s: float | None = KEEP_ALIVE_S,
        refusal: Refusal = _plain_refusal,
    ) -> None:
        self._handler = handler
        self._max_body = max_body
        self._log = log
        self._keep_alive_s = keep_alive_s
        self._refusal = refusal
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1 and return the port (a free one for 0)."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, limit=HEAD_LIMIT, backlog=512
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self.stop_listening()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            peer = writer.get_extra_info("peername")
            while await self._serve_one(reader, writer, peer[0] if peer else ""):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away or stopped sending: there is nobody to answer
        except asyncio.CancelledError:
            pass  # the server is closing
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str) -> bool:
        try:
            async with asyncio.timeout(self._keep_alive_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _write(writer, self._refusal(431, "The request's headers are too long."), "GET", close=True)
            return False
        try:
            method, target, version, headers = _parse_head(head)
            length = _body_length(headers)
            expects = any(
                key.lower() == "expect" and value.lower() == "100-continue" for key, value in headers
            )
            if expects and (length is None or length <= self._max_body):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body, too_large = await self._read_body(reader, length, skip=expects)
        except _Malformed as error:
            await _write(writer, self._refusal(error.status, str(error)), "GET", close=True)
            return False
        request = Request(method, target, headers, body, peer, too_large)
        close = too_large or version == "HTTP/1.0" or (request.header("connection") or "").lower() == "close"
        try:
            response = await self._handler(request)
        except Exception:  # noqa: BLE001 - a defect of one request must not end the server
            self._log.exception("%s %s failed", method, target)
            response = self._refusal(500, "The local stack failed; its log says why.")
        await _write(writer, response, method, close=close)
        return not close

    async def _read_body(
        self, reader: asyncio.StreamReader, length: int | None, *, skip: bool
    ) -> tuple[bytes, bool]:
        if length is None:
            return await self._read_chunks(reader)
        if length <= self._max_body:
            return (await reader.readexactly(length) if length else b""), False
        # A client that sends the whole body before it reads would never see the answer: take it in and drop it.
        remaining = 0 if skip else min(length, DRAIN_LIMIT)
        while remaining and (piece := await reader.read(min(remaining, HEAD_LIMIT))):
            remaining -= len(piece)
        return b"", True

    async def _read_chunks(self, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        total = 0
        while True:
            size = _chunk_size(await _line(reader))
            if size == 0:
                break
            total += size
            if total > DRAIN_LIMIT:
                return b"", True
            piece = await reader.readexactly(size)
            if await reader.readexactly(2) != b"\r\n":
                raise _Malformed(400, "A chunk does not end where it said.")
            if total <= self._max_body:
                pieces.append(piece)
        while await _line(reader):
            pass  # trailers carry nothing that anyone here reads
        return (b"", True) if total > self._max_body else (b"".join(pieces), False)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n"))[:-2]
    except asyncio.LimitOverrunError:
        raise _Malformed(400, "A line of the chunked body is too long.") from None


def _chunk_size(line: bytes) -> int:
    text = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", text):
        raise _Malformed(400, "A chunk size is not a hexadecimal number.")
    return int(text, 16)


def _parse_head(head: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    lines = head[:-4].decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0") or not _TOKEN.fullmatch(parts[0]):
        raise _Malformed(400, "The request line is malformed.")
    target = parts[1]
    if target.startswith("http://"):
        target = "/" + target[7:].partition("/")[2]
    if not target.startswith("/") or not _TARGET.fullmatch(target):
        raise _Malformed(400, "The request target is malformed.")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _Malformed(400, "A header is malformed.")
        headers.append((name, value))
    return parts[0], target.partition("#")[0], parts[2], headers


def _body_length(headers: Sequence[tuple[str, str]]) -> int | None:
    """Return the body's bytes, or None for a chunked one (RFC 9112 §6.3)."""
    lengths = {value for name, value in headers if name.lower() == "content-length"}
    encodings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if encodings:
        # Both at once is how requests are smuggled past a gateway.
        if lengths or encodings != ["chunked"]:
            raise _Malformed(400, "The body's length is ambiguous.")
        return None
    if not lengths:
        return 0
    text = lengths.pop()
    if lengths or not re.fullmatch(r"[0-9]{1,15}", text):
        raise _Malformed(400, "Content-Length is malformed.")
    return int(text)


async def _write(writer: asyncio.StreamWriter, response: Response, method: str, *, close: bool) -> None:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {response.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    empty = response.status in (204, 304) or response.status < 200
    if not empty:
        lines.append(f"Content-Length: {len(response.body)}")
    lines.append("Connection: close" if close else "Connection: keep-alive")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    writer.write(head if empty or method == "HEAD" else head + response.body)
    await writer.drain()
