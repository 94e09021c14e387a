"""The configuration database that cmdb.yaml describes, on loopback: `python -m examples.agents.cmdb PORT`.

Standard library only.
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DOCUMENT = Path(__file__).with_name("cmdb.yaml")
WRITTEN_URL = "http://localhost:9099"
"""The server that the document names in the repository."""

HOSTS = [
    {"name": "db-7", "environment": "prod", "services": ["mysql"], "owner": "data platform"},
    {"name": "web-1", "environment": "prod", "services": ["nginx", "shop"], "owner": "shop team"},
    {"name": "web-2", "environment": "prod", "services": ["nginx", "shop"], "owner": "shop team"},
    {"name": "web-9", "environment": "staging", "services": ["nginx"], "owner": "shop team"},
]


def document(url: str) -> str:
    """Return the OpenAPI document with the server's real address."""
    return DOCUMENT.read_text().replace(WRITTEN_URL, url)


class Cmdb:
    """The server, answering until it is closed; `asked` counts its requests."""

    def __init__(self, port: int = 0) -> None:
        cmdb = self
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/openapi.yaml":
                    self._send(200, "application/yaml", document(cmdb.url).encode())
                    return
                cmdb.asked += 1
                status, value = _answer(self.path)
                self._send(status, "application/json", json.dumps(value).encode())

            def _send(self, status: int, media_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: whoever shows it tells what happens."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.host = f"localhost:{self._server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


def _answer(target: str) -> tuple[int, Any]:
    parts = urlsplit(target)
    if parts.path == "/hosts":
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = [
            host
            for host in HOSTS
            if query.get("service") in (None, *host["services"])
            and query.get("environment") in (None, host["environment"])
        ]
        return 200, {"hosts": found}
    name = unquote(parts.path.removeprefix("/hosts/"))
    host = next((one for one in HOSTS if one["name"] == name), None)
    return (200, host) if host is not None else (404, {"message": "no such host"})


if __name__ == "__main__":
    running = Cmdb(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(running.url, flush=True)
    threading.Event().wait()
