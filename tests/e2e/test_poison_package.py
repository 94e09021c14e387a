"""A package that cannot be registered for a reason of ours: five receives, the dead letter, the truth, the retry."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from infra.local.stack import LocalStack
from tests.e2e.tenants import Api, declared, fresh_name, package
from tests.least_privilege.watched import WatchedStack

RECEIVES = 5
# Longer than an attempt takes with the retries of the S3 client, so that no two receives overlap.
VISIBILITY_S = 8
ENDED = ("registered", "rejected", "failed", "cancelled", "expired")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class UnreadableUploads:
    """Stands between the functions and S3 and, while `broken`, lets no object under `incoming/` be read."""

    def __init__(self) -> None:
        self.broken = True
        self.refused = 0
        self.target = ""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.pass_on(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

            def log_message(self, *_: Any) -> None:
                """The answers are looked at, not the log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request with what S3 answers, or with S3's answer to a failure of its own."""
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        if self.broken and request.command == "GET" and "/incoming/" in request.path:
            self.refused += 1
            self._reply(request, 500, {}, b"<Error><Code>InternalError</Code></Error>")
            return
        with closing(http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=30)) as connection:
            # With the Host that was signed.
            headers = {n: v for n, v in request.headers.items() if n.lower() not in _HOP_BY_HOP}
            connection.request(
                request.command, request.path, body, headers | {"Content-Length": str(len(body))}
            )
            answer = connection.getresponse()
            content = answer.read()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP}
            if request.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            self._reply(request, answer.status, kept, content)

    def _reply(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes
    ) -> None:
        request.send_response_only(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def running(folder: Path) -> Iterator[tuple[LocalStack, UnreadableUploads]]:
    with closing(UnreadableUploads()) as uploads:
        stack = WatchedStack(
            folder, schedules=False, environment={"AWS_ENDPOINT_URL_S3": uploads.url},
            install_visibility_s=VISIBILITY_S, install_max_receives=RECEIVES,
        )  # fmt: skip
        with stack:
            uploads.target = stack.s3_endpoint
            yield stack, uploads


def watch(api: Api, install_id: str, seconds: float) -> list[dict[str, Any]]:
    """Poll a task as its publisher does until it has ended; return what was seen."""
    end = time.monotonic() + seconds
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["state"] not in ENDED:
        assert time.monotonic() < end, f"the install does not end: {seen[-1:]}"
        seen.append(api("GET", f"/api/v1/plugins/installs/{install_id}", 200).json())
        time.sleep(0.2)
    return seen


@pytest.mark.slow
def test_a_poison_package_fails_with_its_reason_and_a_retry_registers_it(tmp_path: Path) -> None:
    with (
        running(tmp_path / "local") as (stack, uploads),
        closing(Api(stack.url, stack.admin_credential)) as api,
    ):
        content = package(fresh_name("poison"))
        opened = api("POST", "/api/v1/plugins/install", 202, **declared(content)).json()
        install_id, form = opened["installId"], opened["upload"]
        files = {"file": ("plugin.zip", content)}
        httpx.post(form["url"], data=form["fields"], files=files, timeout=30).raise_for_status()

        seen = watch(api, install_id, RECEIVES * VISIBILITY_S + 60)
        assert {task["state"] for task in seen} <= {"awaiting_upload", "verifying", "failed"}
        failed = seen[-1]
        assert (failed["state"], failed["attempts"]) == ("failed", RECEIVES)
        [reason] = failed["errors"]
        assert reason["rule"] == "storage.away"
        assert reason["message"] == "The object store cannot be reached."
        assert uploads.refused >= RECEIVES
        assert api("GET", "/api/v1/plugins", 200).json()["items"] == []

        # The cause is gone; nothing is uploaded again.
        uploads.broken = False
        api("POST", f"/api/v1/plugins/installs/{install_id}/retry", 202)
        registered = watch(api, install_id, 60)[-1]
        assert (registered["state"], registered["errors"]) == ("registered", [])
        [plugin] = api("GET", "/api/v1/plugins", 200).json()["items"]
        assert registered["pluginId"] == plugin["pluginId"]
        again = api("POST", f"/api/v1/plugins/installs/{install_id}/retry", 409).json()
        assert again["code"] == "install.not_failed"
