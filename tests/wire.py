"""A TCP proxy in front of a MySQL server that counts what a client really sends, and can cut the line.

SQLAlchemy's events do not see the driver's own BEGIN, COMMIT, PING and SET statements; the wire does. A
command is a packet with sequence number 0
(https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html), and each is one round
trip.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

from sqlalchemy.engine import make_url

_NAMES = {0x01: "QUIT", 0x03: "QUERY", 0x0E: "PING", 0x1F: "RESET"}


class WireProxy:
    """Forwards to the server of `url`; `commands` lists each command's name, and the statement of a query."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (target.host or "127.0.0.1", target.port or 3306)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        self.commands: list[str] = []
        # How many lines were opened: a client that opens another one has lost, or given up, what it had.
        self.opened = 0
        # Called with each command before it is forwarded; where it returns True the line is cut instead.
        self.cut: Callable[[str], bool] = lambda _: False
        self._lines: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown() wakes the threads that wait in accept() and recv(); close() alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(5)

    def hang_up(self) -> None:
        """Cut every line that is open now; new ones are accepted."""
        for line in self._lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                # The other side was faster.
                pass
            line.close()
        self._lines.clear()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.opened += 1
            server = socket.create_connection(self._target)
            for line in (client, server):
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._lines.append(line)
            self._run(self._upwards, client, server)
            self._run(self._downwards, server, client)

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while header := _read(client, 4):
                body = _read(client, int.from_bytes(header[:3], "little"))
                if header[3] == 0 and body:
                    command = _NAMES.get(body[0], hex(body[0]))
                    if command == "QUERY":
                        command += " " + body[1:].decode("utf-8", "replace")
                    self.commands.append(command)
                    if self.cut(command):
                        break
                server.sendall(header + body)
        except OSError:
            # Cut from elsewhere; both ends are closed below.
            pass
        _close(client, server)

    def _downwards(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                client.sendall(data)
        except OSError:
            # As above.
            pass
        _close(client, server)


def _read(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = line.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _close(*lines: socket.socket) -> None:
    for line in lines:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Not connected any more.
            pass
        line.close()
