"""An MCP server with the official SDK, on loopback: `python -m examples.tools.handbook PORT`."""

from __future__ import annotations

import socket
import sys
import threading
import time

import uvicorn
from mcp.server import MCPServer

START_S = 20
PAGES = {
    "refunds": "A customer who was charged twice gets the money back within three days.",
    "fans": "Blow the dust out first. A fan that still howls is replaced.",
}
server = MCPServer(
    "Handbook", version="1.0", instructions="How the helpdesk does what it does.", log_level="WARNING"
)


@server.tool()
def pages() -> list[str]:
    """The titles of all pages."""
    return sorted(PAGES)


@server.tool()
def read_page(title: str) -> str:
    """The text of one page."""
    return PAGES[title]


class Handbook:
    """The server, until it is closed.

    Parameters
    ----------
    port
        0 for any free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.host = f"localhost:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}/mcp"
        application = server.streamable_http_app(stateless_http=True, json_response=True)
        config = uvicorn.Config(application, log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._runner = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._runner.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()
        ends = time.monotonic() + START_S
        while not self._runner.started:
            if time.monotonic() > ends:
                raise TimeoutError(f"the handbook has not started within {START_S} s")
            time.sleep(0.01)

    def wait(self) -> None:
        """Return when it was closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop answering."""
        self._runner.should_exit = True
        self._thread.join(START_S)
        self._listener.close()


if __name__ == "__main__":
    handbook = Handbook(int(sys.argv[1]))
    print(handbook.url, flush=True)
    handbook.wait()
