"""A line to a MySQL server that can be cut, refused, frozen, and made to answer with an error of its choice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

from sqlalchemy.engine import make_url

_QUERY = 0x03
DEADLOCK = (1213, "40001", "Deadlock found when trying to get lock; try restarting transaction")
# What becomes of a statement: forwarded, answered with an error, or the line cut before or after it is sent on.
Verdict = tuple[int, str, str] | str | None
CUT_BEFORE, CUT_AFTER = "cut before", "cut after"


class Line:
    """Forwards to the server of `url` from a port of its own, which stays the same.

    Attributes
    ----------
    url
        The database, by way of this line.
    judge
        Asked about each statement before it is forwarded; None forwards it.
    """

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (target.host or "127.0.0.1", target.port or 3306)
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = target.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)
        self.judge: Callable[[str], Verdict] = lambda statement: None
        self._flowing = threading.Event()
        self._flowing.set()
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        assert self._listener is not None
        self._run(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._listener is not None:
            # shutdown() wakes the thread that waits in accept(); close() alone would not.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for end in self._ends:
                _hang_up(end)

    def restore(self) -> None:
        """Accept connections again, on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._run(self._accept, self._listener)

    def freeze(self) -> None:
        """Pass nothing on in either direction: connections stay open, and nobody answers."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what has waited, and everything after it."""
        self._flowing.set()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._ends |= {client, server}
            up = threading.Thread(target=self._upwards, args=(client, server), daemon=True)
            self._run(self._serve, up, client, server)

    def _serve(self, up: threading.Thread, client: socket.socket, server: socket.socket) -> None:
        up.start()
        self._downwards(server, client)
        up.join()
        with self._lock:
            self._ends -= {client, server}
        client.close()
        server.close()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while header := _read(client, 4):
                body = _read(client, int.from_bytes(header[:3], "little"))
                self._flowing.wait()
                # A command is a packet with sequence number 0.
                is_query = header[3] == 0 and body[:1] == bytes([_QUERY])
                verdict = self.judge(body[1:].decode("utf-8", "replace")) if is_query else None
                if isinstance(verdict, tuple):
                    client.sendall(_error(verdict))
                    continue
                if verdict == CUT_BEFORE:
                    break
                server.sendall(header + body)
                if verdict == CUT_AFTER:
                    # The server has done it; nobody hears so.
                    _read(server, 1)
                    break
        except OSError:
            # Cut from elsewhere.
            pass
        _hang_up(client)
        _hang_up(server)

    def _downwards(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                self._flowing.wait()
                client.sendall(data)
        except OSError:
            # As above.
            pass
        _hang_up(client)
        _hang_up(server)


def _error(verdict: tuple[int, str, str]) -> bytes:
    """Return an ERR packet: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html"""
    code, state, message = verdict
    body = b"\xff" + code.to_bytes(2, "little") + b"#" + state.encode() + message.encode()
    return len(body).to_bytes(3, "little") + b"\x01" + body


def _read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Not connected any more.
        pass
