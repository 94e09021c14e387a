"""The MCP SDK's HTTP over our one outbound client: what the SDK sends and reads passes through `stream` below.

The SDK speaks to an httpx2 client, whose transport stands here in place of one that opens sockets. So each of its
requests has the checks of `core/outbound/client.py`, which is synchronous: it runs in a thread, which a cancellation
wakes by closing the call and waits for, so that none outlives the conversation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
import httpx2
from mcp_types import JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from chalicelib.core.errors import HotplugError, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools.mcp_client.dialect import Transport
from chalicelib.tools.mcp_client.failures import refusal

# Of all answers of a conversation together, whatever they hold.
MAX_BYTES = 5 * ONE_MIB
# A listing of 50 pages needs 54. A server that lets its streams end and be resumed for ever, or asks us
# something with each event, makes us knock at its door until the deadline otherwise.
MAX_EXCHANGES = 100
# The methods of 2026-07-28 are named in a header; a server that knows only the older ones may not answer.
DISCOVERY = "server/discover"
DISCOVERY_S = 5.0
FAREWELL_S = 1.0

# httpx2 sets them; `core/outbound` sets its own and refuses ours.
_SET_BY_HTTP_OUT = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "transfer-encoding", "user-agent"}
)
_HAS_FAILED_FOR_GOOD = frozenset({401, 403})
_T = TypeVar("_T")
Headers = tuple[tuple[str, str], ...]


class Answer(Protocol):
    """An answer whose body arrives piece by piece; header names are in lower case, no piece is empty."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def url(self) -> str: ...

    @property
    def chunks(self) -> Iterator[bytes]: ...


class Streaming(AbstractContextManager[Answer], Protocol):
    """A call that begins with its `with` block; `close` ends it from any thread, also before it began."""

    def close(self) -> None: ...


class StreamingHttp(Protocol):
    """What is used of `http_out.HttpOut`."""

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        allowed_hosts: Collection[str] | None = None,
        max_bytes: int | None = None,
    ) -> Streaming: ...


@dataclass(frozen=True)
class Endpoint:
    """Whom to speak to, with which credentials, until when.

    Parameters
    ----------
    http
        The outbound client.
    url
        As it was registered.
    headers
        The caller's credentials; sent to the URL's origin and nowhere else.
    ends
        When the conversation must be over, in seconds of time.monotonic().
    allowed_hosts
        As `HttpOut.request`.
    """

    http: StreamingHttp
    url: str
    headers: Mapping[str, str]
    ends: float
    allowed_hosts: Collection[str] | None = None

    def left(self) -> float:
        """Return the seconds that are left; negative when the time is over."""
        return self.ends - time.monotonic()


class HttpTransport(httpx2.AsyncBaseTransport):
    """The transport of one conversation.

    Parameters
    ----------
    endpoint
        Whom it may reach: requests to any other origin are refused, so no credential can leave it.
    kind
        Which transport of MCP runs over it.
    on_failure
        Called at the first failure that no later request can mend. The SDK swallows some of them, and waits
        for an answer that never comes.
    """

    def __init__(self, endpoint: Endpoint, kind: Transport, on_failure: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._origin = parse_url(endpoint.url).origin
        self._kind = kind
        self._on_failure = on_failure
        self._bytes_left = MAX_BYTES
        self._exchanges_left = MAX_EXCHANGES
        self._open: set[_Exchange] = set()
        self.failure: HotplugError | None = None
        self.status: int | None = None
        """Of the newest answer to a POST."""
        self.explained = False
        """Whether that answer holds a JSON-RPC error."""
        self.answered = False
        """Whether the server has answered anything with a 2xx."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._opens_idle_stream(request):
            return httpx2.Response(405, request=request)
        try:
            return await self._exchange(request)
        except HotplugError as error:
            if _is_discovery(request) and isinstance(error, UpstreamTimeout):
                return httpx2.Response(504, request=request)
            if request.method != "DELETE":  # the end of a session whose work is done
                self.fail(error)
            raise

    async def aclose(self) -> None:
        """End what is open still.

        httpx2 closes a body that its reader has left through a generator that the event loop finalises when it
        pleases, or not at all when it ends first.
        """
        for exchange in tuple(self._open):
            await exchange.aclose()

    def fail(self, error: HotplugError) -> None:
        """Keep the first failure, and say that there is one."""
        if self.failure is None:
            self.failure = error
        self._on_failure()

    def ended(self, exchange: _Exchange) -> None:
        """Forget an exchange that is over."""
        self._open.discard(exchange)

    def received(self, size: int) -> None:
        """Count bytes of an answer.

        Raises
        ------
        errors.UpstreamFailed
            `http.response_too_large`: all answers together are too long.
        """
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise UpstreamFailed(
                f"The server's answers are longer than {MAX_BYTES} bytes.", code="http.response_too_large"
            )

    def _opens_idle_stream(self, request: httpx2.Request) -> bool:
        """Return whether the request is for the stream of what a server wants to say unasked.

        Nothing of that is wanted here, and a server that offers none answers as we do instead of it ("MUST
        either return text/event-stream or HTTP 405", Streamable HTTP, Listening for messages).
        """
        return (
            self._kind == "streamable_http"
            and request.method == "GET"
            and "last-event-id" not in request.headers
        )

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(self, self._call(request, await request.aread()))
        self._open.add(exchange)
        try:
            answer = await exchange.open()
            self._check(request, answer)
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
            # No cookie is kept from one request to the next.
            headers = [(name, value) for name, value in headers if name != b"set-cookie"]
            if _is_event_stream(answer):
                return httpx2.Response(answer.status, headers=headers, stream=exchange, request=request)
            body = await exchange.read_all()
        except BaseException:
            await exchange.aclose()
            raise
        await exchange.aclose()
        self.explained = request.method == "POST" and answer.status >= 300 and _is_rpc_error(body)
        return httpx2.Response(answer.status, headers=headers, content=body, request=request)

    def _call(self, request: httpx2.Request, body: bytes) -> Streaming:
        url = str(request.url)
        if parse_url(url).origin != self._origin:
            raise _leads_away()
        self._exchanges_left -= 1
        if self._exchanges_left < 0:
            raise UpstreamFailed(
                f"The server makes more than {MAX_EXCHANGES} requests necessary.", code="mcp.protocol_error"
            )
        headers = {name: value for name, value in request.headers.items() if name not in _SET_BY_HTTP_OUT}
        return self._endpoint.http.stream(
            request.method,
            url,
            headers={**self._endpoint.headers, **headers},
            body=body or None,
            timeout_s=self._timeout(request),
            allowed_hosts=self._endpoint.allowed_hosts,
            max_bytes=self._bytes_left,
        )

    def _timeout(self, request: httpx2.Request) -> float:
        left = self._endpoint.left()
        if left <= 0:
            raise UpstreamTimeout("The MCP server did not answer in time.")
        if _is_discovery(request):  # leaves time for the handshake of the older versions
            return min(left / 2, DISCOVERY_S)
        return min(left, FAREWELL_S) if request.method == "DELETE" else left

    def _check(self, request: httpx2.Request, answer: Answer) -> None:
        """Refuse an answer after which there is nothing to say."""
        if parse_url(answer.url).origin != self._origin:  # a GET is followed wherever it may lead
            raise _leads_away()
        refused = None if 200 <= answer.status < 300 else refusal(answer.status)
        if request.method == "POST":
            self.status = answer.status
        if refused is None:
            self.answered = True
            if self._kind == "sse" and request.method == "GET" and not _is_event_stream(answer):
                raise UpstreamFailed(
                    "The server answered without an event stream.", code="mcp.protocol_error"
                )
        elif self._kind == "sse" or answer.status in _HAS_FAILED_FOR_GOOD:
            raise refused


class _Exchange(httpx2.AsyncByteStream):
    """One call of the outbound client, whose waiting is done in threads; as a stream, the body of its answer."""

    def __init__(self, transport: HttpTransport, call: Streaming) -> None:
        self._transport = transport
        self._call = call
        self._turn = threading.Lock()
        self._entered = False
        self._chunks: Iterator[bytes] = iter(())

    async def open(self) -> Answer:
        """Send the request and return the answer when its headers are there."""
        answer = await self._wait(self._enter)
        self._chunks = answer.chunks
        return answer

    async def read_all(self) -> bytes:
        """Return the body, read in one thread: one hop for each of many small pieces is what costs."""
        return await self._wait(self._read_all)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while piece := await self._wait(self._read):
                self._transport.received(len(piece))
                yield piece
        except HotplugError as error:
            self._transport.fail(error)
            raise

    async def aclose(self) -> None:
        """End the call. Returns when no thread waits on it any more."""
        self._call.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._leave)
        self._transport.ended(self)

    async def _wait(self, work: Callable[[], _T]) -> _T:
        # A cancellation returns at once; `aclose`, which follows, wakes the thread and waits for it.
        return await anyio.to_thread.run_sync(self._in_turn, work, abandon_on_cancel=True)

    def _in_turn(self, work: Callable[[], _T]) -> _T:
        with self._turn:
            return work()

    def _enter(self) -> Answer:
        answer = self._call.__enter__()
        self._entered = True
        return answer

    def _leave(self) -> None:
        with self._turn:
            if self._entered:
                self._entered = False
                self._call.__exit__(None, None, None)

    def _read(self) -> bytes:
        return next(self._chunks, b"")

    def _read_all(self) -> bytes:
        body = bytearray()
        for piece in self._chunks:
            self._transport.received(len(piece))
            body += piece
        return bytes(body)


def _is_discovery(request: httpx2.Request) -> bool:
    return request.headers.get("mcp-method") == DISCOVERY


def _is_rpc_error(body: bytes) -> bool:
    try:
        return isinstance(jsonrpc_message_adapter.validate_json(body, by_name=False), JSONRPCError)
    except ValidationError:
        return False


def _is_event_stream(answer: Answer) -> bool:
    kind = next((value for name, value in answer.headers if name == "content-type"), "")
    return kind.partition(";")[0].strip().lower() == "text/event-stream"


def _leads_away() -> UpstreamFailed:
    return UpstreamFailed(
        "The server leads to another origin; register the URL that it leads to.", code="http.redirect_refused"
    )
