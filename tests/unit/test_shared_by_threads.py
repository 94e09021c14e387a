"""What the threads of one invocation share: each is made once, and none of them breaks under sixteen at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from chalicelib.agents.loading import loader as loading
from chalicelib.agents.loading import process as agents_process
from chalicelib.agents.loading.scan import read_again
from chalicelib.agents.scope.access import Access, Scope
from chalicelib.agents.scope.engine import Engines
from chalicelib.core import aws_clients
from chalicelib.core.database import DatabaseService
from chalicelib.core.functions import LambdaFunctions
from chalicelib.core.instances import Heartbeat, Instance
from chalicelib.core.storage import S3Storage
from chalicelib.flows.nodes.calling import call_services
from chalicelib.tools import loading as tool_loading
from chalicelib.tools.loading import LoadedVersion
from chalicelib.tools.tokens import Tokens
from tests.agent_folders import AgentFolders, agent_folders
from tests.fakes.outbound import answered
from tests.http import settings
from tests.threads import THREADS, at_once


class SlowMake:
    """Makes clients, slowly, and counts how many at a time."""

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        with self._lock:
            self.made += 1
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.02)
        with self._lock:
            self._now -= 1
        return self

    def invoke(self, **_: Any) -> Any:
        return {"Payload": b"{}"}


def test_one_lambda_client_for_all_threads() -> None:
    make = SlowMake()
    functions = LambdaFunctions(make)
    at_once(lambda _: functions.invoke_async("job", {}))
    assert make.made == 1


def test_one_client_of_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    make = SlowMake()
    monkeypatch.setattr("chalicelib.core.storage.s3_client", make)
    storage = S3Storage("bucket")
    assert set(at_once(lambda _: storage.client)) == {make}
    assert make.made == 1


def test_clients_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    make = SlowMake()
    monkeypatch.setattr("boto3.client", make)
    at_once(lambda number: aws_clients.new_client(("s3", "lambda", "kms")[number % 3], read_timeout=1))
    assert (make.made, make.most) == (THREADS, 1)


def test_one_heartbeat_for_all_threads(database: DatabaseService) -> None:
    def slow_clock() -> float:
        time.sleep(0.005)
        return time.monotonic()

    heartbeat, statements = Heartbeat(database, slow_clock), []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda *args: statements.append(args[2]),  # the statement
    )

    def beat(number: int) -> bool:
        return heartbeat.beat(f"instance-{number % 2}", "runtime", versions={"plugins": 1})

    assert sum(at_once(beat)) == 2
    assert sum("INSERT INTO instance" in one for one in statements) == 2
    with database.reads() as session:
        assert session.query(Instance).count() == 2


def test_one_thread_asks_for_a_token() -> None:
    asked: list[str] = []

    def send(method: str, url: str, **_: Any) -> Any:
        asked.append(url)
        mine = f"t-{len(asked)}"
        time.sleep(0.05)
        return answered({"access_token": mine, "token_type": "bearer", "expires_in": 3600})

    tokens = Tokens()

    def get(number: int) -> str:
        owner = (str(number % 2), "tool@1")  # of two apps: neither waits for the other, nor gets its token
        return tokens.get("https://login.example/token", "id", "secret", (), owner, send)[0]

    found = at_once(get)

    assert len(asked) == 2
    assert len(set(found[0::2])) == len(set(found[1::2])) == 1
    assert not set(found[0::2]) & set(found[1::2])


def test_a_token_that_another_thread_waits_for_is_not_waited_for_for_ever() -> None:
    stuck, tokens = threading.Event(), Tokens()
    given = ("https://login.example/token", "id", "secret", (), ("1", "tool@1"))

    def hanging(*_: Any, **__: Any) -> Any:
        stuck.wait(10)
        raise ConnectionError

    def quick(*_: Any, **__: Any) -> Any:
        return answered({"access_token": "t", "token_type": "bearer"})

    def failing() -> None:
        with pytest.raises(ConnectionError):
            tokens.get(*given, hanging)

    first = threading.Thread(target=failing)
    first.start()
    time.sleep(0.05)
    try:
        began = time.monotonic()
        assert tokens.get(*given, quick, 0.1)[0] == "t"
        assert time.monotonic() - began < 2
    finally:
        stuck.set()
        first.join()


def test_plans_are_kept_and_dropped_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_loading, "KEPT_PLANS", 2)
    monkeypatch.setattr(tool_loading, "plan_of", lambda _, operation_id: operation_id)
    names = [f"op{number}" for number in range(12)]
    nothing: Any = None
    loaded: Any = LoadedVersion("tool@1", "V1.0", nothing)

    def use(number: int) -> bool:
        order = names[number % len(names) :] + names[: number % len(names)]
        return all(loaded.plan(name) == name for _ in range(500) for name in order)

    assert all(at_once(use))
    assert len(loaded._plans) <= 2


def test_one_thread_reloads_an_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def counting(found: Any) -> Any:
        read.append(found)
        time.sleep(0.02)
        return read_again(found)

    monkeypatch.setattr(loading.scan, "read_again", counting)
    with agent_folders(tmp_path) as folders:
        folders.add("a")
        loader = _loader(folders)
        found = at_once(lambda _: loader.reload("a", generation=3))
        assert len(read) == 1
        assert len({id(one.agent) for one in found}) == 1
        assert loader.reload("a", generation=4).agent is not found[0].agent


def _loader(folders: AgentFolders) -> loading.AgentLoader:
    folders.load()
    assert folders.loader is not None
    return folders.loader


def test_one_scoped_engine_for_all_threads(database: DatabaseService) -> None:
    engines, made = Engines(), []
    scope = Scope(1, "a", frozenset())

    def over(_: int) -> Engine:
        engine = engines.over(database.engine, Access(scope, writes=False))
        made.append(engine)
        return engine

    found = at_once(over)
    assert len({id(one.dialect) for one in found}) == 1


def test_services_are_made_without_loading_agents(sqlite_url: str) -> None:
    """Most flows call none: what they pay for is what they use."""
    with settings(HOTPLUG_DATABASE_URL=sqlite_url):
        services = call_services()
        assert agents_process._loader is None
        assert services.agents().agents is agents_process._loader


def test_the_nodes_are_there_without_importing_the_agents() -> None:
    script = (
        "import sys, chalicelib.flows.nodes.calling\n"
        "print([name for name in sys.modules if name.startswith('chalicelib.agents')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
