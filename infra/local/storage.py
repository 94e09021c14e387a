"""S3 and SQS: a ministack process, and the bucket, queues and notifications that the functions expect in it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.functions import ROOT, FunctionTable
from infra.local import reaper
from infra.local.environment import ACCOUNT, REGION
from infra.local.processes import Children, free_port

# Uploads that a registration waits for; other keys tell nobody.
NOTIFIED_PREFIXES = ("incoming/tasks/", "incoming/drop/")
INSTALL_FUNCTION, DEAD_LETTER_FUNCTION = "register", "register_dead_letter"
# AWS advises six times the function's timeout, so that a message never comes back while it is worked on.
VISIBILITY_FACTOR = 6
MAX_RECEIVES = 5
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15
RESTART_PAUSE_S = 0.5


@dataclass(frozen=True)
class Queue:
    """A queue to make.

    Parameters
    ----------
    visibility_s
        For how long a received message stays hidden.
    dead_letter
        Name of the queue that gets what was received `max_receives` times in vain.
    """

    name: str
    visibility_s: int
    dead_letter: str | None = None
    max_receives: int = MAX_RECEIVES


class StorageFailed(RuntimeError):
    """ministack is missing or does not start."""


class Storage:
    """Runs ministack and keeps what it must hold in place.

    Buckets, objects and versions survive everything; queues and notifications are lost when it is killed, and made
    again on each start.
    """

    def __init__(
        self,
        folder: Path,
        log_file: Path,
        credentials: tuple[str, str],
        bucket: str,
        children: Children,
        log: logging.Logger,
    ) -> None:
        self.bucket = bucket
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.pid = 0
        self._folder = folder
        self._log_file = log_file
        self._credentials = credentials
        self._children = children
        self._log = log
        self._queues: tuple[Queue, ...] = ()
        self._notified: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._clients: dict[str, Any] = {}

    async def start(self, queues: tuple[Queue, ...], notified: str | None) -> None:
        """Start ministack and make what is missing; `notified` is the queue that hears of uploads.

        Raises
        ------
        StorageFailed
        """
        self._queues, self._notified = queues, notified
        await self._launch()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Stop ministack so that it saves its queues."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                reaper.kill_tree(process.pid)
                await process.wait()
        if process is not None:
            self._children.ended(process.pid)
        for client in self._clients.values():
            client.close()

    def environment(self) -> dict[str, str]:
        """Return the variables with which boto3 finds this S3 and SQS."""
        key, secret = self._credentials
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ENDPOINT_URL_SQS": self.url,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def queue_url(self, name: str) -> str:
        """Return a queue's URL."""
        return f"{self.url}/{ACCOUNT}/{name}"

    def client(self, service: str, *, url: str | None = None, read_timeout_s: float = 30) -> Any:
        """Return a new boto3 client of this server, or of the one at `url`; thread-safe, and the caller's to close."""
        import boto3
        from botocore.config import Config

        key, secret = self._credentials
        return boto3.client(
            service,
            endpoint_url=url or self.url,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(
                connect_timeout=5,
                read_timeout=read_timeout_s,
                retries={"total_max_attempts": 2, "mode": "standard"},
            ),
        )

    async def _launch(self) -> None:
        temporary = self._folder / "tmp"
        for part in (temporary, self._folder / "state", self._folder / "objects"):
            part.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as output:
            self._process = await self._children.spawn(
                [_binary()], env=self._variables(temporary), cwd=self._folder, output=output
            )
        self.pid = self._process.pid
        await self._wait_healthy(self._process)
        await asyncio.to_thread(self._make_resources)

    def _variables(self, temporary: Path) -> dict[str, str]:
        key, secret = self._credentials
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(temporary),
            "TMPDIR": str(temporary),
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": REGION,
            # Without it whoever does not sign is answered too: every user of this machine, and any page in a browser,
            # could read the bucket, drop packages for any tenant, and make functions that run as this user.
            "AUTH": "true",
            "SERVICES": "s3,sqs",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_HOST": "127.0.0.1",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._folder / "objects"),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
        }

    async def _wait_healthy(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        raise StorageFailed(f"ministack did not start; see {self._log_file}")

    def _make_resources(self) -> None:
        if not self._clients:
            self._clients = {name: self.client(name) for name in ("s3", "sqs")}
        s3, sqs = self._clients["s3"], self._clients["sqs"]
        if self.bucket not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=self.bucket)
        s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        for queue in sorted(self._queues, key=lambda queue: queue.dead_letter is not None):
            attributes = {"VisibilityTimeout": str(queue.visibility_s)}
            if queue.dead_letter is not None:
                target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.dead_letter}"
                redrive = {"deadLetterTargetArn": target, "maxReceiveCount": queue.max_receives}
                attributes["RedrivePolicy"] = json.dumps(redrive)
            if queue.name == self._notified:
                attributes["Policy"] = json.dumps(_accepting_events(queue.name))
            sqs.create_queue(QueueName=queue.name)
            sqs.set_queue_attributes(QueueUrl=self.queue_url(queue.name), Attributes=attributes)
        if self._notified is not None:
            s3.put_bucket_notification_configuration(
                Bucket=self.bucket, NotificationConfiguration=_notifications(self._notified)
            )

    async def _supervise(self) -> None:
        while self._process is not None:
            process = self._process
            await process.wait()
            self._children.ended(process.pid)
            self._log.error("ministack ended with %s; starting it again", process.returncode)
            await asyncio.sleep(RESTART_PAUSE_S)
            try:
                await self._launch()
            except Exception:  # noqa: BLE001 - whatever it was, the next round tries again
                self._log.exception("ministack does not start")


def function_queues(
    table: FunctionTable, install_visibility_s: int | None, install_max_receives: int
) -> tuple[Queue, ...]:
    """Return the queues that feed functions; what registration cannot do goes to its dead-letter function's."""
    dead = table.by_name.get(DEAD_LETTER_FUNCTION)
    queues = []
    for function in table.functions:
        if function.queue is None:
            continue
        visibility_s = VISIBILITY_FACTOR * function.timeout_s
        if function.name == INSTALL_FUNCTION and dead is not None:
            visibility_s = install_visibility_s or visibility_s
            queues.append(Queue(function.queue, visibility_s, dead.queue, install_max_receives))
        else:
            queues.append(Queue(function.queue, visibility_s))
    return tuple(queues)


def _accepting_events(queue: str) -> Mapping[str, Any]:
    """Return the queue policy that lets S3 send, without which it refuses the notification."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
            }
        ],
    }


def _notifications(queue: str) -> Mapping[str, Any]:
    return {
        "QueueConfigurations": [
            {
                "Id": prefix.strip("/").replace("/", "-"),
                "QueueArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
            }
            for prefix in NOTIFIED_PREFIXES
        ]
    }


def _binary() -> str:
    named = os.environ.get("HOTPLUG_MINISTACK")
    path = Path(named) if named else ROOT / ".venv-ministack" / "bin" / "ministack"
    found = str(path) if path.exists() else shutil.which("ministack")
    if found is None:
        raise StorageFailed(
            f"{path} is missing: python3 -m venv .venv-ministack && "
            ".venv-ministack/bin/pip install ministack==1.5.33"
        )
    return found
