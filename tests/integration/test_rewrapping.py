"""A change of the master key: within a file, from a file to KMS, from one KMS key to another; interrupted, twice at
once, with keys that do not open and masters that do not answer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from chalicelib.core import cache_log, process, steps
from chalicelib.core.cache_log import CacheChange
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Unavailable
from chalicelib.core.jobs import Runner
from chalicelib.core.keys import data_keys, master_keys
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.master_keys import FileMaster, KmsMaster, Masters, WrappedKey
from chalicelib.core.keys.rewrapping import BATCH, JOB, rewrapping_jobs
from tests.http import Deployment, deployed
from tests.ministack import running_ministack

AAD = ("plugin_x_1", "17", "/apiKey")
MAINTENANCE = f"/api/v1/maintenance/{JOB}"


@pytest.fixture(autouse=True)
def no_master_is_left() -> Iterator[None]:
    yield
    master_keys.use(None)


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[..., FileMaster]:
    def make(*keys: bytes) -> FileMaster:
        path = tmp_path / "master.key"
        path.write_bytes(b"".join(keys))
        return FileMaster(str(path))

    return make


OLD, NEW = os.urandom(32), os.urandom(32)


def stored(database: DatabaseService) -> list[WrappedKey]:
    with database.reads() as session:
        rows = session.scalars(select(DataKey).order_by(DataKey.app_id, DataKey.key_version))
        return [WrappedKey(row.app_id, row.key_version, row.wrapped, row.wrapped_by) for row in rows]


def seal_secrets(database: DatabaseService, apps: range) -> dict[int, str]:
    """Give each app a data key under the current master, and encrypt a secret with it."""
    return {app: data_keys.open_box(database, app).encrypt(f"of {app}", AAD) for app in apps}


def check_secrets(database: DatabaseService, tokens: dict[int, str]) -> None:
    master_keys.plain_keys.clear()
    for app, token in tokens.items():
        assert data_keys.open_box(database, app).decrypt(token, AAD) == f"of {app}"


def run(database: DatabaseService, deadline_s: float = 60) -> dict[str, Any]:
    (job,) = rewrapping_jobs(database)
    return Runner(database, deadline_s=deadline_s).run(job)


def left(database: DatabaseService) -> dict[str, int]:
    """Return what a dry run shows: how many keys each former master still wraps."""
    (job,) = rewrapping_jobs(database)
    plan = Runner(database, deadline_s=1).preview(job)["plan"]
    return {action["target"]: action["count"] for action in plan}


@contextmanager
def watched(observer: steps.Observer) -> Iterator[None]:
    before = steps.observe(observer)
    try:
        yield
    finally:
        steps.observe(before)


def test_every_key_is_moved_and_no_secret_changes(
    database: DatabaseService, key_file: Callable[..., FileMaster]
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(1, 2 * BATCH + 3))
    second = old.generate(7)[1]
    with database.session_getter() as session:
        session.add(DataKey(app_id=7, key_version=2, wrapped=second, wrapped_by=old.name))
    assert left(database) == {}
    # WHEN the file gets a new first key
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    assert left(database) == {old.name: 2 * BATCH + 3}
    kept = len(master_keys.plain_keys._kept)
    report = run(database)
    assert (report["planned"], report["done"], report["failed"], report["left"]) == (1, 1, 0, 0)
    assert left(database) == {}
    # THEN keys that nobody asked for did not go through the process's own store
    assert len(master_keys.plain_keys._kept) == kept == 0
    # AND the old key may go
    alone = key_file(NEW)
    master_keys.use(Masters(alone, alone))
    check_secrets(database, tokens)
    before = stored(database)
    assert run(database)["planned"] == 0
    assert stored(database) == before
    assert {(key.app_id, key.key_version) for key in before} >= {(7, 1), (7, 2)}


def test_functions_that_hold_the_old_wrapping_are_told(
    database: DatabaseService, key_file: Callable[..., FileMaster]
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    seal_secrets(database, range(1, BATCH + 3))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    with database.reads() as session:
        (before,) = session.execute(
            select(cache_log.CacheVersion.version).where(cache_log.CacheVersion.scope == "apps")
        ).one()
    run(database)
    with database.reads() as session:
        told = session.execute(
            select(CacheChange.version, CacheChange.item_key).where(
                CacheChange.scope == "apps", CacheChange.version > before
            )
        ).all()
    # THEN each app once, and one version for each batch
    assert sorted(int(change.item_key) for change in told) == list(range(1, BATCH + 3))
    assert len({change.version for change in told}) == 2


class Killed(BaseException):
    """What ends a process."""


def test_a_run_that_was_killed_half_way_is_gone_on_with(
    database: DatabaseService, key_file: Callable[..., FileMaster]
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(1, 2 * BATCH + 3))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    stores = []

    def die(operation: str, name: str) -> None:
        if (operation, name) == ("rewrapping", "store"):
            stores.append(name)
            if len(stores) == 2:
                raise Killed

    with watched(die), pytest.raises(Killed):
        run(database)
    assert left(database) == {old.name: BATCH + 2}
    check_secrets(database, tokens)
    assert run(database)["done"] == 1
    assert left(database) == {}
    check_secrets(database, tokens)


def test_a_run_ends_in_time_and_the_next_goes_on(
    database: DatabaseService, key_file: Callable[..., FileMaster], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(1, BATCH + 3))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    now = [0.0]
    monkeypatch.setattr("chalicelib.core.jobs.time.monotonic", lambda: now[0])

    def pass_time(operation: str, _name: str) -> None:
        if operation == "rewrapping":
            now[0] = 20.0

    with watched(pass_time):
        report = run(database, deadline_s=15)
    assert (report["done"], report["left"]) == (0, 1)
    assert left(database) == {old.name: 2}
    assert run(database)["done"] == 1
    check_secrets(database, tokens)


def test_a_key_that_does_not_open_is_told_and_stops_no_other(
    database: DatabaseService, key_file: Callable[..., FileMaster], capsys: pytest.CaptureFixture[str]
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(1, 2 * BATCH + 1))
    # GIVEN more than a batch of keys that do not open, before the others
    shut = range(1, BATCH + 2)
    with database.session_getter() as session:
        for app in shut:
            row = session.get(DataKey, (app, 1))
            assert row is not None
            row.wrapped = row.wrapped[:-2] + "AA"
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    report = run(database)
    assert (report["done"], report["failed"]) == (0, 1)
    assert report["failures"] == [{"action": JOB, "target": old.name, "code": "secrets.cannot_decrypt"}]
    said = [line for line in capsys.readouterr().out.splitlines() if "data_key.not_rewrapped" in line]
    assert len(said) == len(shut)
    assert '"app_id":1,"keyVersion":1' in said[0]
    assert left(database) == {old.name: len(shut)}
    # THEN it is as it was, for whoever finds what it was wrapped by
    assert all(key.wrapped_by == old.name for key in stored(database) if key.app_id in shut)
    check_secrets(database, {app: token for app, token in tokens.items() if app not in shut})
    assert run(database)["failed"] == 1


def test_a_master_that_is_gone_leaves_the_others_their_turn(
    database: DatabaseService, key_file: Callable[..., FileMaster]
) -> None:
    lost = key_file(os.urandom(32))
    master_keys.use(Masters(lost, lost))
    seal_secrets(database, range(1, 4))
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(4, 7))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    report = run(database)
    assert (report["planned"], report["done"], report["failed"]) == (2, 1, 1)
    assert report["failures"] == [{"action": JOB, "target": lost.name, "code": "secrets.no_key"}]
    assert left(database) == {lost.name: 3}
    check_secrets(database, tokens)


class Forgetful(FileMaster):
    """Wraps, and does not unwrap what it wrapped: a KMS key that the function may only encrypt with."""

    def unwrap(self, key: WrappedKey) -> bytes:
        if key.wrapped_by == self.name:
            raise Unavailable("refused", code="secrets.refused")
        return super().unwrap(key)


def test_what_the_new_master_does_not_open_replaces_nothing(
    database: DatabaseService, key_file: Callable[..., FileMaster], tmp_path: Path
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    seal_secrets(database, range(1, 4))
    before = stored(database)
    key_file(NEW, OLD)
    both = Forgetful(str(tmp_path / "master.key"))
    master_keys.use(Masters(both, both))
    assert run(database)["failures"][0]["code"] == "secrets.refused"
    assert stored(database) == before


def test_two_at_once_harm_nothing(database: DatabaseService, key_file: Callable[..., FileMaster]) -> None:
    """Even if both work, as after a lease that ran out: what one has stored the other leaves alone."""
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    tokens = seal_secrets(database, range(1, BATCH))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))
    url = database.engine.url.render_as_string(hide_password=False)
    together, failed = threading.Barrier(2), []

    def store_together(operation: str, _name: str) -> None:
        if operation == "rewrapping":
            together.wait(20)

    def work() -> None:
        service = DatabaseService(url)
        try:
            (job,) = rewrapping_jobs(service)
            (action,) = job.plan({}).actions
            assert action.work() is False
        except Exception as error:
            failed.append(error)
        finally:
            service.close()

    with watched(store_together):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failed == []
    assert left(database) == {}
    check_secrets(database, tokens)
    with database.reads() as session:
        versions = session.scalars(select(CacheChange.version).where(CacheChange.scope == "apps")).all()
    # THEN each app was changed twice: when its key was made, and by one of the two
    assert len(versions) == 2 * (BATCH - 1)


def test_an_app_that_is_deleted_meanwhile_does_not_come_back(
    database: DatabaseService, key_file: Callable[..., FileMaster]
) -> None:
    old = key_file(OLD)
    master_keys.use(Masters(old, old))
    seal_secrets(database, range(1, 4))
    both = key_file(NEW, OLD)
    master_keys.use(Masters(both, both))

    def delete(operation: str, _name: str) -> None:
        if operation == "rewrapping":
            with database.session_getter() as session:
                session.delete(session.get(DataKey, (2, 1)))

    with watched(delete):
        run(database)
    assert [key.app_id for key in stored(database)] == [1, 3]
    assert left(database) == {}


def test_without_a_master_nothing_is_planned(
    database: DatabaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master_keys, "_masters", None)
    monkeypatch.setattr("chalicelib.core.keys.rewrapping.masters", lambda: master_keys.configured(None, None))
    with pytest.raises(Unavailable) as refused:
        run(database)
    assert refused.value.code == "secrets.no_key"


# -- KMS -----------------------------------------------------------------------------------------------------------


def test_from_a_file_to_kms_and_on_to_another_key(
    database: DatabaseService, key_file: Callable[..., FileMaster], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_ministack() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        keys = server.client("kms")
        first, second = (keys.create_key()["KeyMetadata"]["KeyId"] for _ in range(2))
        file = key_file(OLD)
        master_keys.use(Masters(file, file))
        tokens = seal_secrets(database, range(1, BATCH + 2))
        for master, former in ((first, file.name), (second, f"kms:{first}")):
            master_keys.use(Masters(KmsMaster(master), file))
            assert left(database) == {former: BATCH + 1}
            assert run(database)["done"] == 1
            assert left(database) == {}
        # THEN the first key may go
        keys.disable_key(KeyId=first)
        master_keys.use(Masters(KmsMaster(second)))
        check_secrets(database, tokens)
        # AND a key that is disabled too early is told as such, once for all that it wraps
        master_keys.use(Masters(KmsMaster(first)))
        keys.enable_key(KeyId=first)
        keys.disable_key(KeyId=second)
        report = run(database)
        assert report["failures"] == [{"action": JOB, "target": f"kms:{second}", "code": "secrets.refused"}]
        assert left(database) == {f"kms:{second}": BATCH + 1}


# -- over the API --------------------------------------------------------------------------------------------------


@pytest.fixture
def deployment(database_url: str, with_schema: None, tmp_path: Path) -> Iterator[Deployment]:
    path = tmp_path / "deployed.key"
    path.write_bytes(NEW + OLD)
    with deployed(database_url, HOTPLUG_INSTALL_QUEUE_URL="", HOTPLUG_KEY_FILE=str(path)) as made:
        yield made


def test_an_admin_sees_what_the_old_master_wraps_and_moves_it(deployment: Deployment) -> None:
    client = deployment.client
    stored_secret = client.put("/api/v1/apps/admin/secrets/token", {"value": "hush"})
    assert stored_secret.status == 200
    (key,) = stored(process.database())
    # GIVEN that it was wrapped by the key that is now the second
    folder = Path(os.environ["HOTPLUG_KEY_FILE"]).parent
    (folder / "old.key").write_bytes(OLD)
    old = FileMaster(str(folder / "old.key"))
    plain = master_keys.masters().current.unwrap(key)
    with process.database().session_getter() as session:
        session.execute(
            update(DataKey).values(wrapped=old.wrap(key.app_id, plain), wrapped_by=old.name),
            execution_options={"synchronize_session": False},
        )
    shown = client.post(MAINTENANCE, {"dryRun": True}).json
    assert shown["plan"] == [{"action": JOB, "target": old.name, "count": 1}]
    assert client.post(MAINTENANCE, {}).json["done"] == 1
    assert client.post(MAINTENANCE, {"dryRun": True}).json["plan"] == []
    (moved,) = stored(process.database())
    assert moved.wrapped_by != old.name
    assert master_keys.masters().current.unwrap(moved) == plain
