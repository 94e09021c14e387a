"""Idempotency-Key: powertools' idempotency utility over a table of ours.

The in-progress row is committed first; the completed row is written **in the handler's own transaction**, so that a
function killed in between neither loses the answer nor runs twice. This module is imported only for requests that
carry the header: the utility costs 100 ms of import.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
from aws_lambda_powertools.utilities.idempotency.base import IdempotencyHandler
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyInconsistentStateError,
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
    IdempotencyPersistenceLayerError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, Unavailable
from chalicelib.core.idempotency_record import IdempotencyRecord

KEPT_S = 24 * 3600
IN_PROGRESS, COMPLETED = "INPROGRESS", "COMPLETED"


class SqlPersistence(BasePersistenceLayer):
    """Powertools' persistence layer on `idempotency_record`, for one request.

    A slow request whose in-progress row was taken over by a later one must not complete: each request writes its own
    `owner`, and completing checks it in the same statement.
    """

    def __init__(self, database: DatabaseService) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._database = database
        self._owner = uuid4().hex
        self._session: Session | None = None

    def complete(self, session: Session, data: dict[str, Any], result: dict[str, Any]) -> None:
        """Write the completed record in the handler's unit of work."""
        self._session = session
        try:
            self.save_success(data=data, result=result)
        finally:
            self._session = None

    def _get_record(self, idempotency_key: str) -> DataRecord:
        with self._database.reads() as session:
            row = session.get(IdempotencyRecord, idempotency_key)
        if row is None:
            raise IdempotencyItemNotFoundError
        return DataRecord(
            idempotency_key=row.id,
            status=row.status,
            expiry_timestamp=row.expires_at,
            in_progress_expiry_timestamp=row.in_progress_until_ms,
            response_data=row.response or "",
            payload_hash=row.payload_hash,
        )

    def _put_record(self, data_record: DataRecord) -> None:
        row = {
            "status": IN_PROGRESS,
            "owner": self._owner,
            "expires_at": data_record.expiry_timestamp,
            "in_progress_until_ms": data_record.in_progress_expiry_timestamp,
            "payload_hash": data_record.payload_hash,
            "response": None,
        }
        try:
            self._database.run(
                lambda session: session.add(IdempotencyRecord(id=data_record.idempotency_key, **row))
            )
        except IntegrityError:
            if not self._database.run(
                lambda session: self._take_over(session, data_record.idempotency_key, row)
            ):
                raise IdempotencyItemAlreadyExistsError from None

    def _take_over(self, session: Session, key: str, row: dict[str, Any]) -> bool:
        """Claim a record that has expired, or whose function died: one conditional statement, so one winner."""
        now = datetime.now(UTC).timestamp()
        stale = (IdempotencyRecord.expires_at < int(now)) | (
            (IdempotencyRecord.status == IN_PROGRESS)
            & (IdempotencyRecord.in_progress_until_ms < int(now * 1000))
        )
        result = session.execute(
            update(IdempotencyRecord).where(IdempotencyRecord.id == key, stale).values(**row)
        )
        return bool(result.rowcount)  # type: ignore[attr-defined]

    def _update_record(self, data_record: DataRecord) -> None:
        if self._session is None:
            # Powertools' own call after the function returned: the unit of work has already written it.
            return
        result = self._session.execute(
            update(IdempotencyRecord)
            .where(
                IdempotencyRecord.id == data_record.idempotency_key,
                IdempotencyRecord.owner == self._owner,
                IdempotencyRecord.status == IN_PROGRESS,
            )
            .values(
                status=COMPLETED, expires_at=data_record.expiry_timestamp, response=data_record.response_data
            )
        )
        if not result.rowcount:  # type: ignore[attr-defined]
            raise Conflict(
                "Another request with this Idempotency-Key took over.", code="idempotency.superseded"
            )

    def _delete_record(self, data_record: DataRecord) -> None:
        try:
            self._forget(data_record.idempotency_key)
        except Unavailable:
            # The handler's own error says more; the row may be taken over when this invocation's time has ended.
            return

    def _forget(self, key: str) -> None:
        # Only while in progress: an error after the commit must not make the effect repeatable.
        self._database.run(
            lambda session: session.execute(
                delete(IdempotencyRecord).where(
                    IdempotencyRecord.id == key,
                    IdempotencyRecord.owner == self._owner,
                    IdempotencyRecord.status == IN_PROGRESS,
                )
            )
        )


def run_once(
    database: DatabaseService,
    *,
    key: list[str],
    payload_digest: str,
    remaining_ms: Callable[[], int],
    work: Callable[[Callable[[Session, dict[str, Any]], None]], dict[str, Any]],
) -> tuple[dict[str, Any], bool]:
    """Run `work` at most once per key and return (answer, replayed).

    Parameters
    ----------
    key
        What the key is scoped to, and the key: app, route, header.
    payload_digest
        Digest of the request; another digest under the same key is refused.
    remaining_ms
        Milliseconds until this invocation is killed: after that the in-progress row may be taken over.
    work
        Gets `complete(session, answer)`, to be called in its unit of work, and returns the answer.

    Raises
    ------
    errors.Conflict
        The same key is being worked on.
    errors.Invalid
        The key was used with another request.
    """
    persistence = SqlPersistence(database)
    config = IdempotencyConfig(
        event_key_jmespath="key",
        payload_validation_jmespath="digest",
        expires_after_seconds=KEPT_S,
        hash_function="sha256",
        lambda_context=_RemainingTime(remaining_ms),  # type: ignore[arg-type]
    )
    data = {"key": key, "digest": payload_digest}
    ran: list[bool] = []

    def function() -> dict[str, Any]:
        ran.append(True)
        return work(lambda session, answer: persistence.complete(session, data, answer))

    handler = IdempotencyHandler(
        function, data, config, persistence, key_prefix="http", function_args=(), function_kwargs={}
    )
    try:
        answer: dict[str, Any] = handler.handle()
    except (IdempotencyAlreadyInProgressError, IdempotencyInconsistentStateError):
        raise Conflict(
            "A request with this Idempotency-Key is in progress.",
            code="idempotency.in_progress",
            retry_after=1,
        ) from None
    except IdempotencyValidationError:
        raise Invalid(
            "This Idempotency-Key was used with another request.", code="idempotency.key_reused"
        ) from None
    except IdempotencyPersistenceLayerError as error:
        # Powertools wraps what the store raised; the edge must see our own error (503, not 500).
        if isinstance(error.__cause__, HotplugError):
            raise error.__cause__ from None
        raise
    return answer, not ran


class _RemainingTime:
    def __init__(self, remaining_ms: Callable[[], int]) -> None:
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_ms()
