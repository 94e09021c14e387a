"""One connection to an address that was checked, on which one request is made.

httpcore speaks the protocol over a stream of ours, whose every read and write ends at the call's deadline, or
when another thread cuts the line.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from chalicelib.core.errors import UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.content import broken
from chalicelib.core.outbound.deadline import Deadline
from chalicelib.core.outbound.request import Call, Headers, wire_headers

if TYPE_CHECKING:
    import httpcore

# A name may have hundreds of addresses; all are checked, a few are tried.
MAX_ADDRESSES_TRIED = 4

Dial = Callable[[str, int, float], socket.socket]  # IP address, port, seconds → connected socket; OSError


class StreamClosed(UpstreamFailed):
    """The call was closed on our side, perhaps by another thread, while or before its answer was read."""

    def __init__(self) -> None:
        super().__init__("The call was closed before its answer had ended.", code="http.stream_closed")


def dial(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an IP address; no name is looked up on the way."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


class Line:
    """The socket that a call waits on, which any thread may cut."""

    def __init__(self) -> None:
        self._state = threading.Lock()
        self._waiting = threading.Lock()
        self._sock: socket.socket | None = None
        self._is_cut = False

    def attach(self, sock: socket.socket) -> None:
        """Make `sock` what `cut` ends.

        Raises
        ------
        StreamClosed
            The line was cut already; the socket is closed.
        """
        with self._state:
            self._sock = sock
        try:
            self.check()
        except StreamClosed:
            sock.close()
            raise

    def check(self) -> None:
        """Raise StreamClosed once the line was cut."""
        if self._is_cut:
            raise StreamClosed

    def cut(self) -> None:
        """End whatever waits on the socket, at once, and whatever would wait on it later."""
        with self._state:
            self._is_cut = True
            if self._sock is not None:
                try:
                    # Not close: that wakes nobody, and a reader would go on with the descriptor's number when
                    # it is another connection's. Not SSLSocket.shutdown: it takes the TLS state away from
                    # under a reader, who would then be handed ciphertext.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # not connected any more

    def hang_up(self) -> None:
        """Close the socket once nobody waits on it."""
        with self._waiting, self._state:
            if self._sock is not None:
                self._sock.close()
                self._sock = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Mark that the socket is waited on. One that was shut reads as the end of a body, which it is not.

        Raises
        ------
        StreamClosed
            The line was cut before or meanwhile.
        """
        with self._waiting:
            self.check()
            try:
                yield
            except (OSError, UpstreamFailed, UpstreamTimeout) as error:
                if self._is_cut:
                    raise StreamClosed from error
                raise
            self.check()


@dataclass(frozen=True)
class Timeouts:
    """Seconds: for the connection and the TLS handshake each, and for each wait for bytes."""

    connect: float
    read: float


@dataclass(frozen=True)
class Exchange:
    """An answer whose body is still on the wire; header names are in lower case."""

    status: int
    headers: Headers
    chunks: Iterator[bytes]
    close: Callable[[], None]


def exchange(
    call: Call,
    backend: PinnedBackend,
    timeouts: Timeouts,
    tls: ssl.SSLContext | None,
) -> Exchange:
    """Send one request on a new connection and return the answer as soon as its headers are there.

    Parameters
    ----------
    tls
        Whom to trust; used for https only.

    Raises
    ------
    errors.UpstreamFailed
        `http.connect_failed`, `http.tls_failed`, `http.protocol_error`, `http.stream_closed`.
    errors.UpstreamTimeout
        One of the timeouts passed.
    """
    import httpcore

    # At DEBUG it writes the headers of requests and answers, credentials among them.
    logging.getLogger("httpcore").setLevel(logging.INFO)
    target, wait = call.target, timeouts.read
    url = httpcore.URL(
        scheme=target.scheme.encode(),
        host=target.host.encode(),
        port=target.port,
        target=target.path.encode(),
    )
    request = httpcore.Request(
        call.method,
        url,
        headers=wire_headers(call),
        content=call.body,
        extensions={"timeout": {"connect": timeouts.connect, "read": wait, "write": wait}},
    )
    connection = httpcore.HTTPConnection(
        url.origin, ssl_context=tls, network_backend=cast("httpcore.NetworkBackend", backend)
    )
    try:
        response = connection.handle_request(request)
    except httpcore.ProtocolError as error:
        connection.close()
        raise broken() from error
    except BaseException:
        connection.close()
        raise
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers
    )
    return Exchange(response.status, headers, _chunks(response), connection.close)


def _chunks(response: httpcore.Response) -> Iterator[bytes]:
    import httpcore

    try:
        yield from response.iter_stream()
    except httpcore.ProtocolError as error:
        raise broken() from error


class PinnedBackend:
    """Stands for httpcore.NetworkBackend; it connects to checked addresses whatever host it is told."""

    def __init__(self, addresses: Sequence[str], dial: Dial, deadline: Deadline, line: Line) -> None:
        self._addresses = addresses[:MAX_ADDRESSES_TRIED]
        self._dial = dial
        self._deadline = deadline
        self._line = line

    def connect_tcp(
        self, host: str, port: int, timeout: float, local_address: None, socket_options: None
    ) -> DeadlineStream:
        ends = Deadline.after(self._deadline.bound(timeout))
        failure: OSError | None = None
        for tried, address in enumerate(self._addresses):
            try:
                # Shared out, so that one address that swallows packets leaves time for the next.
                share = ends.bound(None) / (len(self._addresses) - tried)
                sock = self._dial(address, port, share)
            except OSError as error:
                failure = error
                continue
            self._line.attach(sock)
            return DeadlineStream(sock, self._deadline, self._line)
        if isinstance(failure, TimeoutError):
            raise UpstreamTimeout("The server did not accept the connection in time.") from failure
        raise UpstreamFailed("The server cannot be connected to.", code="http.connect_failed") from failure


class DeadlineStream:
    """Stands for httpcore.NetworkStream; no operation outlasts the deadline, however slowly bytes drip."""

    def __init__(self, sock: socket.socket, deadline: Deadline, line: Line) -> None:
        self._sock = sock
        self._deadline = deadline
        self._line = line

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._line.in_use():
            try:
                self._sock.settimeout(self._deadline.bound(timeout))
                return self._sock.recv(max_bytes)
            except TimeoutError as error:
                raise UpstreamTimeout("The server did not answer in time.") from error
            except OSError as error:
                raise broken() from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        import httpcore

        rest = memoryview(buffer)
        while rest:
            with self._line.in_use():
                try:
                    self._sock.settimeout(self._deadline.bound(timeout))
                    rest = rest[self._sock.send(rest) :]
                except TimeoutError as error:
                    raise UpstreamTimeout("The server did not take the request in time.") from error
                except OSError as error:
                    # httpcore then reads: a server may answer (413) and close before it has read everything.
                    raise httpcore.WriteError() from error

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str, timeout: float) -> DeadlineStream:
        try:
            with self._line.in_use():
                self._sock.settimeout(self._deadline.bound(timeout))
                wrapped = ssl_context.wrap_socket(
                    self._sock, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                # It took over the descriptor: from here on this is what another thread has to cut.
                self._line.attach(wrapped)
                wrapped.do_handshake()
        except BaseException as error:
            self._line.hang_up()
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("The TLS handshake did not end in time.") from error
            if isinstance(error, ssl.SSLError):
                raise UpstreamFailed("The server failed TLS verification.", code="http.tls_failed") from error
            if isinstance(error, OSError):
                raise UpstreamFailed("The connection ended early.", code="http.connect_failed") from error
            raise
        return DeadlineStream(wrapped, self._deadline, self._line)

    def get_extra_info(self, info: str) -> None:
        """Nothing is known: httpcore asks for `ssl_object` to find HTTP/2, which is not offered."""

    def close(self) -> None:
        self._line.hang_up()
