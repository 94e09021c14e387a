"""Plugins that need each other: what one may not do while another needs it, and in which order things end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.core import process
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError
from chalicelib.core.hotcache import HotCache
from chalicelib.plugins import graph, lifecycle, uploads
from chalicelib.plugins.install_models import PluginDependency
from chalicelib.plugins.models import ENABLED, Plugin
from chalicelib.plugins.services import Services
from tests.http import Client, Response
from tests.integration.plugin_world import PLUGINS, World, package, world


@pytest.fixture
def here(sqlite_url: str) -> Iterator[World]:
    with world(sqlite_url) as made:
        yield made


@pytest.fixture
def stranger(here: World) -> Client:
    """An admin of another app."""
    return here.publisher("stranger", "admin")


def rules(refused: Response) -> list[tuple[str, str]]:
    assert (refused.status, refused.json["code"]) == (422, "plugin.dependencies"), refused.body
    return [(one["pointer"], one["rule"]) for one in refused.json["errors"]]


def dependents(refused: Response, code: str = "plugin.has_dependents") -> tuple[list[str], int]:
    """Return the names that a refusal gives away, and how many it only counts."""
    assert (refused.status, refused.json["code"]) == (409, code), refused.body
    return [one["name"] for one in refused.json["dependents"]], refused.json["dependentsElsewhere"]


def shared(here: World, client: Client, *arguments: str, **members: Any) -> str:
    """Install, enable and share a plugin."""
    plugin_id = here.enabled(*arguments, client=client, **members)
    assert client.patch(f"{PLUGINS}/{plugin_id}", {"visibility": "shared"}).status == 200
    return plugin_id


# -- what must be there -------------------------------------------------------------------------------------------


def test_every_unmet_need_is_named_and_nothing_is_stored(here: World) -> None:
    here.installed("lib-old", "1.0.0")
    here.installed("lib-good", "1.0.0")
    needs = [
        "lib-gone@^1",
        "lib-old@^2",
        "lib-good@^1",
        {"name": "lib-nice", "range": "^1", "optional": True},
    ]
    before = here.everything()
    refused = here.install(package("needy", dependencies=needs))
    assert rules(refused) == [
        ("/dependencies/0", "dependency.missing"),
        ("/dependencies/1", "dependency.version"),
    ]
    assert here.everything() == before


def test_an_optional_need_may_be_missing_or_disabled_but_not_of_a_wrong_version(here: World) -> None:
    optional = [{"name": "extra", "range": "^1", "optional": True}]
    here.enabled("needy", dependencies=optional)
    extra = here.installed("extra", "1.0.0")
    other = here.enabled("other", dependencies=optional)
    assert here.act(extra, "enable").status == 200
    # It does not hold what it merely likes to have.
    assert here.act(extra, "disable").status == 200
    assert here.get(other)["status"] == "enabled"
    assert here.update(extra, package("extra", "2.0.0")).status == 200
    assert rules(here.install(package("third", dependencies=optional))) == [
        ("/dependencies/0", "dependency.version")
    ]


def test_what_is_needed_is_enabled_first(here: World) -> None:
    lib = here.installed("lib-one", "1.2.0")
    needy = here.installed("needy", dependencies=["lib-one@^1"])
    before = here.everything()
    assert rules(here.act(needy, "enable")) == [("/dependencies/0", "dependency.disabled")]
    assert (here.everything(), here.loads()) == (before, [])
    here.act(lib, "enable")
    assert here.act(needy, "enable").status == 200


def test_what_is_needed_may_go_while_the_dependent_loads(here: World) -> None:
    lib = here.enabled("lib-one")
    needy = here.installed("needy", dependencies=["lib-one@^1"])

    def lib_goes(event: dict[str, Any]) -> dict[str, Any]:
        assert here.act(lib, "disable").status == 200
        return {"ok": True}

    here.replies.append(lib_goes)
    assert rules(here.act(needy, "enable")) == [("/dependencies/0", "dependency.disabled")]
    assert here.get(needy)["status"] == "disabled"


def test_an_update_that_needs_more_must_find_it(here: World) -> None:
    needy = here.enabled("needy")
    version = package("needy", "2.0.0", dependencies=["lib-one@^1"])
    before = here.everything()
    assert rules(here.update(needy, version)) == [("/dependencies/0", "dependency.missing")]
    assert here.everything() == before
    lib = here.installed("lib-one")
    # The plugin is enabled: what it needs must be, too.
    assert rules(here.update(needy, version)) == [("/dependencies/0", "dependency.disabled")]
    here.act(lib, "enable")
    assert here.update(needy, version).status == 200
    assert [(row.plugin_id, row.name, row.range) for row in here.rows(PluginDependency)] == [
        (needy, "lib-one", "^1")
    ]
    # The version before needed nothing: going back lets go.
    assert here.act(needy, "rollback").status == 200
    assert here.rows(PluginDependency) == []
    assert here.act(lib, "disable").status == 200
    assert rules(here.act(needy, "rollback")) == [("/dependencies/0", "dependency.disabled")]


def test_a_circle_is_refused_with_its_way(here: World) -> None:
    first = here.installed("aa")
    here.installed("bb", dependencies=["aa@^1"])
    here.installed("cc", dependencies=["bb@^1"])
    before = here.everything()
    refused = here.update(first, package("aa", "1.1.0", dependencies=["cc@^1"]))
    assert rules(refused) == [("/dependencies/0", "dependency.cycle")]
    assert refused.json["errors"][0]["message"] == "needs itself: aa → cc → bb → aa"
    assert here.everything() == before


def test_an_optional_need_of_what_is_yet_to_come_closes_a_circle(here: World) -> None:
    here.installed("bb", dependencies=[{"name": "aa", "range": "^1", "optional": True}])
    refused = here.install(package("aa", dependencies=["bb@^1"]))
    assert refused.json["errors"][0]["message"] == "needs itself: aa → bb → aa"


def test_the_same_name_in_another_app_closes_no_circle(here: World, stranger: Client) -> None:
    here.enabled("aa", client=stranger)
    shared(here, stranger, "bb", dependencies=["aa@^1"])
    here.installed("aa", dependencies=["bb@^1"])


# -- what is needed ------------------------------------------------------------------------------------------------

TAKING: dict[str, Callable[[World, str, str], Response]] = {
    "disable": lambda here, plugin_id, query: here.act(plugin_id, f"disable{query}"),
    "uninstall": lambda here, plugin_id, query: here.client.delete(f"{PLUGINS}/{plugin_id}{query}"),
}


@pytest.mark.parametrize("taking", TAKING)
def test_what_is_needed_is_not_taken_away(here: World, taking: str) -> None:
    lib = here.enabled("lib-one")
    here.enabled("needy", dependencies=["lib-one@^1"])
    here.enabled("distant", dependencies=["needy@^1"])
    here.installed("asleep", dependencies=["lib-one@^1"])
    before = here.everything()
    refused = TAKING[taking](here, lib, "")
    # Those that need it themselves; what is not enabled needs nothing.
    assert dependents(refused) == (["needy"], 0)
    assert refused.json["dependents"][0]["range"] == "^1"
    assert here.everything() == before


@pytest.mark.usefixtures("with_schema")
@pytest.mark.parametrize("taking", TAKING)
def test_with_cascade_whatever_needs_it_is_disabled_before_it(database_url: str, taking: str) -> None:
    with world(database_url) as here:
        made = {"lib-one": here.enabled("lib-one")}
        # Each needs those before it; `top` is older than `middle`, which it came to need by an update.
        made["top"] = here.enabled("top", dependencies=["lib-one@^1"])
        made["middle"] = here.enabled("middle", dependencies=["lib-one@^1"])
        both = package("top", "1.1.0", dependencies=["lib-one@^1", "middle@^1"])
        assert here.update(made["top"], both).status == 200
        made["roof"] = here.enabled("roof", dependencies=["top@^1"])
        asleep = here.installed("asleep", dependencies=["lib-one@^1"])
        bystander = here.enabled("bystander")
        done = len(here.audited())

        with here.bumps(*made.values()):
            assert TAKING[taking](here, made["lib-one"], "?cascade=true").status in (200, 204)

        order = [made[name] for name in ("roof", "top", "middle")]
        last = "plugin.disable" if taking == "disable" else "plugin.uninstall"
        assert here.audited()[done:] == [
            *(("plugin.disable", plugin_id) for plugin_id in order), (last, made["lib-one"]),
        ]  # fmt: skip
        assert [here.seen(plugin_id) for plugin_id in order] == [
            "1.0.0 disabled", "1.1.0 disabled", "1.0.0 disabled",
        ]  # fmt: skip
        for plugin_id in order:
            assert here.history(plugin_id)[-1][0] == "disable"
        assert here.seen(made["lib-one"]) == ("1.0.0 disabled" if taking == "disable" else None)
        assert here.seen(bystander) == "1.0.0 enabled"
        assert here.history(asleep) == [("install", "1.0.0", None, "done")]


def test_an_uninstalled_plugin_needs_nothing_any_more(here: World) -> None:
    lib = here.enabled("lib-one")
    needy = here.enabled("needy", dependencies=["lib-one@^1"])
    assert here.client.delete(f"{PLUGINS}/{needy}").status == 204
    assert here.rows(PluginDependency) == []
    assert here.act(lib, "disable").status == 200


def test_a_long_chain_is_disabled_at_once(here: World) -> None:
    """Longer than Python's stack: a publisher can build it, and it must come down again."""
    length = 1200
    app_id = int(here.client.get("/api/v1/me").json["appId"])

    def chain(session: Any) -> None:
        for number in range(length):
            name = f"link-{number}"
            session.add(
                Plugin(
                    plugin_id=f"plugin_{name}_abc123", app_id=app_id, name=name, version="1.0.0",
                    plugin_type="test", entry_point="main.py", default_config={}, checksum="0" * 64, manifest={},
                    is_enabled=1, grants={},
                )
            )  # fmt: skip
            if number:
                session.add(
                    PluginDependency(plugin_id=f"plugin_{name}_abc123", name=f"link-{number - 1}", range="^1")
                )

    process.database().run(chain)
    assert here.act("plugin_link-0_abc123", "disable?cascade=true").status == 200
    assert {row.is_enabled for row in here.rows(Plugin)} == {0}


def test_an_update_must_stay_in_the_range_of_what_needs_it(here: World) -> None:
    lib = here.enabled("lib-one")
    needy = here.enabled("needy", dependencies=["lib-one@^1"])
    before, loads = here.everything(), len(here.loads())
    refused = here.update(lib, package("lib-one", "2.0.0"))
    assert dependents(refused, "plugin.breaks_dependents") == (["needy"], 0)
    assert (here.everything(), len(here.loads())) == (before, loads)
    assert here.update(lib, package("lib-one", "1.5.0")).status == 200
    here.act(needy, "disable")
    assert here.update(lib, package("lib-one", "2.0.0")).status == 200
    assert rules(here.act(needy, "enable")) == [("/dependencies/0", "dependency.version")]


def test_a_rollback_must_stay_in_the_range_too(here: World) -> None:
    lib = here.enabled("lib-one")
    here.update(lib, package("lib-one", "1.5.0"))
    here.enabled("needy", dependencies=["lib-one@^1.5"])
    before, loads = here.everything(), len(here.loads())
    assert dependents(here.act(lib, "rollback"), "plugin.breaks_dependents") == (["needy"], 0)
    assert (here.everything(), len(here.loads())) == (before, loads)


def test_a_rollback_sees_who_came_to_need_it_meanwhile(here: World) -> None:
    lib = here.enabled("lib-one")
    here.update(lib, package("lib-one", "1.5.0"))
    needy = here.installed("needy", dependencies=["lib-one@^1.5"])

    def enabled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.act(needy, "enable").status == 200
        return {"ok": True}

    here.replies.append(enabled_meanwhile)
    assert dependents(here.act(lib, "rollback"), "plugin.breaks_dependents") == (["needy"], 0)
    assert here.seen(lib) == "1.5.0 enabled"


def test_a_grant_that_is_needed_through_others_is_not_taken_back(here: World) -> None:
    asks = {"network": ["a.example.com"]}
    lib = here.installed("lib-one", permissions=asks)
    grants = f"{PLUGINS}/{lib}/grants"
    here.client.put(grants, asks)
    here.act(lib, "enable")
    here.enabled("needy", dependencies=["lib-one@^1"])
    before = here.everything()
    assert dependents(here.client.put(grants, {"network": []})) == (["needy"], 0)
    assert here.everything() == before


# -- across apps ---------------------------------------------------------------------------------------------------


def test_what_another_app_needs_is_counted_and_not_named(here: World, stranger: Client) -> None:
    lib = shared(here, here.client, "lib-one")
    here.enabled("mine", dependencies=["lib-one@^1"])
    theirs = here.enabled("theirs", client=stranger, dependencies=["lib-one@^1"])
    before = here.everything()
    for query in ("", "?cascade=true"):
        for taking in TAKING.values():
            assert dependents(taking(here, lib, query)) == (["mine"], 1)
    assert dependents(here.client.patch(f"{PLUGINS}/{lib}", {"visibility": "private"})) == ([], 1)
    assert dependents(here.update(lib, package("lib-one", "2.0.0")), "plugin.breaks_dependents") == (
        ["mine"],
        1,
    )
    assert here.everything() == before
    assert here.act(theirs, "disable", stranger).status == 200
    assert here.client.patch(f"{PLUGINS}/{lib}", {"visibility": "private"}).status == 200
    assert rules(here.act(theirs, "enable", stranger)) == [("/dependencies/0", "dependency.missing")]


def test_what_another_app_needs_through_ones_own_is_counted_too(here: World, stranger: Client) -> None:
    lib = here.enabled("lib-one")
    shared(here, here.client, "middle", dependencies=["lib-one@^1"])
    here.enabled("theirs", client=stranger, dependencies=["middle@^1"])
    before = here.everything()
    refused = here.act(lib, "disable?cascade=true")
    assert dependents(refused) == (["middle"], 1)
    assert here.everything() == before


def test_an_apps_own_plugin_comes_before_a_shared_one(here: World, stranger: Client) -> None:
    shared(here, stranger, "lib-one", "1.0.0")
    own = here.installed("lib-one", "2.0.0")
    assert rules(here.install(package("needy", dependencies=["lib-one@^1"]))) == [
        ("/dependencies/0", "dependency.version")
    ]
    needy = here.installed("needy", dependencies=["lib-one@^2"])
    assert rules(here.act(needy, "enable")) == [("/dependencies/0", "dependency.disabled")]
    here.act(own, "enable")
    assert here.act(needy, "enable").status == 200
    # The shared one is not held by it.
    [theirs] = here.rows(Plugin, visibility="shared")
    assert here.act(theirs.plugin_id, "disable", stranger).status == 200


def test_a_new_plugin_does_not_replace_what_enabled_ones_have(here: World, stranger: Client) -> None:
    shared(here, stranger, "lib-one", "1.0.0")
    needy = here.enabled("needy", dependencies=["lib-one@^1"])
    before = here.everything()
    refused = here.install(package("lib-one", "9.0.0"))
    assert dependents(refused, "plugin.replaces_provider") == (["needy"], 0)
    assert here.everything() == before
    # Disabled it has no provider to lose, and says what it lacks when it is enabled again.
    here.act(needy, "disable")
    here.installed("lib-one", "9.0.0")
    assert rules(here.act(needy, "enable")) == [("/dependencies/0", "dependency.version")]


def test_a_plugin_that_is_shared_later_does_not_replace_what_others_have(
    here: World, stranger: Client
) -> None:
    third = here.publisher("third", "admin")
    older = here.installed("lib-one", "9.0.0", client=third)
    newer = shared(here, stranger, "lib-one", "1.0.0")
    needy = here.enabled("needy", dependencies=["lib-one@^1"])
    before = here.everything()
    refused = third.patch(f"{PLUGINS}/{older}", {"visibility": "shared"})
    assert dependents(refused, "plugin.replaces_provider") == ([], 1)
    assert here.everything() == before
    # Whoever has an own one loses nothing, and what comes after replaces nothing.
    here.act(needy, "disable")
    here.enabled("lib-one")
    here.act(needy, "enable")
    assert third.patch(f"{PLUGINS}/{older}", {"visibility": "shared"}).status == 200
    assert here.act(newer, "disable", stranger).status == 200


# -- two writers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["enable", "disable"])
def test_enabling_and_taking_away_what_is_needed_do_not_pass_each_other(
    database_url: str, first: str
) -> None:
    """Whoever takes the graph's lock first is done first; the other then sees it and is refused."""
    with world(database_url) as here:
        lib = here.enabled("lib-one")
        needy = here.installed("needy", dependencies=["lib-one@^1"])
        app_id = int(here.client.get("/api/v1/me").json["appId"])
        caller = Caller(app_id, "admin", 1, "admin", "r")
        elsewhere = DatabaseService(here.deployment.url)
        cache = HotCache(elsewhere)
        cache.refresh()
        services = Services(elsewhere, here.bucket, here.functions, cache)
        inside, refused = threading.Event(), []

        def disable(database: DatabaseService, wait: Callable[[], None]) -> None:
            def work(session: Any) -> None:
                lifecycle.disable(session, caller, lib, None, cascade=False)
                wait()

            database.run(work)

        def enable(on: Services, wait: Callable[[], None]) -> None:
            def write(work: Callable[[Any], Any]) -> Any:
                def unit(session: Any) -> Any:
                    done = work(session)
                    wait()
                    return done

                return on.database.run(unit)

            lifecycle.enable(on, caller, needy, None, write)

        def second() -> None:
            inside.wait(20)
            try:
                if first == "enable":
                    disable(elsewhere, lambda: None)
                else:
                    enable(services, lambda: None)
            except HotplugError as error:
                refused.append(error.code)

        other = threading.Thread(target=second)

        def while_locked() -> None:
            inside.set()
            other.join(0.5)

        other.start()
        if first == "enable":
            here_services = Services(process.database(), here.bucket, here.functions, process.cache())
            process.cache().refresh()
            enable(here_services, while_locked)
        else:
            disable(process.database(), while_locked)
        other.join(30)
        elsewhere.close()
        assert refused == ["plugin.has_dependents" if first == "enable" else "plugin.dependencies"]
        states = {row.name: row.is_enabled for row in here.rows(Plugin)}
        assert states == ({"lib-one": 1, "needy": 1} if first == "enable" else {"lib-one": 0, "needy": 0})


@pytest.mark.usefixtures("with_schema")
def test_an_update_waits_for_whoever_changes_the_graph(mysql_url: str) -> None:
    """A dependent is enabled meanwhile: the update, which its range does not admit, must see it."""
    with world(mysql_url) as here:
        lib = here.enabled("lib-one")
        needy = here.installed("needy", dependencies=["lib-one@^1"])
        app_id = int(here.client.get("/api/v1/me").json["appId"])
        order = uploads.Order(Caller(app_id, "admin", 1, "admin", "r"), lib, False, None)
        received = uploads.Received("x.zip", package("lib-one", "2.0.0"), None)
        elsewhere = DatabaseService(here.deployment.url)
        services = Services(elsewhere, here.bucket, here.functions, HotCache(elsewhere))
        services.cache.refresh()
        locked, outcomes = threading.Event(), []

        def update() -> None:
            locked.wait(20)
            try:
                uploads.receive(services, order, received, elsewhere.run)
                outcomes.append("updated")
            except Conflict as error:
                outcomes.append(error.code)

        other = threading.Thread(target=update)
        other.start()
        with process.database().session_getter() as session:
            graph.lock(session)
            locked.set()
            other.join(2)
            assert outcomes == []
            row = session.scalars(select(Plugin).where(Plugin.plugin_id == needy)).one()
            row.is_enabled = ENABLED
        other.join(30)
        elsewhere.close()
        assert outcomes == ["plugin.breaks_dependents"]


def test_dependents_are_of_the_plugin_and_not_of_its_name(here: World, stranger: Client) -> None:
    mine, theirs = here.enabled("lib-one"), here.enabled("lib-one", client=stranger)
    here.enabled("needy", client=stranger, dependencies=["lib-one@^1"])
    with process.database().reads() as session:
        rows = {row.plugin_id: row for row in session.scalars(select(Plugin))}
        assert graph.dependents(session, rows[mine]) == []
        assert [need.name for need in graph.dependents(session, rows[theirs])] == ["needy"]
        with pytest.raises(Conflict):
            graph.refuse_dependents(session, rows[theirs])
