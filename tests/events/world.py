"""A database, a bucket on a real S3, and the function that events are delivered to."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from chalicelib.apps.models import App
from chalicelib.core import steps, storage
from chalicelib.core.storage import S3Storage
from chalicelib.events import registration
from chalicelib.plugins import installs
from chalicelib.plugins.install_models import PluginInstall, PluginTombstone
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.services import Services, plugin_services
from tests import events
from tests.conftest import create_schema
from tests.crash.scenarios import sweep
from tests.http import settings
from tests.ministack import Ministack
from tests.plugin_rows import OWNER, caller

ALIAS = "acme"
PUBLISHER = caller(OWNER, "publisher")
MUCH_LATER = timedelta(days=1)


def package(version: str = "1.0.0", name: str = "parcel", entry: str = "plugin.py", note: str = "") -> bytes:
    """Return a package; the same arguments give the same bytes."""
    manifest = {
        "name": name,
        "version": version,
        "pluginType": "custom",
        "entryPoint": entry,
        "description": note,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for filename, content in (
            ("manifest.json", json.dumps(manifest)),
            (entry, "class Plugin:\n    pass\n"),
        ):
            file.writestr(zipfile.ZipInfo(filename, (1980, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


class World:
    """What a delivery finds, and what it leaves."""

    def __init__(self, url: str, bucket: str, ministack: Ministack) -> None:
        self.url, self.bucket, self.ministack = url, bucket, ministack
        self.services: Services = plugin_services()
        self.s3 = ministack.client("s3")
        self.services.database.run(lambda session: session.add(App(id=OWNER, name="Acme", alias_id=ALIAS)))

    # -- before ---------------------------------------------------------------------------------------------

    def put(self, key: str, content: bytes) -> str:
        """Put an object as `aws s3 cp` does and return its version id."""
        return str(self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)["VersionId"])

    def drop(self, content: bytes, filename: str = "x.zip") -> tuple[str, str]:
        """Drop a package for the app."""
        key = f"{installs.DROP_PREFIX}{ALIAS}/{filename}"
        return key, self.put(key, content)

    def open(self, content: bytes, *, sha256: str | None = None) -> PluginInstall:
        """Declare a package that is to be uploaded."""
        task = installs.new_task(
            PUBLISHER, filename="x.zip", size=len(content), sha256=sha256 or hashlib.sha256(content).hexdigest(),
            target=None, allow_downgrade=False,
        )  # fmt: skip
        self.services.database.run(lambda session: installs.save(session, PUBLISHER, task))
        return task

    def upload(self, content: bytes) -> tuple[str, str]:
        """Declare a package and upload it."""
        key = self.open(content).object_key
        return key, self.put(key, content)

    def change_tasks(self, **values: Any) -> None:
        """Change every task behind the back of everyone."""
        statement = update(PluginInstall).values(**values)
        with self.services.database.session_getter() as session:
            session.execute(statement, execution_options={"synchronize_session": False})

    def end_leases(self) -> None:
        """Let every lease be over."""
        self.change_tasks(lease_until=datetime.now(UTC) - timedelta(seconds=1))

    # -- deliveries -----------------------------------------------------------------------------------------

    def record(self, key: str, version_id: str | None) -> dict[str, Any]:
        """Return S3's record of an object in the bucket."""
        return events.created(self.bucket, key, version_id)

    def deliver(self, key: str, version_id: str | None) -> bool:
        """Deliver the event of one object; True where the message is done with."""
        body = {"Records": [self.record(key, version_id)]}
        return registration.handle(events.batch(events.message(body))) == {"batchItemFailures": []}

    def give_up(self, key: str, version_id: str | None) -> bool:
        """Deliver the event of one object as a dead letter; True where the message is done with."""
        body = {"Records": [self.record(key, version_id)]}
        return registration.handle_dead_letter(events.batch(events.message(body))) == {
            "batchItemFailures": []
        }

    def sweep(self, *names: str) -> None:
        """Run the jobs that reconcile, a day later."""
        sweep(self.services, *([names] if names else []), later=MUCH_LATER)

    # -- afterwards -----------------------------------------------------------------------------------------

    def rows(self, model: Any) -> list[Any]:
        """Return all rows, the oldest first."""
        with self.services.database.reads() as session:
            return list(session.scalars(select(model).order_by(model.id)))

    def task(self) -> PluginInstall:
        """Return the one task that there is."""
        [found] = self.rows(PluginInstall)
        assert isinstance(found, PluginInstall)
        return found

    def states(self) -> list[str]:
        """Return the states of all tasks, the oldest first."""
        return [task.state for task in self.rows(PluginInstall)]

    def active(self) -> list[str]:
        """Return the active version of every plugin."""
        return [row.version for row in self.rows(Plugin)]

    def objects(self, prefix: str = "") -> list[tuple[str, str]]:
        """Return (key, version id) of everything in the bucket."""
        return sorted((one.key, one.version_id) for one in self.services.storage.list_versions(prefix))

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a delivery could change."""
        tables = {
            model.__tablename__: [
                {column.name: getattr(row, column.name) for column in model.__table__.columns}
                for row in self.rows(model)
            ]
            for model in (Plugin, PluginVersion, PluginInstall, PluginTombstone)
        }
        return {**tables, "objects": self.objects()}

    def check_complete(self, *versions: str) -> None:
        """Sweep; then exactly these versions are registered, with their own bytes, and nothing else is stored."""
        self.sweep()
        self.sweep()
        rows = self.rows(PluginVersion)
        assert sorted(row.version for row in rows) == sorted(versions)
        assert self.objects() == sorted((row.s3_path, row.s3_version) for row in rows)
        for row in rows:
            stored = self.s3.get_object(Bucket=self.bucket, Key=row.s3_path, VersionId=row.s3_version)
            assert hashlib.sha256(stored["Body"].read()).hexdigest() == row.checksum


@contextmanager
def opened_world(url: str, ministack: Ministack) -> Iterator[World]:
    """Yield a world of its own on a fresh schema and a fresh bucket."""
    bucket = ministack.versioned_bucket(f"events-{uuid.uuid4().hex[:12]}")
    create_schema(url).close()
    with settings(HOTPLUG_DATABASE_URL=url, HOTPLUG_BUCKET=bucket, HOTPLUG_INSTALL_QUEUE_URL=""):
        storage.use(S3Storage(bucket))
        try:
            yield World(url, bucket, ministack)
        finally:
            steps.observe(None)
            storage.use(None)
