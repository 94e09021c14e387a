"""Proof that nothing was connected to: a client whose every connection ends at a listener that would see it.

To drive the vectors through an entry point: hand it `trap.client()` (or `trap.resolve` and `trap.dial`), let it
have each `Vector.url`, compare the code, and end with `trap.assert_untouched()`. What an entry point connects
to past the client is seen as well: every `connect` of this process is recorded while the trap is set.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from chalicelib.core.outbound import connection
from chalicelib.core.outbound.client import HttpOut
from tests.internet import Server, redirect
from tests.ssrf_vectors import NAMES, REDIRECTS, VPC_RANGES

PUBLIC, START = "93.184.215.14", "93.184.215.20"


@dataclass(frozen=True)
class Start:
    """A public server that redirects wherever its path says."""

    server: Server
    host: str = "start.example"

    def url(self, status: int, number: int) -> str:
        """Return the URL that redirects to REDIRECTS[number]."""
        return f"http://{self.host}/{status}/{number}"


class Trap:
    """Set by `with`. Names that are not among NAMES resolve to a public address.

    Parameters
    ----------
    expected
        Addresses that the test itself needs (`("127.0.0.1", 3306)`).
    """

    def __init__(self, expected: Collection[tuple[str, int]] = ()) -> None:
        self._expected = set(expected)
        self._start: Start | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.connects: list[Any] = []

    def __enter__(self) -> Trap:
        _watching.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _watching.remove(self)
        self._listener.close()

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """Stand for lookup.system."""
        if self._start is not None and host == self._start.host:
            return (START,)
        return NAMES.get(host, (PUBLIC,))

    def dial(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """Stand for connection.dial; it leads to the listener, whatever the address."""
        to = self._start.server.port if self._start is not None and address == START else self.port
        return connection.dial("127.0.0.1", to, timeout_s)

    def client(self, **options: Any) -> HttpOut:
        """Return a client that can only be connected to the listener."""
        return HttpOut(
            resolver=self.resolve, dial=self.dial, vpc_ranges=VPC_RANGES, read_timeout_s=0.2, **options
        )

    @contextmanager
    def redirecting(self) -> Iterator[Start]:
        """Run a public server whose redirects try to lead to REDIRECTS."""

        def answer(conn: socket.socket, request: bytes) -> None:
            # What follows was appended by the entry point: a model's `/chat/completions`.
            status, number = request.split(b" ", 2)[1].decode().lstrip("/").split("/")[:2]
            # UTF-8, as a server would send what is not ASCII.
            location = REDIRECTS[int(number)].url.encode().decode("latin-1")
            conn.sendall(redirect(int(status), location))

        self._start = Start(Server(answer))
        self._expected.add(("127.0.0.1", self._start.server.port))
        try:
            yield self._start
        finally:
            self._start.server.close()
            self._start = None

    def accepted(self) -> int:
        """Return how many connections have arrived since the last call."""
        count = 0
        while True:
            try:
                conn, _ = self._listener.accept()
            except BlockingIOError:
                return count
            conn.close()
            count += 1

    def assert_untouched(self) -> None:
        """Fail if anything was connected to."""
        assert self.accepted() == 0
        assert self.connects == []

    def note(self, address: Any) -> None:
        """Record a connect of this process."""
        if address not in self._expected:
            self.connects.append(address)


_watching: list[Trap] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for trap in _watching:
            trap.note(arguments[1])


# It stays for the life of the process, so there is one for all traps.
sys.addaudithook(_audit)
