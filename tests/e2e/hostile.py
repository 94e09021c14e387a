"""A request that no honest client sends, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hostile:
    """One request; `head` is its first line and headers where they are not built from the rest, `rpc` says that errors
    are JSON-RPC's."""

    name: str
    statuses: frozenset[int]
    method: str = "GET"
    target: str = "/api/v1/me"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    head: bytes | None = None
    rpc: bool = False

    def as_bytes(self, credential: str) -> bytes:
        """Return what goes over the wire."""
        if self.head is not None:
            return self.head.replace(b"CREDENTIAL", credential.encode()) + b"\r\n\r\n" + (self.body or b"")
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", "Connection: close"]
        if not any(name.lower() == "authorization" for name, _ in self.headers):
            lines.append(f"Authorization: Bearer {credential}")
        lines += [f"{name}: {value.replace('CREDENTIAL', credential)}" for name, value in self.headers]
        if self.body is not None and not any(name.lower() == "transfer-encoding" for name, _ in self.headers):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (self.body or b"")
