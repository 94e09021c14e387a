"""What the walkthrough calls: servers of its own on loopback, which the stack's allow-list names."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from examples.agents.cmdb import Cmdb
from examples.tools.handbook import Handbook
from examples.tools.helpdesk import Helpdesk


class Webhook:
    """A webhook on loopback that remembers what it got; port 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append({"authorization": self.headers["Authorization"], "body": json.loads(body)})
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the walkthrough's own lines tell what happens."""

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.host = f"localhost:{self._server.server_port}"
        self.url = f"http://{self.host}/hooks/demo"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class Outside:
    """The APIs of examples/tools/helpdesk.yaml and examples/agents/cmdb.yaml, the MCP server of
    examples/tools/handbook.py, and a webhook; each on the port that is given, 0 takes a free one."""

    def __init__(self, helpdesk: int = 0, handbook: int = 0, cmdb: int = 0, webhook: int = 0) -> None:
        self.helpdesk = Helpdesk(helpdesk)
        self.handbook = Handbook(handbook)
        self.cmdb = Cmdb(cmdb)
        self.webhook = Webhook(webhook)

    def endpoints(self, more: str = "") -> str:
        """Return the setting HOTPLUG_PRIVATE_ENDPOINTS that lets the stack call them, and `more` of its form."""
        own = (self.webhook.host, self.helpdesk.host, self.handbook.host, self.cmdb.host)
        return ",".join((*own, *filter(None, [more])))

    def close(self) -> None:
        """Close them all."""
        self.webhook.close()
        self.helpdesk.close()
        self.handbook.close()
        self.cmdb.close()
