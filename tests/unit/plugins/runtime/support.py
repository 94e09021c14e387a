"""What the runtime's tests share: packages, a server to fetch them from, and events."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from chalicelib.plugins.runtime.service import Runtime

MIB = 1024 * 1024

# Copies its input into the result: what action, params, config and context arrive as.
ECHO_WAT = r"""
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 20)
  (data (i32.const 100) "{\"result\":")
  (data (i32.const 120) "}")
  (data (i32.const 130) "a line of log\n")
  (func $put (param $fd i32) (param $ptr i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $ptr))
    (i32.store (i32.const 4) (local.get $len))
    (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1024))
    (i32.store (i32.const 20) (i32.const 1000000))
    (drop (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
    (call $put (i32.const 2) (i32.const 130) (i32.const 14))
    (call $put (i32.const 1) (i32.const 100) (i32.const 10))
    (call $put (i32.const 1) (i32.const 1024) (i32.load (i32.const 24)))
    (call $put (i32.const 1) (i32.const 120) (i32.const 1))))
"""


def answering(text: str, tail: str = "") -> str:
    """A module that writes `text` to stdout, then does `tail`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f"""
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "{escaped}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const {len(text.encode())}))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    {tail}))
"""


def wasm(wat: str) -> bytes:
    from wasmtime import wat2wasm

    return bytes(wat2wasm(wat))


def package(files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class ObjectServer:
    """Serves objects by name over HTTP, as a bucket does; `status` replaces the answer, `requests` are counted."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/").partition("?")[0]
                outer.requests.append(name)
                body = outer.objects.get(name, b"")
                self.send_response(outer.status if name in outer.objects else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, name: str, content: bytes) -> str:
        self.objects[name] = content
        return f"{self.url}/{name}?X-Amz-Signature=secret"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Bench:
    """A runtime, a bucket, and short ways to run something in them."""

    def __init__(self, runtime: Runtime, server: ObjectServer, folder: Path) -> None:
        self.runtime, self.server, self.folder = runtime, server, folder

    def wasm_event(self, wat: str, **changes: Any) -> dict[str, Any]:
        return self.event({"main.wasm": wasm(wat)}, "main.wasm", "wasm", **changes)

    def compiled(self, event: dict[str, Any], wat: str) -> dict[str, Any]:
        """The event with the module compiled, as registration would have stored it."""
        from chalicelib.plugins.runtime.compile import compile_module, engine_id

        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder, "main.wasm"), Path(folder, "main.cwasm")
            source.write_bytes(wasm(wat))
            compile_module(source, output)
            content = output.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        url = self.server.put(f"{checksum}.cwasm", content)
        compiled = {"url": url, "engine": engine_id(), "checksum": checksum, "sizeBytes": len(content)}
        return {**event, "compiled": compiled}

    def python_event(
        self, source: str, files: dict[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        return self.event({"main.py": source, **(files or {})}, "main.py", "python", **changes)

    def event(self, files: dict[str, bytes | str], entry: str, kind: str, **changes: Any) -> dict[str, Any]:
        content = package(files)
        checksum = hashlib.sha256(content).hexdigest()
        resources = {
            "cpuMillis": 1000,
            "memoryBytes": changes.pop("memory", 64 * MIB),
            "diskBytes": 50 * MIB,
            "timeoutMs": 5000,
        }
        plugin = {
            "pluginId": changes.pop("plugin_id", "plugin_sample_aaaaaa"),
            "version": changes.pop("version", "1.0.0"),
            "checksum": checksum,
            "runtime": kind,
            "entryPoint": entry,
            "resources": resources,
            "network": changes.pop("network", []),
        }
        artifact = {"url": self.server.put(f"{checksum}.zip", content), "sizeBytes": len(content)}
        event = {
            "operation": "execute",
            "plugin": plugin,
            "artifact": artifact,
            "compiled": None,
            "action": "run",
            "params": {},
            "config": {},
            "context": {"requestId": "r1", "appId": "a1", "subject": None},
            "timeoutMs": 5000,
            "loadTimeoutMs": 20000,
            "cache": {"version": 1, "epoch": "e1", "changes": [[1, "*"]]},
        }
        event.update(changes)
        return event

    def run(self, event: dict[str, Any]) -> dict[str, Any]:
        answer = self.runtime.handle(event)
        json.dumps(answer)  # it travels as JSON
        return answer
