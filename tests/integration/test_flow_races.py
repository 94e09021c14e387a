"""Several writers of one flow at once: nothing is lost, and of those who exclude each other one wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm.exc import StaleDataError

from chalicelib.apps import service
from chalicelib.apps.models import App
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError
from chalicelib.core.representation import entity_tag
from chalicelib.flows import comparisons, drafts, licensing, publishing, rendering
from chalicelib.flows.models import Flow, License
from chalicelib.flows.publishing import Wanted
from chalicelib.flows.release import Release
from tests.flow_rows import graph, publish, put_apps, put_flow, take_off
from tests.plugin_rows import OTHER, OWNER, caller, warm_cache

Work = Callable[[DatabaseService], Any]


@pytest.fixture
def flow(database: DatabaseService) -> int:
    """A draft whose owner may publish everywhere."""
    put_apps(database)
    database.run(lambda session: setattr(session.get_one(App, OWNER), "plat_release_auth", 7))
    return put_flow(database)


def at_once(url: str, works: Sequence[Work]) -> list[Any]:
    """Do all of it at the same time, each on a connection of its own; return results, or the codes of refusals."""
    together = Barrier(len(works))

    def run(work: Work) -> Any:
        database = DatabaseService(url)
        try:
            together.wait(30)
            return work(database)
        except HotplugError as error:
            return error.code
        finally:
            database.close()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def publishing_on(flow: int, platform: int, *, api: bool = False, version: str = "v1") -> Work:
    return lambda database: publish(database, flow, version, platform, api=api)["version"]


def taking_off(flow: int, platform: int) -> Work:
    return lambda database: take_off(database, flow, platform, "v1")["takenOff"]


def the_version(database: DatabaseService, flow: int) -> Flow:
    with database.reads() as session:
        return session.scalars(select(Flow).where(Flow.group_id == flow, Flow.version == "v1")).one()


def test_eight_writers_of_one_version_lose_no_bit(database: DatabaseService, flow: int) -> None:
    kinds = [(1, False), (1, True), (2, False), (2, True), (4, False), (1, False), (2, True), (4, False)]
    # WHEN all publish at once, the version not being there yet
    works = [publishing_on(flow, platform, api=api) for platform, api in kinds]
    assert at_once(database.database_url, works) == ["v1"] * 8
    row = the_version(database, flow)
    assert (row.release_status, row.release_api, row.status) == (1 | 4 | 8 | 32, 3, 1)
    # WHEN some take it off one platform while others publish it on the next
    for off, on, expected in (((1, 4), 2, (2 | 4 | 8 | 64, 2)), ((2,), 1, (1 | 8 | 16 | 64, 1))) * 2:
        held = [platform for platform in off if Release(row.release_status, row.release_api).on(platform)]
        taking = [taking_off(flow, platform) for platform in off for _ in range(2)]
        adding = [publishing_on(flow, on, api=api) for api in (False, True)] * ((8 - len(taking)) // 2)
        outcomes = at_once(database.database_url, taking + adding)
        row = the_version(database, flow)
        assert (row.release_status, row.release_api, row.status) == (*expected, 1)
        # Of two that take it off one platform, one finds it there.
        assert outcomes == [*outcomes[: len(taking)], *["v1"] * len(adding)]
        assert sum(outcomes[: len(taking)]) == len(held)


def test_eight_writers_of_eight_versions_make_one_licence(database: DatabaseService, flow: int) -> None:
    works = [publishing_on(flow, (1, 2, 4)[number % 3], version=f"v{number}") for number in range(8)]
    assert at_once(database.database_url, works) == [f"v{number}" for number in range(8)]
    with database.reads() as session:
        found = session.execute(select(Flow.version, Flow.release_status).where(Flow.version != "")).all()
        assert dict(tuple(row) for row in found) == {
            f"v{number}": (1, 4, 32)[number % 3] for number in range(8)
        }
        assert session.scalar(select(func.count()).select_from(License)) == 1


def test_of_two_spellings_of_one_number_one_is_published(database: DatabaseService, flow: int) -> None:
    works = [publishing_on(flow, 1, version=("v1", "v1.0")[number % 2]) for number in range(6)]
    outcomes = at_once(database.database_url, works)
    [winner] = set(outcomes) - {"flow.version_exists"}
    assert outcomes.count(winner) == 3
    with database.reads() as session:
        assert session.scalars(select(Flow.version).where(Flow.version != "")).all() == [winner]


def replacing(flow: int, name: str, seen: str) -> Work:
    def work(database: DatabaseService) -> str:
        prepared = drafts.prepare(warm_cache(database), caller(), graph(name), flow)
        return database.run(
            lambda session: drafts.replace(session, caller(), flow, seen, name, "", prepared).name
        )

    return work


def test_of_writers_who_saw_the_same_draft_one_wins(database: DatabaseService, flow: int) -> None:
    seen = entity_tag(rendering.tagged(flow, 1))
    outcomes = at_once(
        database.database_url, [replacing(flow, f"Name {number}", seen) for number in range(4)]
    )
    assert outcomes.count("precondition.failed") == 3
    [winner] = set(outcomes) - {"precondition.failed"}
    with database.reads() as session:
        row = session.get_one(Flow, flow)
        assert (row.name, row.revision) == (winner, 2)
        assert row.data is not None
        assert winner in row.data


def test_what_was_not_checked_is_not_published(database: DatabaseService, flow: int) -> None:
    valid = publishing.check_draft(database, warm_cache(database), caller(), flow)
    replacing(flow, "Other", "*")(database)
    with pytest.raises(Conflict) as refused:
        database.run(lambda session: publishing.publish(session, caller(), flow, Wanted("v1", 1), valid))
    assert refused.value.code == "flow.draft_changed"


def test_a_flow_is_published_or_deleted_and_never_both(database: DatabaseService) -> None:
    put_apps(database)
    flows = [put_flow(database) for _ in range(4)]

    def deleting(flow: int) -> Work:
        return lambda database: database.run(lambda session: drafts.delete(session, caller(), flow, None))

    for flow in flows:
        published, deleted = at_once(database.database_url, [publishing_on(flow, 1), deleting(flow)])
        assert (published, deleted) in (("v1", "flow.published"), ("flow.not_found", None))
        with database.reads() as session:
            states = session.execute(select(Flow.is_deleted, Flow.status).where(Flow.group_id == flow)).all()
        assert sorted(map(tuple, states)) == ([(0, 0), (0, 1)] if published == "v1" else [(1, 0)])


def licensing_to(flow: int, alias: str, status: int) -> Work:
    return lambda database: database.run(
        lambda session: licensing.put(session, caller(), flow, alias, status)["status"]
    )


def test_eight_writers_of_one_licence_make_one(database: DatabaseService, flow: int) -> None:
    works = [licensing_to(flow, "app-22", number % 2) for number in range(8)]
    assert at_once(database.database_url, works) == [number % 2 for number in range(8)]
    with database.reads() as session:
        [row] = session.scalars(
            select(License).where(License.app_id == OTHER, License.group_id == flow)
        ).all()
    assert row.status in (0, 1)


def test_an_app_that_is_deleted_while_it_is_licensed_leaves_no_licence(
    database: DatabaseService, flow: int
) -> None:
    aliases = [f"guest-{number}" for number in range(4)]
    database.run(
        lambda session: session.add_all(
            App(id=100 + i, name="g", alias_id=alias) for i, alias in enumerate(aliases)
        )
    )

    def deleting(alias: str) -> Work:
        return lambda database: database.run(
            lambda session: service.delete_app(
                session, caller(), alias, None, lambda *_: [], licensing.forget_app
            )
        )

    for alias in aliases:
        licensed, deleted = at_once(database.database_url, [licensing_to(flow, alias, 1), deleting(alias)])
        assert licensed in (1, "app.not_found")
        assert deleted is None
    with database.reads() as session:
        assert session.scalars(select(License.id)).all() == []


def test_eight_writers_of_one_comparison_make_one(database: DatabaseService, flow: int) -> None:
    def comparing(number: int) -> Work:
        def work(database: DatabaseService) -> str:
            prepared = drafts.prepare(warm_cache(database), caller(), graph(str(number)), flow)
            return database.run(
                lambda session: comparisons.put(session, caller(), flow, "v9", None, prepared).checksum
            )

        return work

    outcomes = at_once(database.database_url, [comparing(number) for number in range(8)])
    assert len(set(outcomes)) == 8
    with database.reads() as session:
        [row] = session.scalars(select(Flow).where(Flow.tag == 1)).all()
    assert row.checksum in outcomes
    assert row.revision == 8


def test_not_even_a_writer_without_the_lock_is_overwritten(mysql_url: str) -> None:
    """On SQLite there is no second writer to begin with."""
    from tests.conftest import create_schema

    database = create_schema(mysql_url)
    put_apps(database)
    flow_id = put_flow(database)
    publish(database, flow_id)
    row_id = the_version(database, flow_id).id

    def meddle() -> None:
        other = DatabaseService(mysql_url)
        bits = update(Flow).where(Flow.id == row_id).values(release_status=5, revision=Flow.revision + 1)
        other.run(lambda session: session.execute(bits.execution_options(synchronize_session=False)))
        other.close()

    with pytest.raises(StaleDataError), database.session_getter() as session:
        row = session.get_one(Flow, row_id)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(meddle).result()
        row.release_status |= 32
    assert the_version(database, flow_id).release_status == 5
    database.close()
