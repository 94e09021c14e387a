"""A warm, authenticated GET of a plugin: its round trips on the wire, and its time beside a bare handler's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from chalice.app import Chalice
from sqlalchemy import create_engine, text

from bench.clock import interleaved, seconds
from bench.figure import Figure, compared, counted
from bench.gateway_event import PLUGIN, caller, gateway_event
from bench.machine import silence
from chalicelib.core import process
from tests import databases
from tests.http import Client, deployed
from tests.plugin_rows import put_plugin
from tests.wire import WireProxy

AREA = "read"
ROUNDS, TIMES = 200, 8
POSTS = 60
COUNTED = 100
# Enough for a manifest of ordinary size: what the answer renders and hashes.
ACTIONS = {f"action{number}": {"description": "Does one thing."} for number in range(5)}


def measure() -> list[Figure]:
    """Return the figures of this area."""
    with databases.new_database() as url:
        trips = _round_trips(url)
    with databases.new_database() as url:
        gets, posts = _times(url)
    return [
        counted("warm GET of a plugin, most round trips of a request", AREA, trips, "round trips", 1),
        compared(
            "warm GET of a plugin / a bare handler with one round trip",
            AREA, gets["ours"], gets["bare"], "ms", 2, scale=1000,
        ),
        compared(
            "POST with an Idempotency-Key / without one",
            AREA, posts["keyed"], posts["plain"], "ms", None, scale=1000,
        ),
    ]  # fmt: skip


def _round_trips(url: str) -> int:
    """Return the most commands that one of many requests sent. Once in five seconds a request also writes its
    heartbeat; the first one here does, and the others are over before the next is due."""
    with WireProxy(url) as proxy, deployed(proxy.url) as deployment, silence():
        get = _get(deployment.client)
        get()
        most = 0
        for _ in range(COUNTED):
            before = len(proxy.commands)
            get()
            most = max(most, len(proxy.commands) - before)
        return most


def _times(url: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    with deployed(url) as deployment, silence():
        get, bare = _get(deployment.client), bare_handler(url)
        gets = interleaved(
            {"ours": lambda: seconds(get, TIMES), "bare": lambda: seconds(bare, TIMES)}, ROUNDS
        )
        posts = interleaved(_posts(deployment.client), POSTS)
    return gets, posts


def _get(client: Client) -> Callable[[], object]:
    app_id = int(client.get("/api/v1/me").json["appId"])
    plugin_id = put_plugin(process.database(), app_id=app_id, actions=ACTIONS)
    return caller(
        client.app, gateway_event("GET", PLUGIN, {"pluginId": plugin_id}, credential=client.credential)
    )


def bare_handler(url: str) -> Callable[[], object]:
    """A handler that makes the same round trip, through the same engine settings, and nothing else."""
    app = Chalice("bare", configure_logs=False)
    versions = text("SELECT scope, version, epoch FROM cache_version")
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        pool_size=1,
        skip_autocommit_rollback=True,
        connect_args={"ssl_disabled": True, "charset": "utf8mb4"},
    )

    @app.route(PLUGIN)
    def bare(pluginId: str) -> dict[str, Any]:
        with engine.connect() as connection:
            rows = connection.execute(versions).all()
        return {"pluginId": pluginId, "scopes": len(rows)}

    return caller(app, gateway_event("GET", PLUGIN, {"pluginId": "plugin_notifier_abc123"}))


def _posts(client: Client) -> dict[str, Callable[[], float]]:
    """The same POST with and without a key; each makes an app."""

    def post(keyed: bool) -> float:
        name = uuid4().hex
        headers = {"idempotency-key": name} if keyed else {}
        body = {"aliasId": f"b-{name}", "name": "Bench"}
        event = gateway_event(
            "POST", "/api/v1/apps", credential=client.credential, body=body, headers=headers
        )
        return seconds(caller(client.app, event, 201))

    return {"keyed": lambda: post(True), "plain": lambda: post(False)}
