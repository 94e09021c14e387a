"""An internet of this machine: names, addresses, servers and an authority, for tests of outbound calls."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from chalicelib.core.outbound import connection
from chalicelib.core.outbound.client import HttpOut

A, B = "93.184.215.14", "93.184.215.15"  # public; the fake internet below leads to servers of this machine
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = bytes | Callable[[socket.socket, bytes], None]


class Server:
    """Answers each connection with its next answer (the last one for ever) and keeps what was asked."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, whole: bool = True) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._tls = tls
        self._whole = whole
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            self.connections += 1
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            thread = threading.Thread(target=self._serve, args=(conn, answer))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket, answer: Answer) -> None:
        conn.settimeout(10)
        try:
            if self._tls:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn:
                request = read_request(conn, self._whole)
                self.requests.append(request)
                if isinstance(answer, bytes):
                    conn.sendall(answer)
                else:
                    answer(conn, request)
        except OSError:  # the client has gone, as several of the tests want
            conn.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def read_request(conn: socket.socket, whole: bool) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = conn.recv(65536)
        data += piece
        if not piece or data.startswith(b"\x16"):  # the client has gone, or expects TLS where there is none
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while whole and len(body) < length and (piece := conn.recv(65536)):
        body += piece
    return head + b"\r\n\r\n" + body


def header_of(request: bytes, name: str) -> str | None:
    head = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    pairs = [line.split(": ", 1) for line in head]
    return next((value for key, value in pairs if key.lower() == name.lower()), None)


@dataclass
class Internet:
    """Names, addresses and servers, all of them on this machine."""

    names: dict[str, list[tuple[str, ...]]] = field(
        default_factory=dict
    )  # successive answers, the last for ever
    servers: dict[tuple[str, int], int] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    running: list[Server] = field(default_factory=list)

    def serve(
        self, host: str, port: int, *answers: Answer, at: str = A, tls: ssl.SSLContext | None = None
    ) -> Server:
        server = Server(*answers, tls=tls)
        self.running.append(server)
        self.names.setdefault(host, [(at,)])
        self.servers[at, port] = server.port
        return server

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def dial(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.dialled.append((address, port))
        if (address, port) not in self.servers:
            raise ConnectionRefusedError(f"nothing listens at {address}")
        return connection.dial("127.0.0.1", self.servers[address, port], timeout_s)

    def close(self) -> None:
        for server in self.running:
            server.close()


def client(internet: Internet, **options: object) -> HttpOut:
    return HttpOut(resolver=internet.resolve, dial=internet.dial, **options)  # type: ignore[arg-type]


def redirect(status: int, location: str) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


class Authority:
    """A throwaway certificate authority."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("Throwaway CA", self._key, [], ends=timedelta(days=1))

    def trusted(self) -> ssl.SSLContext:
        from cryptography.hazmat.primitives.serialization import Encoding

        return ssl.create_default_context(cadata=self.certificate.public_bytes(Encoding.PEM).decode())

    def server(
        self, names: list[str], seen: list[str | None], ends: timedelta = timedelta(days=1)
    ) -> ssl.SSLContext:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        pem = self._folder / f"{len(list(self._folder.iterdir()))}.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self._sign("server", key, names, ends).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        return context

    def _sign(self, subject: str, key, names: list[str], ends: timedelta):  # type: ignore[no-untyped-def]
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Throwaway CA")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            entries = [
                x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
        return builder.sign(self._key, hashes.SHA256())
