"""S3's events as they really come: twice, at once, out of order, late, never, forged, and of objects that changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from chalicelib.apps.models import App
from chalicelib.core import steps
from chalicelib.core.errors import HotplugError
from chalicelib.core.storage import S3Storage
from chalicelib.events import registration
from chalicelib.plugins import incoming, installs
from chalicelib.plugins.install_models import (
    AWAITING_UPLOAD,
    CANCELLED,
    EXPIRED,
    FAILED,
    REJECTED,
    TASK_REGISTERED,
    TERMINAL,
    VERIFYING,
    PluginInstall,
)
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.services import Services
from tests import events
from tests.crash.scenarios import services as new_services
from tests.events.world import ALIAS, PUBLISHER, World, opened_world, package
from tests.ministack import Ministack, running_ministack
from tests.plugin_rows import OWNER


@pytest.fixture(scope="module")
def ministack() -> Iterator[Ministack]:
    with running_ministack() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def world(database_url: str, ministack: Ministack, with_schema: None) -> Iterator[World]:
    with opened_world(database_url, ministack) as opened:
        yield opened


def at_step(operation: str, name: str, work: Any, *, times: int = 1) -> None:
    """Do something the first times that a step is reached."""
    left = times

    def observe(reached: str, step: str) -> None:
        nonlocal left
        if (reached, step) == (operation, name) and left:
            left -= 1
            work()

    steps.observe(observe)


# -- what a message may hold -----------------------------------------------------------------------------------


def test_the_event_of_an_upload_registers_it(world: World) -> None:
    key, version_id = world.upload(package())
    assert world.deliver(key, version_id)
    assert (world.task().state, world.active()) == (TASK_REGISTERED, ["1.0.0"])
    world.check_complete("1.0.0")


def test_a_key_is_decoded_and_an_event_without_a_version_means_the_newest(world: World) -> None:
    key, _ = world.drop(package(), "my plugin (1)+50% für ünïcode.zip")
    assert world.deliver(key, None)
    assert (world.task().state, world.task().filename) == (TASK_REGISTERED, key.rpartition("/")[2])
    world.check_complete("1.0.0")


def test_what_s3_itself_puts_into_a_queue_is_understood(world: World, ministack: Ministack) -> None:
    sqs = ministack.client("sqs")
    url = sqs.create_queue(QueueName=world.bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    configuration = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}
    world.s3.put_bucket_notification_configuration(
        Bucket=world.bucket, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    key, version_id = world.drop(package(), "my plugin+1 ü.zip")
    received: list[str] = []
    while not received or received[-1] != version_id:
        messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, MaxNumberOfMessages=1)["Messages"]
        body = messages[0]["Body"]
        answer = registration.handle(events.batch(events.message(body)))
        assert answer == {"batchItemFailures": []}
        found = registration.objects(body)
        received.append(found[0][1] or "" if found else "")
    assert registration.objects(body) == [(key, version_id)]
    assert world.states() == [TASK_REGISTERED]


@pytest.mark.parametrize("handler", [registration.handle, registration.handle_dead_letter])
def test_what_is_no_notification_is_acknowledged(world: World, handler: Any) -> None:
    world.drop(package())
    before = world.snapshot()
    bodies = events.load("garbage_bodies", BUCKET=world.bucket)
    bodies += [events.load("s3_test_event", BUCKET=world.bucket), "[" * 100_000]
    assert len(bodies) == 21
    messages = [events.message(body, f"m{number}") for number, body in enumerate(bodies)]
    assert handler(events.batch(*messages)) == {"batchItemFailures": []}
    assert world.snapshot() == before


def test_several_records_of_one_message_are_each_tried(world: World) -> None:
    poison = world.upload(package("1.0.0", "poison"))
    good = world.drop(package("1.0.0", "good"))
    at_step("incoming", "download", _crash)
    body = {"Records": [world.record(*poison), world.record(*good)]}
    answer = registration.handle(events.batch(events.message(body, "both")))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "both"}]}
    assert world.states() == [VERIFYING, TASK_REGISTERED]
    # The whole message comes again.
    assert registration.handle(events.batch(events.message(body, "both"))) == {"batchItemFailures": []}
    assert world.states() == [TASK_REGISTERED, TASK_REGISTERED]
    world.check_complete("1.0.0", "1.0.0")


def _crash() -> None:
    raise RuntimeError("a defect of ours")


def test_of_a_batch_only_what_failed_comes_again(world: World) -> None:
    held = world.upload(package("1.0.0", "held"))
    with world.services.database.session_getter() as session:
        installs.claim(session, *held, datetime.now(UTC))
    broken = world.drop(b"PK no zip", "broken.zip")
    good = world.drop(package("1.0.0", "good"), "good.zip")
    answer = registration.handle(
        events.batch(
            events.message("garbage", "garbage"),
            events.message({"Records": [world.record(*held)]}, "held"),
            events.message({"Records": [world.record(*broken)]}, "broken"),
            events.message(events.load("s3_test_event"), "test"),
            events.message({"Records": [world.record(*good)]}, "good"),
        )
    )
    assert answer == {"batchItemFailures": [{"itemIdentifier": "held"}]}
    assert world.states() == [VERIFYING, REJECTED, TASK_REGISTERED]


# -- forged events ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [registration.handle, registration.handle_dead_letter])
def test_a_forged_key_registers_and_deletes_nothing(world: World, handler: Any) -> None:
    assert world.deliver(*world.drop(package()))
    world.services.database.run(
        lambda session: session.add(App(id=OWNER + 1, name="Other", alias_id="other", status=0))
    )
    [plugin] = world.rows(Plugin)
    for key in (
        "plugins/loose.zip", "compiled/abc/engine.cwasm", f"incoming/drop/{ALIAS}", f"incoming/drop/{ALIAS} /x.zip",
        "incoming/other/x.zip", "incoming/tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV.zip.bak", "incoming/drop/ACME/x.zip",
        "incoming/drop/nobody/x.zip", "incoming/drop/other/x.zip",
    ):  # fmt: skip
        world.put(key, package("9.0.0", "intruder"))
    before = world.snapshot()
    keys = events.load(
        "forged_keys", PLUGIN_KEY=plugin.s3_path, STORED=plugin.s3_path.removeprefix("plugins/")
    )
    keys += ["incoming/drop/acme/" + "x" * 482, "incoming/drop/other/x.zip", "incoming/drop/acme/\0" * 30]
    messages = []
    for version_id in (plugin.s3_version, None, "", "null", "no-such-version", "v" * 129):
        for key in keys:
            record = world.record("", version_id)
            record["s3"]["object"]["key"] = key
            messages.append(events.message({"Records": [record]}, f"{key} {version_id}"))
    assert handler(events.batch(*messages)) == {"batchItemFailures": []}
    assert world.snapshot() == before


@pytest.mark.parametrize(
    "change",
    [
        {"eventName": "ObjectRemoved:DeleteMarkerCreated"},
        {"eventName": "ObjectRestore:Completed"},
        {"s3": {"bucket": {"name": "another-bucket"}}},
        {"s3": {"bucket": {}}},
    ],
)
def test_only_what_was_created_in_our_bucket_is_looked_at(world: World, change: dict[str, Any]) -> None:
    record = world.record(*world.drop(package()))
    forged = record | change
    if "s3" in change:
        forged["s3"] = record["s3"] | change["s3"]
    before = world.snapshot()
    for handler in (registration.handle, registration.handle_dead_letter):
        assert handler(events.batch(events.message({"Records": [forged]}))) == {"batchItemFailures": []}
    assert world.snapshot() == before
    # Unchanged, the very same record registers.
    assert registration.handle(events.batch(events.message({"Records": [record]}))) == {
        "batchItemFailures": []
    }
    assert world.states() == [TASK_REGISTERED]


def test_a_forged_version_of_a_drop_ends_rejected_and_harms_no_other(world: World) -> None:
    key, version_id = world.drop(package())
    assert world.deliver(key, "forged")
    assert world.deliver(key, version_id)
    assert [(task.state, task.error_code) for task in world.rows(PluginInstall)] == [
        (REJECTED, "storage.missing"),
        (TASK_REGISTERED, None),
    ]
    world.check_complete("1.0.0")


# -- twice, at once, out of order, late, never -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["upload", "drop"])
def test_delivered_twice_it_registers_once(world: World, way: str) -> None:
    key, version_id = getattr(world, way)(package())
    assert world.deliver(key, version_id)
    before = world.snapshot()
    assert world.deliver(key, version_id)
    assert world.snapshot() == before
    world.check_complete("1.0.0")


@pytest.mark.parametrize("way", ["upload", "drop"])
def test_delivered_four_times_at_once_it_registers_once(world: World, way: str) -> None:
    key, version_id = getattr(world, way)(package())
    outcomes = _at_once(world, [(key, version_id)] * 4)
    assert outcomes.count("registered") == 1
    assert set(outcomes) <= {"registered", "settled", "install.leased", "install.ended", "database.contended"}
    for _ in range(2):
        assert world.deliver(key, version_id)
    assert world.states() == [TASK_REGISTERED]
    world.check_complete("1.0.0")


def test_one_package_dropped_four_times_at_once_is_one_version(world: World) -> None:
    drops = [world.drop(package(), f"{number}.zip") for number in range(4)]
    outcomes = _at_once(world, drops)
    # A race that was lost is delivered again.
    for key, version_id in drops * 2:
        world.deliver(key, version_id)
    assert world.states() == [TASK_REGISTERED] * 4, outcomes
    world.check_complete("1.0.0")


def _at_once(world: World, arrivals: list[tuple[str, str]]) -> list[str]:
    """Register as many functions would, each with services of its own; return what became of each."""
    barrier, outcomes = threading.Barrier(len(arrivals)), []

    def run(services: Services, key: str, version_id: str) -> None:
        barrier.wait(30)
        try:
            outcomes.append(incoming.register_artifact(services, key, version_id))
        except HotplugError as error:
            outcomes.append(error.code)

    each = [new_services(world.url, world.bucket) for _ in arrivals]
    threads = [
        threading.Thread(target=run, args=(one, *arrival))
        for one, arrival in zip(each, arrivals, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one in each:
        one.database.close()
    assert len(outcomes) == len(arrivals)
    return outcomes


def test_of_two_drops_the_lower_version_that_comes_last_is_told_so(world: World) -> None:
    first = world.drop(package("1.0.0"))
    second = world.drop(package("1.1.0"))
    assert world.deliver(*second)
    assert world.deliver(*first)
    outcomes = {task.object_version: task for task in world.rows(PluginInstall)}
    assert outcomes[second[1]].state == TASK_REGISTERED
    late = outcomes[first[1]]
    assert (late.state, late.error_code) == (REJECTED, "plugin.version_not_raised")
    assert late.errors and "1.1.0" in json.dumps(late.errors)
    assert world.active() == ["1.1.0"]
    world.check_complete("1.1.0")


@pytest.mark.parametrize("state", [CANCELLED, EXPIRED])
def test_too_late_nothing_is_registered_and_the_object_goes(world: World, state: str) -> None:
    key, version_id = world.upload(package())
    world.change_tasks(state=state)
    assert world.deliver(key, version_id)
    assert (world.task().state, world.active(), world.objects()) == (state, [], [])


def test_an_upload_that_ended_after_its_time_but_before_the_task_expired_is_taken(world: World) -> None:
    key, version_id = world.upload(package())
    world.change_tasks(upload_expires_at=datetime.now(UTC) - timedelta(minutes=4))
    assert world.deliver(key, version_id)
    assert world.states() == [TASK_REGISTERED]


@pytest.mark.parametrize("way", ["upload", "drop"])
def test_an_event_that_never_comes_is_made_up_for(world: World, way: str) -> None:
    getattr(world, way)(package())
    world.sweep("lost_events")
    assert world.states() == [TASK_REGISTERED]
    world.check_complete("1.0.0")


# -- the object is another one by now --------------------------------------------------------------------------


def test_what_the_event_names_is_registered_whatever_lies_there_now(world: World) -> None:
    content = package("1.0.0", note="as declared")
    key, version_id = world.upload(content)
    newer = world.put(key, package("1.0.0", note="as replaced"))
    assert world.deliver(key, version_id)
    [row] = world.rows(PluginVersion)
    assert row.manifest["description"] == "as declared"
    # The replacement belongs to an install that has ended; it goes by its version.
    assert world.objects("incoming/") == [(key, newer)]
    assert world.deliver(key, newer)
    assert world.states() == [TASK_REGISTERED]
    world.check_complete("1.0.0")


def test_replaced_between_the_hash_and_the_copy_what_was_hashed_is_placed(world: World) -> None:
    key, version_id = world.upload(package(note="as hashed"))
    at_step("register", "place", lambda: world.put(key, b"anything else"))
    assert world.deliver(key, version_id)
    assert [row.manifest["description"] for row in world.rows(PluginVersion)] == ["as hashed"]
    world.check_complete("1.0.0")


def test_an_overwritten_drop_is_two_installs(world: World) -> None:
    first, second = world.drop(package("1.0.0")), world.drop(package("2.0.0"))
    assert first[0] == second[0]
    assert world.deliver(*first)
    assert world.active() == ["1.0.0"]
    assert world.deliver(*second)
    assert (world.active(), world.states()) == (["2.0.0"], [TASK_REGISTERED] * 2)
    world.check_complete("1.0.0", "2.0.0")


@pytest.mark.parametrize("way", ["upload", "drop"])
def test_deleted_before_it_was_read_the_publisher_is_told(world: World, way: str) -> None:
    key, version_id = getattr(world, way)(package())
    world.s3.delete_object(Bucket=world.bucket, Key=key, VersionId=version_id)
    assert world.deliver(key, version_id)
    task = world.task()
    assert (task.state, task.error_code, world.active()) == (REJECTED, "storage.missing", [])
    assert task.errors == [{"pointer": "", "rule": "storage.missing", "message": "There is no such object."}]
    world.check_complete()


def test_other_bytes_than_declared_are_refused(world: World) -> None:
    content = package()
    task = world.open(content)
    form = world.services.storage.presign_post(
        task.object_key, size=len(content), sha256_hex=task.declared_sha256 or "", seconds=60
    )
    other = content[:-1] + b"!"
    # S3 refuses what has another checksum; this endpoint takes it, so the registering function is all there is.
    posted = httpx.post(form.url, data=form.fields, files={"file": ("x.zip", other)}, timeout=20)
    assert posted.is_success, posted.text
    [(key, version_id)] = world.objects()
    assert world.deliver(key, version_id)
    found = world.task()
    assert (found.state, found.error_code) == (REJECTED, "upload.differs")
    assert [error["pointer"] for error in found.errors] == ["/sha256"]
    world.check_complete()


@pytest.mark.parametrize(
    ("content", "code"), [(package()[:-1], "upload.differs"), (package() + b"!", "storage.too_large")]
)
def test_another_size_than_declared_is_refused(world: World, content: bytes, code: str) -> None:
    key = world.open(package()).object_key
    assert world.deliver(key, world.put(key, content))
    assert (world.task().state, world.task().error_code) == (REJECTED, code)
    assert world.task().errors
    world.check_complete()


# -- whose it is -----------------------------------------------------------------------------------------------


def _set_status(world: World, status: int) -> None:
    def work(session: Any) -> None:
        session.get(App, OWNER).status = status

    world.services.database.run(work)


def test_an_upload_of_a_disabled_app_is_rejected(world: World) -> None:
    key, version_id = world.upload(package())
    _set_status(world, 0)
    assert world.deliver(key, version_id)
    assert (world.task().state, world.task().error_code) == (REJECTED, "install.app_disabled")
    assert world.active() == []


def test_a_drop_for_a_disabled_app_waits_for_it(world: World) -> None:
    key, version_id = world.drop(package())
    _set_status(world, 0)
    assert world.deliver(key, version_id)
    assert (world.states(), world.objects()) == ([], [(key, version_id)])
    _set_status(world, 1)
    world.sweep("lost_events")
    assert world.states() == [TASK_REGISTERED]


def test_a_drop_for_nobody_stays_a_week(world: World) -> None:
    key = "incoming/drop/nobody/x.zip"
    version_id = world.put(key, package())
    assert world.deliver(key, version_id)
    world.sweep()
    assert (world.states(), world.objects()) == ([], [(key, version_id)])


# -- leases ----------------------------------------------------------------------------------------------------


def test_a_held_lease_defers_the_message_until_it_is_free(world: World) -> None:
    key, version_id = world.upload(package())
    with world.services.database.session_getter() as session:
        task, owner = installs.claim(session, key, version_id, datetime.now(UTC))
        install_id = task.install_id
    for _ in range(3):
        assert not world.deliver(key, version_id)
    assert (world.task().attempts, world.task().lease_owner) == (1, owner)
    world.services.database.run(
        lambda session: installs.release(session, install_id, owner, "storage.away", "for a moment")
    )
    assert world.deliver(key, version_id)
    assert (world.task().state, world.task().errors) == (TASK_REGISTERED, [])


def test_after_a_take_over_the_first_function_commits_nothing(world: World) -> None:
    key, version_id = world.upload(package())

    def take_over() -> None:
        world.end_leases()
        with world.services.database.session_getter() as session:
            installs.claim(session, key, version_id, datetime.now(UTC))

    at_step("register", "commit", take_over)
    assert not world.deliver(key, version_id)
    task = world.task()
    assert (task.state, task.attempts, world.active(), world.rows(PluginVersion)) == (VERIFYING, 2, [], [])
    assert task.lease_owner is not None, "the second function's lease was lost"
    world.end_leases()
    assert world.deliver(key, version_id)
    assert world.states() == [TASK_REGISTERED]
    world.check_complete("1.0.0")


def test_a_slow_function_finds_the_work_done_and_leaves_it_alone(world: World) -> None:
    key, version_id = world.upload(package())
    other = new_services(world.url, world.bucket)
    outcomes: list[str] = []

    def overtake() -> None:
        world.end_leases()
        outcomes.append(incoming.register_artifact(other, key, version_id))

    at_step("register", "commit", overtake)
    assert not world.deliver(key, version_id)
    other.database.close()
    assert outcomes == ["registered"]
    [row] = world.rows(PluginVersion)
    # What the slow one had placed is gone again, the version that counts is not.
    assert world.objects() == [(row.s3_path, row.s3_version)]
    assert world.deliver(key, version_id)
    assert world.states() == [TASK_REGISTERED]
    world.check_complete("1.0.0")


def test_cancelled_while_it_was_registered_it_is_cancelled(world: World) -> None:
    key, version_id = world.upload(package())
    install_id = world.task().install_id

    def cancel() -> None:
        world.services.database.run(lambda session: installs.cancel(session, PUBLISHER, install_id))

    at_step("register", "commit", cancel)
    world.deliver(key, version_id)
    assert world.deliver(key, version_id)
    assert (world.states(), world.active(), world.objects()) == ([CANCELLED], [], [])


@pytest.mark.parametrize(
    "place",
    [
        ("incoming", "claim"),
        ("incoming", "download"),
        ("register", "check"),
        ("register", "place"),
        ("register", "commit"),
        ("incoming", "delete_incoming"),
    ],
)
def test_a_crash_leaves_the_message_and_no_lease(world: World, place: tuple[str, str]) -> None:
    key, version_id = world.upload(package())
    at_step(*place, _crash)
    assert not world.deliver(key, version_id)
    assert world.task().lease_owner is None
    assert world.deliver(key, version_id)
    assert (world.task().state, world.task().errors) == (TASK_REGISTERED, [])
    world.check_complete("1.0.0")


# -- dead letters ----------------------------------------------------------------------------------------------


def test_a_dead_letter_ends_the_install_with_what_the_attempts_said(world: World) -> None:
    key, version_id = world.upload(package())
    at_step("register", "place", _crash, times=5)
    for _ in range(5):
        assert not world.deliver(key, version_id)
    assert world.give_up(key, version_id)
    task = world.task()
    assert (task.state, task.error_code, task.attempts) == (FAILED, "install.crashed", 5)
    assert task.errors[0]["message"] == "Something went wrong on our side; the log has it."
    assert "defect" not in json.dumps(task.errors)


def test_a_dead_letter_of_what_nobody_ever_claimed_says_that_it_was_given_up(world: World) -> None:
    key, version_id = world.upload(package())
    assert world.give_up(key, version_id)
    task = world.task()
    assert (task.state, task.error_code) == (FAILED, "install.gave_up")
    assert task.errors == [{"pointer": "", "rule": "install.gave_up", "message": registration.GAVE_UP}]


def test_a_dead_letter_waits_for_a_lease_to_end(world: World) -> None:
    key, version_id = world.upload(package())
    with world.services.database.session_getter() as session:
        installs.claim(session, key, version_id, datetime.now(UTC))
    assert not world.give_up(key, version_id)
    assert world.states() == [VERIFYING]
    world.end_leases()
    assert world.give_up(key, version_id)
    assert world.states() == [FAILED]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_dead_letter_changes_nothing_that_has_ended(world: World, state: str) -> None:
    key, version_id = world.upload(package())
    world.change_tasks(state=state, object_version=version_id, error_code="before")
    before = world.snapshot()
    assert world.give_up(key, version_id)
    assert world.snapshot() == before


def test_a_failed_install_keeps_its_package_and_a_retry_registers_it(world: World) -> None:
    key, version_id = world.upload(package())
    assert world.give_up(key, version_id)
    # The twin of the message that was given up.
    assert world.deliver(key, version_id)
    assert (world.states(), world.objects()) == ([FAILED], [(key, version_id)])
    world.sweep()
    assert (world.states(), world.objects()) == ([FAILED], [(key, version_id)])
    install_id = world.task().install_id
    world.services.database.run(lambda session: installs.retry(session, PUBLISHER, install_id))
    again = incoming.announcement(world.bucket, key, world.task().object_version)
    assert registration.handle(events.batch(events.message(again))) == {"batchItemFailures": []}
    assert (world.task().state, world.task().errors, world.task().error_code) == (TASK_REGISTERED, [], None)
    world.check_complete("1.0.0")


def test_a_retry_of_what_was_never_claimed_finds_the_object(world: World) -> None:
    key, _ = world.upload(package())
    assert world.states() == [AWAITING_UPLOAD]
    assert world.give_up(key, None)
    install_id = world.task().install_id
    world.services.database.run(lambda session: installs.retry(session, PUBLISHER, install_id))
    again = incoming.announcement(world.bucket, key, world.task().object_version)
    assert registration.handle(events.batch(events.message(again))) == {"batchItemFailures": []}
    assert world.states() == [TASK_REGISTERED]


# -- away ------------------------------------------------------------------------------------------------------


def test_while_s3_is_away_the_message_stays(world: World, ministack: Ministack) -> None:
    key, version_id = world.upload(package())

    class Away:
        """A bucket whose objects cannot be read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.services.storage, name)

        def download(self, *_: Any, **__: Any) -> Any:
            from chalicelib.core.storage import away

            raise away()

    broken = Services(world.services.database, Away(), world.services.functions, world.services.cache)
    with pytest.raises(HotplugError, match="object store"):
        incoming.register_artifact(broken, key, version_id)
    task = world.task()
    assert (task.state, task.error_code, task.lease_owner) == (VERIFYING, "storage.away", None)
    assert world.deliver(key, version_id)
    assert isinstance(world.services.storage, S3Storage)
    assert world.states() == [TASK_REGISTERED]
