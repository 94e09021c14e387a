"""A private ministack: S3 and SQS that check signatures, expiry and sizes, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Ministack:
    """A running server. `environment` is what a process needs so that boto3 talks to it."""

    url: str
    environment: dict[str, str]

    def client(self, service: str) -> Any:
        """Return a plain boto3 client for arranging and looking, without the bounds of the service's own."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def versioned_bucket(self, name: str) -> str:
        s3 = self.client("s3")
        s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name


def binary() -> str:
    """Return the path of ministack; a missing one fails the run with the command that installs it."""
    named = os.environ.get("HOTPLUG_MINISTACK")
    path = Path(named) if named else ROOT / ".venv-ministack" / "bin" / "ministack"
    if not path.exists():
        raise RuntimeError(
            f"{path} is missing: python3 -m venv .venv-ministack && "
            ".venv-ministack/bin/pip install ministack==1.5.33"
        )
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_ministack() -> Iterator[Ministack]:
    """Start a server with its state in a temporary directory; stop it and remove the directory at the end."""
    folder = tempfile.mkdtemp(prefix="hotplug-ministack-")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(
            [binary()], env=_environment(folder, port), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        _wait(process, url, Path(folder, "log"))
        yield Ministack(url, client_environment(url))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def client_environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _environment(folder: str, port: int) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": folder,
        "TMPDIR": folder,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "PERSIST_STATE": "0",
        "STATE_DIR": folder,
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
    }


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"ministack did not start: {log.read_text(errors='replace')[-2000:]}")
