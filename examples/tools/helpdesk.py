"""The API that helpdesk.yaml describes, on loopback: `python -m examples.tools.helpdesk PORT`.

Standard library only; it forgets everything when it ends. Its keys are no secret, as nothing in it is.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DOCUMENT = Path(__file__).with_name("helpdesk.yaml")
WRITTEN_URL = "http://localhost:9099"
"""The server that the document names in the repository."""

DESK_KEY = "desk-key"
LINK_KEY = "link-key"
SESSION = "session-key"
PASSWORD = "desk:pa55word"
TOKEN = "desk-token"
CLIENT = "desk-client:client-secret"
_ISSUED = "issued-token"

_MAX_BODY = 5 * 1024 * 1024


class Desk:
    """The tickets and their files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.files: dict[tuple[int, str], tuple[str, bytes]] = {}
        self.tickets: list[dict[str, Any]] = [
            {
                "id": 1, "queue": "billing", "subject": "Charged twice", "text": "My card was charged twice.",
                "status": "open", "labels": ["urgent", "vip"], "assignee": "kim", "reporter": "ada@example.com",
                "internalNote": "has a discount", "created": "2026-01-12",
            },
            {
                "id": 2, "queue": "billing", "subject": "Invoice address", "text": "We have moved.",
                "status": "closed", "labels": [], "assignee": "lee", "reporter": "alan@example.com",
                "internalNote": "", "created": "2026-02-03",
            },
            # The document promises a text as assignee: real APIs send null all the same.
            {
                "id": 3, "queue": "hardware", "subject": "Noisy fan", "text": "It howls.",
                "status": "open", "labels": ["vip"], "assignee": None, "reporter": "grace@example.com",
                "internalNote": "third fan this year", "created": "2026-02-20",
            },
        ]  # fmt: skip

    def find(self, number: str) -> dict[str, Any] | None:
        """Return the ticket of a number."""
        return next((ticket for ticket in self.tickets if str(ticket["id"]) == number), None)

    def listed(self, queue: str, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the tickets of a queue, filtered as the query says, the newest first."""
        wanted = set(query.get("status", []))
        labels = set(query.get("labels", [""])[0].split("|")) - {""}
        first, last = query.get("created[from]", [""])[0], query.get("created[to]", ["9999"])[0]
        found = [
            ticket
            for ticket in reversed(self.tickets)
            if ticket["queue"] == queue
            and (not wanted or ticket["status"] in wanted)
            and labels <= set(ticket["labels"])
            and first <= ticket["created"] <= last
        ]
        return found[: int(query.get("limit", ["20"])[0])]

    def open(self, queue: str, body: dict[str, Any]) -> dict[str, Any]:
        """Add a ticket and return it."""
        with self._lock:
            ticket = {
                "id": len(self.tickets) + 1, "queue": queue, "subject": body["subject"], "text": body["text"],
                "status": "open", "labels": body["labels"], "assignee": "kim", "reporter": body["reporter"],
                "internalNote": f"opened by {body['source']}", "created": "2026-03-01",
            }  # fmt: skip
            self.tickets.append(ticket)
            return ticket


def recognised(headers: Message, query: dict[str, list[str]]) -> str | None:
    """Return the name of the security scheme whose credential a request carries."""
    authorization = headers.get("Authorization", "")
    cookies = SimpleCookie(headers.get("Cookie", ""))
    carried = {
        "deskKey": headers.get("X-Desk-Key") == DESK_KEY,
        "password": authorization == "Basic " + base64.b64encode(PASSWORD.encode()).decode(),
        "token": authorization == f"Bearer {TOKEN}",
        "client": authorization == f"Bearer {_ISSUED}",
        "linkKey": query.get("key") == [LINK_KEY],
        "session": "desk_session" in cookies and cookies["desk_session"].value == SESSION,
    }
    return next((name for name, is_carried in carried.items() if is_carried), None)


class _Handler(BaseHTTPRequestHandler):
    desk: Desk
    url: str

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _MAX_BODY))
        if (self.command, parts.path) == ("GET", "/openapi.yaml"):
            self._send(200, document(self.url).encode(), "application/yaml")
        elif (self.command, parts.path) == ("POST", "/oauth/token"):
            self._issue(body)
        elif (self.command, parts.path) == ("GET", "/status"):
            self._json(200, {"open": True})
        elif (scheme := recognised(self.headers, query)) is None:
            self._json(401, {"reason": "no credential of this desk"})
        elif (self.command, parts.path) == ("GET", "/me"):
            self._json(200, {"by": scheme})
        elif match := re.fullmatch(r"/queues/(billing|hardware)/tickets", parts.path):
            self._queue(match[1], query, body)
        elif match := re.fullmatch(r"/tickets/([0-9]+)(?:/attachments(?:/([^/]+))?)?", parts.path):
            self._ticket(match[1], match[2], body)
        else:
            self._json(404, {"reason": "no such path"})

    def _issue(self, body: bytes) -> None:
        basic = "Basic " + base64.b64encode(CLIENT.encode()).decode()
        asked = parse_qs(body.decode())
        if self.headers.get("Authorization") != basic or asked.get("grant_type") != ["client_credentials"]:
            self._json(401, {"error": "invalid_client"})
        else:
            self._json(200, {"access_token": _ISSUED, "token_type": "Bearer", "expires_in": 3600})

    def _queue(self, queue: str, query: dict[str, list[str]], body: bytes) -> None:
        if self.command == "POST":
            self._json(201, self.desk.open(queue, json.loads(body)))
        elif "X-Department" not in self.headers:
            self._json(400, {"reason": "X-Department is missing"})
        else:
            self._json(200, {"tickets": self.desk.listed(queue, query)})

    def _ticket(self, number: str, name: str | None, body: bytes) -> None:
        ticket = self.desk.find(number)
        if ticket is None:
            self._json(404, {"reason": f"there is no ticket {number}"})
        elif self.command == "POST":
            self._attach(ticket["id"], body)
        elif name is None:
            self._json(200, ticket)
        elif (file := self.desk.files.get((ticket["id"], unquote(name)))) is not None:
            self._send(200, file[1], file[0])
        else:
            self._json(404, {"reason": "there is no such file"})

    def _attach(self, number: int, body: bytes) -> None:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="Content-Disposition"): part
            for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        }
        name, content_type = parts["file"].get_filename() or "file", parts["file"].get_content_type()
        content = _octets(parts["file"])
        self.desk.files[number, name] = content_type, content
        told: dict[str, Any] = {"name": name, "type": content_type, "bytes": len(content)}
        if "comment" in parts:
            told["comment"] = _octets(parts["comment"]).decode()
        if "origin" in parts:
            told["origin"] = json.loads(_octets(parts["origin"]))
        self._json(201, told)

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _octets(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def document(url: str) -> str:
    """Return the OpenAPI document, YAML, of a helpdesk at `url`."""
    return DOCUMENT.read_text().replace(WRITTEN_URL, url)


class Helpdesk:
    """A helpdesk that answers until it is closed.

    Parameters
    ----------
    port
        0 for any free one.
    """

    def __init__(self, port: int = 0) -> None:
        class Handler(_Handler):
            desk = Desk()

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.host = f"localhost:{self._server.server_port}"
        self.url = Handler.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when it was closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    helpdesk = Helpdesk(int(sys.argv[1]))
    print(f"{helpdesk.url}/openapi.yaml", flush=True)
    helpdesk.wait()
