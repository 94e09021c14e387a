"""Versions of flows: where they are published, which one is the latest, who may run it, what they are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import event, insert, select

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Forbidden, Invalid
from chalicelib.core.hotcache import HotCache
from chalicelib.flows import catalog, licensing
from chalicelib.flows.dao import FlowDAO, LicenseDAO, published_query
from chalicelib.flows.dsl.versions import version_key
from chalicelib.flows.models import Flow
from tests.flow_rows import flow_deployment, graph, publish, put_apps, put_flow, take_off
from tests.http import Client, Deployment, Response
from tests.plans.explain import Recorder, rows_read
from tests.plugin_rows import OTHER, OWNER, caller, warm_cache

FLOWS = "/api/v1/flows"
EVERYWHERE = {"platReleaseAuth": 7}


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with flow_deployment(request.param, tmp_path_factory.mktemp("flows")) as found:
        yield found


_numbers = itertools.count(1)


@pytest.fixture
def acme() -> str:
    """The alias of a tenant that nobody else has."""
    return f"acme-{next(_numbers)}"


@pytest.fixture
def publisher(deployment: Deployment, acme: str) -> Client:
    """One that may publish on every platform."""
    client = Client(deployment.client.app, deployment.credential(acme, "publisher"))
    assert deployment.client.patch(f"/api/v1/apps/{acme}", EVERYWHERE).status == 200
    return client


@pytest.fixture
def stranger(deployment: Deployment, acme: str) -> Client:
    return Client(deployment.client.app, deployment.credential(f"other-{acme}", "admin"))


@pytest.fixture
def flow(publisher: Client) -> str:
    made = publisher.post(FLOWS, {"name": "Greeter", "description": "Says it.", "data": graph(city="string")})
    return str(made.json["flowId"])


def release(client: Client, flow: str, version: str = "v1", platform: int = 1, **body: Any) -> Response:
    return client.post(f"{FLOWS}/{flow}/publish", {"version": version, "platform": platform, **body})


def withdraw(client: Client, flow: str, platform: int = 1, **body: Any) -> Response:
    return client.post(f"{FLOWS}/{flow}/take-off", {"platform": platform, **body})


def rewrite(client: Client, flow: str, data: Any) -> None:
    answer = client.put(f"{FLOWS}/{flow}", {"name": "New", "data": data}, headers={"If-Match": "*"})
    assert answer.status == 200, answer.body


def versions(client: Client, flow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{FLOWS}/{flow}/versions").json["items"]
    return found


def latest(client: Client, flow: str) -> Any:
    found = client.get(f"{FLOWS}/{flow}/published")
    return found.json["version"] if found.status == 200 else found.json["code"]


# -- the bits ------------------------------------------------------------------------------------------------------


def test_the_sequence_of_the_contract(publisher: Client, flow: str) -> None:
    seen = [
        release(publisher, flow).json["releaseStatus"],
        release(publisher, flow, api=True).json["releaseStatus"],
        release(publisher, flow).json["releaseStatus"],
        release(publisher, flow, platform=4).json["releaseStatus"],
    ]
    assert withdraw(publisher, flow, 4).json == {"flowId": flow, "platform": 4, "takenOff": 1}
    [found] = versions(publisher, flow)
    assert [*seen, found["releaseStatus"]] == [1, 9, 9, 41, 73]
    assert (found["releaseApi"], found["isPublished"]) == (1, True)


def test_bit_8_stays_while_another_platform_holds_it(publisher: Client, flow: str) -> None:
    release(publisher, flow, platform=1, api=True)
    both = release(publisher, flow, platform=2, api=True).json
    assert (both["releaseStatus"], both["releaseApi"]) == (8, 3)
    withdraw(publisher, flow, 1)
    assert [(one["releaseStatus"], one["releaseApi"]) for one in versions(publisher, flow)] == [(10, 2)]
    withdraw(publisher, flow, 2)
    [gone] = versions(publisher, flow)
    assert (gone["releaseStatus"], gone["releaseApi"], gone["isPublished"]) == (18, 0, False)
    assert latest(publisher, flow) == "flow.not_published"


def test_taking_off_what_is_not_there_changes_nothing(publisher: Client, flow: str) -> None:
    release(publisher, flow)
    before = versions(publisher, flow)
    assert withdraw(publisher, flow, 2).json["takenOff"] == 0
    assert withdraw(publisher, flow, 2, version="v1").json["takenOff"] == 0
    assert versions(publisher, flow) == before
    refused = withdraw(publisher, flow, 1, version="v2")
    assert (refused.status, refused.json["code"]) == (404, "flow.version_not_found")


@pytest.mark.parametrize("few", [100, 1])
def test_taking_off_without_a_version_takes_all(
    publisher: Client, flow: str, few: int, monkeypatch: Any
) -> None:
    """Few versions go one by one, many by one statement: both leave the same."""
    from chalicelib.flows import publishing

    monkeypatch.setattr(publishing, "FEW_VERSIONS", few)
    release(publisher, flow, "v1")
    release(publisher, flow, "v1", 2, api=True)
    release(publisher, flow, "v2", api=True)
    release(publisher, flow, "v3", 2)
    release(publisher, flow, "v4", 1, api=True)
    release(publisher, flow, "v4", 2, api=True)
    publisher.put(f"{FLOWS}/{flow}/comparisons/v9")
    assert withdraw(publisher, flow, 1).json["takenOff"] == 3
    found = {one["version"]: one for one in versions(publisher, flow)}
    assert {
        name: (one["releaseStatus"], one["releaseApi"], one["isPublished"]) for name, one in found.items()
    } == {"v1": (10, 2, True), "v2": (2, 0, False), "v3": (4, 0, True), "v4": (10, 2, True)}
    assert withdraw(publisher, flow, 1).json["takenOff"] == 0
    assert latest(publisher, flow) == "v4"


def test_devices_have_no_api(publisher: Client, flow: str) -> None:
    refused = release(publisher, flow, platform=4, api=True)
    assert (refused.status, refused.json["code"]) == (422, "flow.no_api")
    assert versions(publisher, flow) == []


# -- who may publish where -----------------------------------------------------------------------------------------


def test_a_new_app_publishes_to_the_workbench_until_an_admin_grants_more(
    deployment: Deployment, acme: str
) -> None:
    client = Client(deployment.client.app, deployment.credential(acme, "publisher"))
    assert deployment.client.get(f"/api/v1/apps/{acme}").json["platReleaseAuth"] == 1
    flow = client.post(FLOWS, {"name": "A", "data": graph()}).json["flowId"]
    for platform in (2, 4):
        refused = release(client, flow, platform=platform)
        assert (refused.status, refused.json["code"]) == (403, "flow.platform_not_allowed")
    assert release(client, flow).status == 200
    deployment.client.patch(f"/api/v1/apps/{acme}", {"platReleaseAuth": 4})
    assert [release(client, flow, platform=one).status for one in (1, 2, 4)] == [403, 403, 200]
    # What it may no more publish, it still takes off.
    assert withdraw(client, flow, 1).json["takenOff"] == 1
    deployment.client.patch(f"/api/v1/apps/{acme}", {"isTenant": 0, "platReleaseAuth": 7})
    assert release(client, flow).json["code"] == "flow.platform_not_allowed"


def test_a_flow_is_published_where_it_is_meant_to_be(publisher: Client) -> None:
    flow = publisher.post(FLOWS, {"name": "A", "data": graph(), "source": 2}).json["flowId"]
    assert [release(publisher, flow, platform=one).status for one in (1, 2, 4)] == [403, 200, 403]


# -- versions ------------------------------------------------------------------------------------------------------


def test_what_does_not_hold_is_not_published_and_all_of_it_is_told(publisher: Client, flow: str) -> None:
    broken = graph()
    broken["nodes"].append({"id": "nothing::1", "data": {}})
    broken["edges"].append({"sourceNodeId": "node-end::1", "targetNodeId": "nowhere::1"})
    rewrite(publisher, flow, broken)
    refused = release(publisher, flow)
    assert (refused.status, refused.json["code"]) == (422, "flow.invalid")
    assert {"node.type", "edge.dangling"} <= {one["rule"] for one in refused.json["errors"]}
    assert refused.json["violations"] == len(refused.json["errors"])
    assert versions(publisher, flow) == []


@pytest.mark.parametrize("version", ["", "1.", "v", "V1", "1.2.3.4.5", "1234567", "v1.x", "v1\n", "v1 ", "٣"])
def test_what_is_no_version(publisher: Client, flow: str, version: str) -> None:
    assert release(publisher, flow, version).status == 422
    assert withdraw(publisher, flow, version=version).status == 422
    assert publisher.get(f"{FLOWS}/{flow}/published?version={quote(version)}").status == 400


def test_the_same_version_again_only_adds_bits(publisher: Client, flow: str) -> None:
    first = release(publisher, flow).json
    again = release(publisher, flow, platform=2).json
    assert again["releaseStatus"] == 5
    assert {**again, "releaseStatus": 1, "updatedAt": ""} == {**first, "updatedAt": ""}
    # WHEN the draft says something else THEN that version is closed
    rewrite(publisher, flow, graph("bye"))
    refused = release(publisher, flow, platform=4)
    assert (refused.status, refused.json["code"]) == (409, "flow.version_changed")
    assert [one["releaseStatus"] for one in versions(publisher, flow)] == [5]
    # The same data in another order of its keys is the same data.
    rewrite(publisher, flow, dict(reversed(graph(city="string").items())))
    assert release(publisher, flow, platform=4).json["releaseStatus"] == 37


def test_a_version_is_frozen(publisher: Client, flow: str) -> None:
    release(publisher, flow)
    before = publisher.get(f"{FLOWS}/{flow}/published").json
    assert (before["name"], before["description"]) == ("Greeter", "Says it.")
    assert before["inputSchema"]["properties"]["city"]["type"] == "string"
    rewrite(publisher, flow, graph("bye"))
    assert publisher.get(f"{FLOWS}/{flow}/published").json == before
    with process.database().reads() as session:
        found = FlowDAO(session).get_latest_published_flow_by(int(flow))
    assert found is not None
    assert (found.data, found.version, found.checksum) == (graph(city="string"), "v1", before["checksum"])


@pytest.mark.parametrize("version", ["v1.0", "1", "1.0.0", "v1.0.0.0", "v01"])
def test_another_spelling_is_the_same_version(publisher: Client, flow: str, version: str) -> None:
    release(publisher, flow, "v1")
    refused = release(publisher, flow, version)
    assert (refused.status, refused.json["code"]) == (409, "flow.version_exists")
    assert publisher.get(f"{FLOWS}/{flow}/published?version={version}").json["version"] == "v1"


def test_versions_compare_as_numbers(publisher: Client, flow: str) -> None:
    for version in ("v1.2", "v1.10.1", "v1.2.9", "v0.9", "v1.2.10", "2"):
        release(publisher, flow, version)
    assert latest(publisher, flow) == "2"
    withdraw(publisher, flow, version="2")
    assert latest(publisher, flow) == "v1.10.1"
    first = publisher.get(f"{FLOWS}/{flow}/versions?limit=4").json
    rest = publisher.get(f"{FLOWS}/{flow}/versions?limit=4&cursor={first['nextCursor']}").json
    shown = [one["version"] for one in first["items"] + rest["items"]]
    assert shown == ["2", "v1.10.1", "v1.2.10", "v1.2.9", "v1.2", "v0.9"]
    assert rest["nextCursor"] is None
    for version, expected in (("v1.2", "v1.2"), ("1.2.0", "v1.2"), ("v1.3", None), ("2", None)):
        found = publisher.get(f"{FLOWS}/{flow}/published?version={version}")
        assert (found.json.get("version"), found.status) == (expected, 200 if expected else 404)


def test_the_draft_is_never_the_latest(publisher: Client, flow: str) -> None:
    assert latest(publisher, flow) == "flow.not_published"
    with process.database().reads() as session:
        assert FlowDAO(session).get_latest_published_flow_by(int(flow)) is None
        for version in ("", "v", "draft"):
            with pytest.raises(Invalid):
                FlowDAO(session).get_latest_published_flow_by(int(flow), version)


# -- comparisons ---------------------------------------------------------------------------------------------------


def test_a_comparison_is_a_frozen_copy_that_is_never_the_latest(publisher: Client, flow: str) -> None:
    release(publisher, flow, "v1")
    place = f"{FLOWS}/{flow}/comparisons/v9"
    made = publisher.put(place)
    assert made.status == 200, made.body
    rewrite(publisher, flow, graph("bye"))
    found = publisher.get(place)
    assert found.json == {**made.json, "data": graph(city="string")}
    assert found.headers["etag"] == made.headers["etag"]
    assert latest(publisher, flow) == "v1"
    assert [one["version"] for one in versions(publisher, flow)] == ["v1"]
    named = publisher.get(f"{FLOWS}/{flow}/published?version=v9")
    assert (named.status, named.json["checksum"]) == (200, made.json["checksum"])
    withdraw(publisher, flow)
    assert latest(publisher, flow) == "flow.not_published"
    assert publisher.delete(place).status == 204
    assert publisher.get(place).status == publisher.delete(place).status == 404
    assert publisher.get(f"{FLOWS}/{flow}/published?version=v9").status == 404


def test_a_comparison_may_hold_other_data_and_be_replaced(publisher: Client, flow: str) -> None:
    place = f"{FLOWS}/{flow}/comparisons/v9"
    made = publisher.put(place, {"data": {"nodes": []}})
    assert made.json["warnings"]
    tag = {"If-Match": made.headers["etag"]}
    assert publisher.put(place, {"data": graph("two")}, headers=tag).json["warnings"] == []
    assert publisher.get(place).json["data"] == graph("two")
    assert publisher.put(place, {"data": graph("three")}, headers=tag).status == 412
    assert publisher.delete(place, headers=tag).status == 412
    # One that is not there yet has no tag to match.
    assert publisher.put(f"{FLOWS}/{flow}/comparisons/v8", headers=tag).status == 412


def test_a_number_is_that_of_a_version_or_of_a_comparison(publisher: Client, flow: str) -> None:
    release(publisher, flow, "v1")
    assert publisher.put(f"{FLOWS}/{flow}/comparisons/v2").status == 200
    for answer in (
        publisher.put(f"{FLOWS}/{flow}/comparisons/v1"),
        publisher.put(f"{FLOWS}/{flow}/comparisons/v1.0"),
        publisher.put(f"{FLOWS}/{flow}/comparisons/2.0"),
        release(publisher, flow, "v2"),
        release(publisher, flow, "2"),
    ):
        assert (answer.status, answer.json["code"]) == (409, "flow.version_exists"), answer.body
    for answer in (
        publisher.get(f"{FLOWS}/{flow}/comparisons/v1"),
        publisher.delete(f"{FLOWS}/{flow}/comparisons/v1"),
        withdraw(publisher, flow, version="v2"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "flow.version_not_found"), answer.body
    assert publisher.put(f"{FLOWS}/{flow}/comparisons/latest").json["code"] == "flow.version"
    assert publisher.get(f"{FLOWS}/{flow}/comparisons/latest").json["code"] == "flow.version"


def test_there_are_so_many_comparisons_at_most(publisher: Client, flow: str, monkeypatch: Any) -> None:
    from chalicelib.flows import comparisons

    monkeypatch.setattr(comparisons, "MOST_COMPARISONS", 2)
    for version in ("v1", "v2", "v2"):
        assert publisher.put(f"{FLOWS}/{flow}/comparisons/{version}").status == 200
    refused = publisher.put(f"{FLOWS}/{flow}/comparisons/v3")
    assert (refused.status, refused.json["code"]) == (409, "flow.too_many_comparisons")


# -- licences ------------------------------------------------------------------------------------------------------


def test_the_owner_gets_a_licence_with_the_first_publication_and_no_second(
    publisher: Client, flow: str, acme: str
) -> None:
    place = f"{FLOWS}/{flow}/licenses"
    assert publisher.get(place).json["items"] == []
    release(publisher, flow)
    [given] = publisher.get(place).json["items"]
    assert (given["aliasId"], given["status"], given["flowId"]) == (acme, 1, flow)
    assert publisher.put(f"{place}/{acme}", {"status": 0}).json["status"] == 0
    release(publisher, flow, "v2")
    assert [one["status"] for one in publisher.get(place).json["items"]] == [0]


def test_a_licence_opens_what_is_published_and_nothing_else(
    publisher: Client, stranger: Client, flow: str, acme: str
) -> None:
    release(publisher, flow)
    publisher.put(f"{FLOWS}/{flow}/comparisons/v9")
    place = f"{FLOWS}/{flow}/published"
    assert stranger.get(place).json["code"] == "flow.not_found"
    given = publisher.put(f"{FLOWS}/{flow}/licenses/other-{acme}", {"status": 1})
    assert (given.status, given.json["aliasId"]) == (200, f"other-{acme}")
    assert stranger.get(place).json == publisher.get(place).json
    assert stranger.get(f"{place}?version=v9").json["code"] == "flow.not_published"
    for part in ("", "/versions", "/licenses", "/comparisons/v9"):
        assert stranger.get(f"{FLOWS}/{flow}{part}").json["code"] == "flow.not_found"
    assert stranger.put(f"{FLOWS}/{flow}/licenses/{acme}", {"status": 0}).status == 404


def test_a_licence_is_given_to_an_app_that_there_is(publisher: Client, flow: str) -> None:
    refused = publisher.put(f"{FLOWS}/{flow}/licenses/nobody-at-all", {"status": 1})
    assert (refused.status, refused.json["code"]) == (404, "app.not_found")
    assert publisher.put(f"{FLOWS}/{flow}/licenses/admin", {"status": 2}).status == 422


def test_licences_are_listed_newest_first(
    deployment: Deployment, publisher: Client, flow: str, acme: str
) -> None:
    for name in ("a", "b", "c"):
        deployment.client.post("/api/v1/apps", {"aliasId": f"{name}-{acme}", "name": name})
        publisher.put(f"{FLOWS}/{flow}/licenses/{name}-{acme}", {"status": 1})
    first = publisher.get(f"{FLOWS}/{flow}/licenses?limit=2").json
    rest = publisher.get(f"{FLOWS}/{flow}/licenses?limit=2&cursor={first['nextCursor']}").json
    assert [one["aliasId"][0] for one in first["items"] + rest["items"]] == ["c", "b", "a"]


# -- on the hot cache ----------------------------------------------------------------------------------------------


def runs(cache: HotCache, flow_id: int, alias: str = "app-11") -> bool:
    """What another warm process says to a run, at the beginning of a request."""
    cache.refresh()
    try:
        licensing.check(cache, alias, flow_id)
    except Forbidden as refused:
        assert refused.code == "flow.not_licensed"
        return False
    return True


def test_a_licence_is_changed_by_who_saw_it(
    publisher: Client, stranger: Client, flow: str, acme: str
) -> None:
    place = f"{FLOWS}/{flow}/licenses/other-{acme}"
    assert publisher.put(place, {"status": 1}, headers={"If-Match": "*"}).status == 412
    tag = publisher.put(place, {"status": 1}).headers["etag"]
    assert publisher.put(place, {"status": 0}, headers={"If-Match": tag}).status == 200
    stale = publisher.put(place, {"status": 1}, headers={"If-Match": tag})
    assert (stale.status, stale.json["code"]) == (412, "precondition.failed")


def test_a_licence_that_is_taken_away_refuses_the_next_run_in_every_warm_process(
    database: DatabaseService,
) -> None:
    put_apps(database)
    flow_id = put_flow(database)
    first, second = warm_cache(database), warm_cache(database)
    assert not runs(first, flow_id)
    publish(database, flow_id)
    assert runs(first, flow_id)
    assert runs(second, flow_id)
    assert not runs(second, flow_id, "app-22")
    for status in (0, 1):
        for app_id, alias in ((OWNER, "app-11"), (OTHER, "app-22")):
            database.run(
                lambda session, alias=alias, status=status: licensing.put(
                    session, caller(), flow_id, alias, status
                )
            )
            assert [runs(cache, flow_id, alias) for cache in (first, second)] == [bool(status)] * 2, app_id


def test_a_disabled_app_runs_nothing(database: DatabaseService) -> None:
    from chalicelib.apps import service

    put_apps(database)
    flow_id = put_flow(database)
    publish(database, flow_id)
    cache = warm_cache(database)
    assert runs(cache, flow_id)
    for status in (0, 1):
        database.run(
            lambda session, status=status: service.patch_app(
                session, caller(OTHER), "app-11", {"status": status, "name": "x"}, None
            )
        )
        assert runs(cache, flow_id) == bool(status)
    with database.reads() as session:
        found = LicenseDAO(session).get_by(flow_id, "app-11")
        assert found is not None
        assert (found.app_id, found.is_enabled, found.app_is_enabled) == (OWNER, True, True)
        assert LicenseDAO(session).get_by(flow_id, "app-22") is None


def test_publishing_is_seen_by_the_next_request_and_drops_no_other_flow(database: DatabaseService) -> None:
    put_apps(database)
    one, other = put_flow(database), put_flow(database, data=graph("other"))
    for flow_id in (one, other):
        publish(database, flow_id)
    cache = warm_cache(database)

    def seen(flow_id: int) -> str | None:
        cache.refresh()
        found = catalog.published(cache, flow_id)
        return None if found is None else found.version

    assert (seen(one), seen(other)) == ("v1", "v1")
    kept = cache.get(("flow_published", other, None))
    for change, expected in (
        (lambda: publish(database, one, "v2"), "v2"),
        (lambda: take_off(database, one, version="v2"), "v1"),
        (lambda: take_off(database, one), None),
    ):
        change()
        assert seen(one) == expected
        assert cache.get(("flow_published", other, None)) is kept


# -- what the latest costs -----------------------------------------------------------------------------------------

MANY = 10_000


def many_versions(database: DatabaseService, flow_id: int) -> None:
    """Add ten thousand versions, of which the upper half was taken off."""
    rows = [
        {
            "group_id": flow_id, "version": f"v{number}.{number % 7}", "name": "Many", "app_id": str(OWNER),
            "version_key": version_key(f"v{number}.{number % 7}"), "release_data": "{}",
            "release_status": 1 if number <= MANY // 2 else 2,
        }
        for number in range(1, MANY + 1)
    ]  # fmt: skip
    with database.connection() as connection:
        for start in range(0, MANY, 2_500):
            connection.execute(insert(Flow), rows[start : start + 2_500])


def test_the_latest_is_one_look_up_however_many_versions_there_are(mysql_url: str) -> None:
    from tests.conftest import create_schema

    database = create_schema(mysql_url)
    put_apps(database)
    flow_id = put_flow(database)
    many_versions(database, flow_id)
    recorder, wanted = Recorder(), {None: "v5000.2", "v3.3": "v3.3", "v9999.3": None}
    with recorder.watching(database.engine), database.reads() as session:
        found = {one: FlowDAO(session).get_latest_published_flow_by(flow_id, one) for one in wanted}
        LicenseDAO(session).get_by(flow_id, "app-11")
    assert {one: flow.version if flow else None for one, flow in found.items()} == wanted
    costs = [rows_read(database.engine, sent) for sent in recorder.sent]
    assert len(costs) == 4
    # The draft, and one entry of the index with its row.
    assert max(costs) <= 4, costs
    assert all(explained(database, flow_id, version) <= 2 for version in wanted)
    database.close()


def explained(database: DatabaseService, flow_id: int, version: str | None) -> int:
    """The rows that the server has read for the statement, by its own account."""
    query = published_query(flow_id, version)
    with database.connection() as connection:
        text = query.compile(connection, compile_kwargs={"literal_binds": True})
        if "MariaDB" not in str(connection.exec_driver_sql("SELECT VERSION()").scalar()):
            return 0
        plan = connection.exec_driver_sql(f"ANALYZE FORMAT=TRADITIONAL {text}".replace("%", "%%")).mappings()
        return sum(int(float(row["r_rows"] or 0)) for row in plan)


def test_a_status_is_what_the_bits_say(database: DatabaseService) -> None:
    """Rows that are brought over carry bits alone."""
    put_apps(database)
    flow_id = put_flow(database)
    rows = [
        {"group_id": flow_id, "version": f"v{number}", "version_key": version_key(f"v{number}"), "name": "x",
         "app_id": "1", "release_data": "{}", "release_status": status, "tag": tag}
        for number, (status, tag) in enumerate([(1, 0), (8, 0), (32, 0), (0, 0), (82, 0), (1, 1)], 1)
    ]  # fmt: skip
    with database.connection() as connection:
        connection.execute(insert(Flow), rows)
    with database.reads() as session:
        query = select(Flow.status).where(Flow.group_id == flow_id, Flow.version != "")
        assert list(session.scalars(query.order_by(Flow.version_key))) == [1, 1, 1, 0, 0, 0]
        found = FlowDAO(session).get_latest_published_flow_by(flow_id)
        assert found is not None
        assert found.version == "v3"


def test_a_run_asks_the_database_for_nothing_but_the_versions_while_it_is_warm(
    database: DatabaseService,
) -> None:
    put_apps(database)
    flow_id = put_flow(database)
    publish(database, flow_id)
    cache = warm_cache(database)
    catalog.find_usable(cache, caller(), flow_id)
    assert runs(cache, flow_id)
    sent: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _u, text, *_: sent.append(text))
    cache.refresh()
    licensing.check(cache, "app-11", flow_id)
    assert catalog.find_usable(cache, caller(), flow_id).version == "v1"
    assert len(sent) == 1
    assert "cache_version" in sent[0]
