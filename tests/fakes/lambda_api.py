"""Lambda's API as far as functions are invoked and executions looked after, without Lambda."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class LambdaApi:
    """Lambda's API on loopback, answering what the test says; `refusals` come first."""

    def __init__(self) -> None:
        self.status = 200
        self.refusals: list[int] = []
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.wait_s = 0.0
        self.hang_up = False
        self.received: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                api.received.append({"path": unquote(self.path), "headers": self.headers, "body": body})
                time.sleep(api.wait_s)
                if api.hang_up:
                    self.close_connection = True
                    return
                try:
                    self._answer()
                except ConnectionError:
                    pass  # the caller gave up, which is what its test wants

            def _answer(self) -> None:
                self.send_response(api.refusals.pop(0) if api.refusals else api.status)
                for name, value in api.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(api.body)))
                self.end_headers()
                self.wfile.write(api.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass  # the test output is for failures

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
