"""Many at once, over HTTP, on four API processes: one winner, one effect, nothing lost, no broken graph."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest

from infra.local.stack import LocalStack
from tests import databases
from tests.e2e.conftest import UNLIMITED
from tests.e2e.history.packages import package
from tests.e2e.history.workload import Answer, Client
from tests.least_privilege.watched import WatchedStack

pytestmark = pytest.mark.slow

AT_ONCE = 8
ROUNDS = 4
API_PROCESSES = 4
_numbers = count(1)


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack with four API processes, on each kind of database."""
    with ExitStack() as opened:
        url = opened.enter_context(databases.new_database()) if request.param == "mysql" else None
        folder = tmp_path_factory.mktemp("busy") / "local"
        if url is None:
            url = f"sqlite:///{folder.parent}/hotplug.db"
        yield opened.enter_context(
            WatchedStack(
                folder,
                database_url=url,
                api_processes=API_PROCESSES,
                schedules=False,
                environment=UNLIMITED,
            )
        )


@pytest.fixture
def clients(busy: LocalStack) -> Iterator[list[Client]]:
    made = [Client(busy.url, busy.admin_credential or "") for _ in range(AT_ONCE)]
    yield made
    for client in made:
        client.close()


@pytest.fixture
def client(clients: list[Client]) -> Client:
    return clients[0]


def at_once(*works: Callable[[], Answer]) -> list[Answer]:
    """Send all at the same moment and return the answers in their order."""
    barrier = threading.Barrier(len(works))
    answers: dict[int, Answer] = {}

    def run(number: int, work: Callable[[], Answer]) -> None:
        barrier.wait(30)
        answers[number] = work()

    threads = [threading.Thread(target=run, args=one) for one in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return [answers[number] for number in range(len(works))]


def outcomes(answers: list[Answer]) -> Counter[tuple[int, str]]:
    return Counter((answer.status, answer.code) for answer in answers)


def new_name() -> str:
    return f"race-{next(_numbers)}"


def install(client: Client, name: str, version: str = "1.0.0", **options: Any) -> Answer:
    return client.upload("POST", "/plugins/install", package(name, version, "python", **options))


def installed(client: Client, name: str, **options: Any) -> str:
    answer = install(client, name, **options)
    assert answer.status == 201, answer.response.text
    return str(answer.body["pluginId"])


def named(client: Client, name: str) -> list[dict[str, Any]]:
    answer = client.send("GET", "/plugins", params={"q": name, "limit": "100"})
    return [item for item in answer.body["items"] if item["name"] == name]


# -- installing ------------------------------------------------------------------------------------------------------


def test_of_eight_packages_of_one_name_one_is_installed(clients: list[Client]) -> None:
    for _ in range(ROUNDS):
        name = new_name()
        answers = at_once(
            *[partial(install, c, name, f"1.0.{n}", note=str(n)) for n, c in enumerate(clients)]
        )
        assert outcomes(answers) == {(201, ""): 1, (409, "plugin.already_installed"): AT_ONCE - 1}
        [winner] = [answer.body for answer in answers if answer.status == 201]
        [row] = named(clients[0], name)
        assert (row["pluginId"], row["version"], row["checksum"]) == (
            winner["pluginId"], winner["version"], winner["checksum"],
        )  # fmt: skip
        assert {answer.body.get("pluginId") for answer in answers} == {winner["pluginId"]}


def test_eight_different_packages_of_one_version_bind_it_once(clients: list[Client]) -> None:
    """The same name and version with other bytes: whoever comes first binds the number for ever."""
    name = new_name()
    answers = at_once(*[lambda c=c, n=n: install(c, name, note=str(n)) for n, c in enumerate(clients)])
    assert Counter(answer.status for answer in answers) == {201: 1, 409: AT_ONCE - 1}
    [row] = named(clients[0], name)
    assert clients[0].send("DELETE", f"/plugins/{row['pluginId']}").status == 204
    again = [install(clients[0], name, note=str(n)) for n in range(AT_ONCE)]
    # Only the bytes that won may come back under this number.
    assert again[[answer.status for answer in answers].index(201)].status in (200, 201)
    assert Counter(answer.status for answer in again) == {201: 1, 409: AT_ONCE - 1}


def test_of_eight_identical_installs_one_makes_the_plugin_and_all_get_it(clients: list[Client]) -> None:
    for _ in range(ROUNDS):
        name = new_name()
        answers = at_once(*[partial(install, c, name) for c in clients])
        assert outcomes(answers) == {(201, ""): 1, (200, ""): AT_ONCE - 1}
        assert len({answer.body["pluginId"] for answer in answers}) == 1
        assert len(named(clients[0], name)) == 1


def test_one_idempotency_key_has_one_effect_and_one_answer(clients: list[Client]) -> None:
    for _ in range(ROUNDS):
        name = new_name()
        key = {"Idempotency-Key": f"key-{name}"}
        content = package(name, "1.0.0", "python")
        send = [partial(c.upload, "POST", "/plugins/install", content, headers=key) for c in clients]
        answers = at_once(*send)
        kinds = outcomes(answers)
        assert set(kinds) <= {(201, ""), (409, "idempotency.in_progress")} and kinds[201, ""] >= 1, kinds
        later = send[0]()
        told = [answer for answer in [*answers, later] if answer.status == 201]
        assert all(answer.body == later.body for answer in told)
        assert len({(one.response.headers["etag"], one.response.headers["location"]) for one in told}) == 1
        # Exactly one request did it; every other answer was a replay.
        fresh = [
            one for one in answers if one.status == 201 and "idempotency-replayed" not in one.response.headers
        ]
        assert len(fresh) == 1
        assert later.response.headers["idempotency-replayed"] == "true"
        history = clients[0].send("GET", f"/plugins/{later.body['pluginId']}/history").body["items"]
        assert [line["action"] for line in history] == ["install"]


def test_one_idempotency_key_runs_a_plugin_once(clients: list[Client]) -> None:
    plugin_id = installed(clients[0], new_name())
    assert clients[0].send("POST", f"/plugins/{plugin_id}/enable").status == 200
    key = {"Idempotency-Key": "run-once"}
    answers = at_once(
        *[
            lambda c=c: c.send("POST", f"/plugins/{plugin_id}/execute", json={"params": {}}, headers=key)
            for c in clients
        ]
    )
    told = [answer.response.text for answer in answers]
    assert set(outcomes(answers)) <= {(200, ""), (409, "idempotency.in_progress")}, told
    assert len({answer.body["executionId"] for answer in answers if answer.status == 200}) == 1, told
    runs = clients[0].send("GET", f"/plugins/{plugin_id}/executions").body["items"]
    assert len(runs) == 1


# -- updating --------------------------------------------------------------------------------------------------------


def test_of_eight_writers_who_saw_the_same_state_one_writes(clients: list[Client]) -> None:
    plugin_id = installed(clients[0], new_name())
    path = f"/plugins/{plugin_id}"
    for number in range(ROUNDS):
        tag = clients[0].send("GET", path).response.headers["etag"]
        answers = at_once(
            *[
                partial(
                    c.send, "PUT", f"{path}/grants", json={"network": [f"h{number}-{n}.example.com"]},
                    headers={"If-Match": tag},
                )
                for n, c in enumerate(clients)
            ]
        )  # fmt: skip
        assert outcomes(answers) == {(200, ""): 1, (412, "precondition.failed"): AT_ONCE - 1}
        [winner] = [answer.body for answer in answers if answer.status == 200]
        assert clients[0].send("GET", path).body == winner


def test_of_eight_config_writers_who_saw_the_same_values_one_writes(clients: list[Client]) -> None:
    path = f"/plugins/{installed(clients[0], new_name())}/configs"
    made = clients[0].send("POST", path, json={"name": "main", "configItems": {"value": "first"}})
    own = f"{path}/{made.body['configId']}"
    for number in range(ROUNDS):
        tag = clients[0].send("GET", own).response.headers["etag"]
        answers = at_once(
            *[
                partial(
                    c.send,
                    "PUT",
                    own,
                    json={"configItems": {"value": f"{number}-{n}"}},
                    headers={"If-Match": tag},
                )
                for n, c in enumerate(clients)
            ]
        )
        assert outcomes(answers) == {(200, ""): 1, (412, "precondition.failed"): AT_ONCE - 1}
        [winner] = [answer.body for answer in answers if answer.status == 200]
        assert clients[0].send("GET", own).body == winner


def test_without_a_condition_no_write_is_lost_either(clients: list[Client]) -> None:
    """Each of the eight grants is a generation of its own: none was made on a state that was over."""
    plugin_id = installed(clients[0], new_name())
    answers = at_once(
        *[
            lambda c=c, n=n: c.send(
                "PUT", f"/plugins/{plugin_id}/grants", json={"network": [f"h{n}.example.com"]}
            )
            for n, c in enumerate(clients)
        ]
    )
    assert outcomes(answers) == {(200, ""): AT_ONCE}
    assert sorted(int(answer.body["generation"]) for answer in answers) == list(range(2, AT_ONCE + 2))
    last = max(answers, key=lambda answer: int(answer.body["generation"]))
    assert clients[0].send("GET", f"/plugins/{plugin_id}").body == last.body


def test_of_eight_updates_to_one_state_each_either_holds_or_is_told(clients: list[Client]) -> None:
    """Versions that rise in every order: what was acknowledged is in the history, what was refused is not."""
    name = new_name()
    plugin_id = installed(clients[0], name)
    contents = [package(name, f"1.{n + 1}.0", "python") for n in range(AT_ONCE)]
    answers = at_once(
        *[
            lambda c=c, n=n: c.upload("PUT", f"/plugins/{plugin_id}", contents[n])
            for n, c in enumerate(clients)
        ]
    )
    refused = {(409, "plugin.changed"), (422, "plugin.version_not_raised")}
    assert set(outcomes(answers)) <= {(200, ""), *refused}
    done = [answer.body for answer in answers if answer.status == 200]
    lines = clients[0].send("GET", f"/plugins/{plugin_id}/history").body["items"]
    updated = sorted(line["version"] for line in lines if line["action"] == "update")
    assert updated == sorted(one["version"] for one in done) and done
    assert sorted(int(one["generation"]) for one in done) == list(range(2, len(done) + 2))
    assert clients[0].send("GET", f"/plugins/{plugin_id}").body["version"] == max(updated)


# -- the graph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taking_away", ["disable", "uninstall", "update"])
@pytest.mark.parametrize("first", ["enable", "take"])
def test_a_race_of_enable_and_take_away_breaks_no_graph(
    clients: list[Client], taking_away: str, first: str
) -> None:
    for _ in range(ROUNDS):
        needed_name, name = new_name(), new_name()
        needed = installed(clients[0], needed_name)
        dependent = installed(clients[0], name, needs=(f"{needed_name}@~1.0.0",))
        assert clients[0].send("POST", f"/plugins/{needed}/enable").status == 200

        def enable(plugin_id: str = dependent) -> Answer:
            return clients[0].send("POST", f"/plugins/{plugin_id}/enable")

        def take(plugin_id: str = needed, needed_name: str = needed_name) -> Answer:
            if taking_away == "disable":
                return clients[1].send("POST", f"/plugins/{plugin_id}/disable")
            if taking_away == "uninstall":
                return clients[1].send("DELETE", f"/plugins/{plugin_id}")
            return clients[1].upload("PUT", f"/plugins/{plugin_id}", package(needed_name, "2.0.0", "python"))

        works = [enable, take] if first == "enable" else [take, enable]
        answers = dict(zip(works, at_once(*works), strict=True))
        assert unbroken(clients[0], dependent, needed)
        enabled, taken = answers[enable], answers[take]
        # One of them wins; they can both lose only where the plugin moved under the one that loads outside the lock.
        assert [enabled.status == 200, taken.status in (200, 204)].count(True) <= 1
        assert (enabled.status, enabled.code) in {(200, ""), (422, "plugin.dependencies")}
        assert (taken.status, taken.code) in {
            (200, ""), (204, ""), (409, "plugin.has_dependents"), (409, "plugin.breaks_dependents"),
        }  # fmt: skip
        assert enabled.status == 200 or taken.status in (200, 204)


def unbroken(client: Client, dependent: str, needed: str) -> bool:
    """Whether, if the dependent is enabled, what it needs is there, enabled and in an admitted version."""
    if client.send("GET", f"/plugins/{dependent}").body["status"] != "enabled":
        return True
    answer = client.send("GET", f"/plugins/{needed}")
    return (
        answer.status == 200
        and answer.body["status"] == "enabled"
        and answer.body["version"].startswith("1.0.")
    )


def test_a_chain_that_is_switched_on_and_off_at_once_is_never_broken(clients: list[Client]) -> None:
    names = [new_name() for _ in range(3)]
    ids = [installed(clients[0], names[0])]
    ids += [installed(clients[0], name, needs=(f"{need}@*",)) for need, name in pairwise(names)]
    for _ in range(ROUNDS):
        works = [
            lambda c=c, i=i, verb=verb: c.send("POST", f"/plugins/{ids[i]}/{verb}")
            for c, (i, verb) in zip(
                clients, [(i, verb) for i in range(3) for verb in ("enable", "disable")], strict=False
            )
        ]
        at_once(*works)
        status = [clients[0].send("GET", f"/plugins/{one}").body["status"] == "enabled" for one in ids]
        assert status == sorted(status, reverse=True), f"{status}: a link is enabled over one that is not"
        for one in ids:
            clients[0].send("POST", f"/plugins/{one}/enable")


# -- configs, credentials, secrets -----------------------------------------------------------------------------------


def test_of_eight_configs_that_want_to_be_the_default_one_is(clients: list[Client]) -> None:
    path = f"/plugins/{installed(clients[0], new_name())}/configs"
    answers = at_once(
        *[
            lambda c=c, n=n: c.send(
                "POST", path, json={"name": f"c{n}", "configItems": {"value": str(n)}, "isDefault": True}
            )
            for n, c in enumerate(clients)
        ]
    )
    assert outcomes(answers) == {(201, ""): AT_ONCE}
    items = clients[0].send("GET", path, params={"limit": "100"}).body["items"]
    assert len(items) == AT_ONCE
    assert [item["isDefault"] for item in items].count(True) == 1


def test_of_eight_configs_of_one_name_one_is_made(clients: list[Client]) -> None:
    path = f"/plugins/{installed(clients[0], new_name())}/configs"
    body = {"name": "same", "configItems": {"value": "x"}}
    answers = at_once(*[lambda c=c: c.send("POST", path, json=body) for c in clients])
    assert outcomes(answers) == {(201, ""): 1, (409, "config.name_taken"): AT_ONCE - 1}


def test_an_app_never_gets_more_credentials_than_it_may_have(clients: list[Client]) -> None:
    alias = new_name()
    assert clients[0].send("POST", "/apps", json={"name": "Full", "aliasId": alias}).status == 201
    path, body = f"/apps/{alias}/credentials", {"role": "viewer", "label": "one of many"}
    for _ in range(48):
        assert clients[0].send("POST", path, json=body).status == 201
    answers = at_once(*[lambda c=c: c.send("POST", path, json=body) for c in clients])
    assert outcomes(answers) == {(201, ""): 2, (409, "credential.too_many"): AT_ONCE - 2}


def test_of_eight_writers_of_one_secret_one_replaces_what_it_saw(clients: list[Client]) -> None:
    alias = new_name()
    assert clients[0].send("POST", "/apps", json={"name": "Secrets", "aliasId": alias}).status == 201
    path = f"/apps/{alias}/secrets/token"
    first = clients[0].send("PUT", path, json={"value": "first"})
    assert first.status in (200, 201), first.response.text
    tag = first.response.headers["etag"]
    answers = at_once(
        *[
            lambda c=c, n=n: c.send("PUT", path, json={"value": f"v{n}"}, headers={"If-Match": tag})
            for n, c in enumerate(clients)
        ]
    )
    assert Counter(answer.status for answer in answers) == {200: 1, 412: AT_ONCE - 1}
