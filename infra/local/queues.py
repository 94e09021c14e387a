"""Event source mapping: polls a queue and invokes its function with each message.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from infra.functions import Function
from infra.local.environment import ACCOUNT, REGION
from infra.local.invocation import Invocation, InvocationRefused
from infra.local.service import LambdaService
from infra.local.storage import Storage

DEFAULT_CONCURRENCY = 2
# A stop waits for the poll that runs.
LONG_POLL_S = 1
ERROR_PAUSE_S = 1.0


class QueuePoller:
    """Takes one message at a time, up to `concurrency` at once, and deletes what the function did not report.

    A message whose invocation failed, was throttled or is named in `batchItemFailures` is left alone: it comes back
    after its visibility timeout and moves to the dead-letter queue after its last receive.
    """

    def __init__(
        self, function: Function, service: LambdaService, storage: Storage, log: logging.Logger
    ) -> None:
        if function.queue is None:
            raise ValueError(f"{function.name} has no queue")
        self._function = function
        self._queue = function.queue
        self._service = service
        self._storage = storage
        self._log = log
        self._stopping = threading.Event()
        self._slots = threading.Semaphore(function.concurrency or DEFAULT_CONCURRENCY)
        self._running: set[Future[None]] = set()
        self._loop = asyncio.get_running_loop()
        # A thread of its own: boto3 blocks while it waits for messages.
        self._thread = threading.Thread(target=self._poll, name=f"poll-{function.queue}", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more messages; invocations that run go on."""
        self._stopping.set()

    async def close(self) -> None:
        """Wait for the thread; its long poll must have ended, which stopping the queue's server sees to."""
        self.stop()
        if self._thread.ident is not None:  # else the stack came to an end before it could begin
            await asyncio.to_thread(self._thread.join, LONG_POLL_S + 5)
        for future in list(self._running):
            future.cancel()

    def _poll(self) -> None:
        client = self._storage.client("sqs", read_timeout_s=LONG_POLL_S + 5)
        url = self._storage.queue_url(self._queue)
        try:
            while not self._stopping.is_set():
                if not self._slots.acquire(timeout=0.5):
                    continue
                message = self._receive(client, url)
                if message is None or self._stopping.is_set():
                    self._slots.release()
                    continue
                future = asyncio.run_coroutine_threadsafe(self._handle(client, url, message), self._loop)
                self._running.add(future)
                future.add_done_callback(self._finished)
        finally:
            client.close()

    def _receive(self, client: Any, url: str) -> Mapping[str, Any] | None:
        try:
            answer = client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=LONG_POLL_S,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except Exception as error:  # noqa: BLE001 - the server is away or starting again: wait
            if not self._stopping.wait(ERROR_PAUSE_S):
                self._log.warning("cannot read %s: %s", self._queue, error)
            return None
        messages = answer.get("Messages", [])
        return messages[0] if messages else None

    async def _handle(self, client: Any, url: str, message: Mapping[str, Any]) -> None:
        payload = json.dumps({"Records": [sqs_record(message, self._queue)]}).encode()
        try:
            outcome = await self._service.invoke(self._function.name, Invocation(payload))
        except InvocationRefused as refusal:
            self._log.warning(
                "%s: message %s: %s", self._function.name, message["MessageId"], refusal.message
            )
            return
        if outcome.error is not None:
            text = outcome.payload[:2000].decode(errors="replace")
            self._log.error("%s: message %s failed: %s", self._function.name, message["MessageId"], text)
        elif is_done(outcome.payload):
            await asyncio.to_thread(
                client.delete_message, QueueUrl=url, ReceiptHandle=message["ReceiptHandle"]
            )

    def _finished(self, future: Future[None]) -> None:
        self._running.discard(future)
        self._slots.release()
        if not future.cancelled() and (error := future.exception()) is not None:
            self._log.error("%s: %r", self._function.name, error)


def sqs_record(message: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """Return a received message as Lambda shows it to a function."""
    attributes = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {
            name: {"stringValue": value.get("StringValue"), "dataType": value.get("DataType")}
            for name, value in attributes.items()
        },
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "awsRegion": REGION,
    }


def is_done(result: bytes) -> bool:
    """Tell whether a function's result lets its only message be deleted (ReportBatchItemFailures).

    No result, or an empty list, is success. Any reported failure is this message's, or names one that was never
    sent: Lambda then takes the whole batch as failed, which is the same.
    """
    try:
        answer = json.loads(result) if result else None
    except ValueError:
        return False
    if answer is None or answer == {}:
        return True
    failures = answer.get("batchItemFailures", []) if isinstance(answer, dict) else None
    return failures is None or failures == []
