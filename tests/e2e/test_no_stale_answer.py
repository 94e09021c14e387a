"""No stale answer: random histories of a whole stack, checked against the sequential model; and what it costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.instances import HEARTBEAT_EVERY_S
from infra.functions import ROOT
from infra.local.pool import Scaling
from infra.local.stack import LocalStack
from tests.e2e.conftest import UNLIMITED
from tests.e2e.history import workload
from tests.e2e.history.checker import NEVER, STALE
from tests.e2e.history.packages import package
from tests.e2e.history.recorder import Recorder
from tests.least_privilege.watched import WatchedStack
from tests.mutants import without_bump
from tests.wire import WireProxy

pytestmark = pytest.mark.slow

API_PROCESSES = 4
# More than one environment of the same tenant, and a bound: every environment loads what it runs.
RUNTIMES = {"runtime": Scaling(maximum=3), "runtime_network": Scaling(maximum=2)}
OPERATIONS = 2_200
# A mutant is found long before that.
MUTANT_OPERATIONS = 400
# Histories in which chance must have shown every kind of answer, or a mutant.
ROUNDS = 5
KINDS = {"GET plugin", "GET config", "GET /plugins", "execute", "execute: disabled", "GET plugin: 404"}
READS = 50
VERSION_READ = "QUERY SELECT scope, version, epoch FROM cache_version"
HEARTBEAT = "QUERY INSERT INTO instance "


@contextmanager
def running(folder: Path, database_url: str, task_root: Path = ROOT) -> Iterator[LocalStack]:
    with WatchedStack(
        folder,
        database_url=database_url,
        api_processes=API_PROCESSES,
        schedules=False,
        environment=UNLIMITED,
        scaling=RUNTIMES,
        task_root=task_root,
    ) as stack:
        yield stack


def histories(
    stack: LocalStack, operations: int, within_s: float, seed: int, mix: workload.Mix | None = None
) -> Recorder:
    assert stack.admin_credential is not None
    return workload.run(
        stack.url, stack.admin_credential, operations=operations, within_s=within_s, seed=seed, mix=mix
    )


def shown_in(rounds: list[Recorder]) -> Counter[str]:
    """Return how often each kind of answer was among what was judged."""
    return sum((Counter(seen.shown) for seen in rounds), Counter())


def test_no_answer_is_stale(tmp_path: Path, database_url: str) -> None:
    seed = time.time_ns() % 10_000
    with running(tmp_path / "local", database_url) as stack:
        rounds = [histories(stack, OPERATIONS, 80, seed)]
        while not shown_in(rounds).keys() >= KINDS and len(rounds) < ROUNDS:
            # Chance, or a slow machine, left one kind of answer out; what was judged so far counts all the same.
            rounds.append(histories(stack, OPERATIONS // 4, 30, seed + len(rounds)))
        api = [one for one in stack.environments("api") if one.served]
        runtimes = Counter(
            (name, one.tenant) for name in RUNTIMES for one in stack.environments(name) if one.served
        )

    found = [violation for seen in rounds for violation in seen.violations()]
    assert not found, f"seed {seed}: {len(found)} violations, the first: {found[:3]}"
    faults = [fault for seen in rounds for fault in seen.faults]
    assert not faults, f"seed {seed}: {faults[:3]}"
    assert rounds[0].total >= 2_000, rounds[0].operations
    assert len(api) >= API_PROCESSES
    assert all(count >= 2 for count in runtimes.values()) and len(runtimes) == 2, runtimes
    # Every kind of write took effect, and every kind of answer was among what was judged.
    done = {kind for seen in rounds for kind in seen.done}
    assert done >= {*workload.ACTIONS, "install"}, done
    shown = shown_in(rounds)
    assert shown.keys() >= KINDS, shown
    assert shown["execute"] >= 100, shown


# Few other writes: those that still bump would hide what is forgotten.
CONFIGS = workload.Mix({"config": 20, "enable": 1}, {"execute": 5, "config": 1})


@pytest.mark.parametrize(
    ("model", "mix"), [("Plugin", workload.Mix()), ("PluginConfig", CONFIGS)], ids=["Plugin", "PluginConfig"]
)
def test_a_forgotten_bump_is_found(tmp_path: Path, sqlite_url: str, model: str, mix: workload.Mix) -> None:
    """Such histories on an application that forgets to bump the cache for one model."""
    mutant = without_bump(tmp_path / "mutant", model)
    kinds: Counter[str] = Counter()
    with running(tmp_path / "local", sqlite_url, mutant) as stack:
        # Who reads between a write and the next bump of another is chance: a mutant may live through one history.
        for seed in range(1, ROUNDS + 1):
            seen = histories(stack, MUTANT_OPERATIONS, 30, seed=seed, mix=mix)
            kinds.update(one.kind for one in seen.violations())
            if kinds[STALE]:
                break

    assert kinds[STALE] > 0, kinds
    # What is stale was true once: the mutant forgets, it does not invent.
    assert kinds[NEVER] <= kinds[STALE], kinds


def test_a_warm_authenticated_read_is_one_round_trip(tmp_path: Path, mysql_url: str) -> None:
    """Counted on the wire of a real API process, request by request. Beside the version read there is at most one
    heartbeat in five seconds, which is told apart by its table and counted by itself; when a credential was used is
    written once in five minutes, so before the counting begins.

    A server that says nothing for eight seconds is given up, and the version is read again on a new line: on a machine
    that stands still for so long the request that finds that out is not a warm one. It may happen once.
    """
    with (
        WireProxy(mysql_url) as wire,
        WatchedStack(
            tmp_path / "local", database_url=wire.url, api_processes=1, schedules=False, environment=UNLIMITED
        ) as stack,
    ):
        client = workload.Client(stack.url, stack.admin_credential or "")
        path, tag = installed(client)
        for _ in range(3):
            assert client.send("GET", path).status == 200
        began, lines = time.monotonic(), wire.opened
        sent = [
            *_each(wire, lambda: client.send("GET", path, headers={"If-None-Match": tag}).status, 304),
            *_each(wire, lambda: client.send("GET", path).status, 200),
        ]
        lasted = time.monotonic() - began
        lines = wire.opened - lines
        [process] = stack.environments("api")
        client.close()

    assert len(sent) == 2 * READS <= process.served
    assert lines <= 1, "a line is kept from request to request"
    heartbeats = [one for commands in sent for one in commands if one.startswith(HEARTBEAT)]
    assert len(heartbeats) <= 1 + lasted / HEARTBEAT_EVERY_S
    others = Counter(tuple(one for one in commands if not one.startswith(HEARTBEAT)) for commands in sent)
    assert others == {(VERSION_READ,): 2 * READS}, "one round trip each, and nothing else is on the wire"


def _each(wire: WireProxy, send: Callable[[], int], status: int) -> Iterator[list[str]]:
    """Send until there were enough warm requests, and yield what each of them had on the wire."""
    warm = 0
    while warm < READS:
        lines = wire.opened
        wire.commands.clear()
        assert send() == status
        if wire.opened == lines:
            warm += 1
            yield list(wire.commands)


def installed(client: workload.Client) -> tuple[str, Any]:
    answer = client.upload("POST", "/plugins/install", package("py-wire", "1.0.0", "python"))
    assert answer.status == 201, answer.response.text
    path = f"/plugins/{answer.body['pluginId']}"
    return path, client.send("GET", path).response.headers["etag"]
