"""Random writers and readers on a few shared plugins, over HTTP; what they see goes to the recorder."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.history.checker import Observation, absent, executed, holds, lists, no_config, refused, shows
from tests.e2e.history.model import Configured, Line, Registered, Write
from tests.e2e.history.packages import package, shown
from tests.e2e.history.recorder import Recorder

ACTIONS = {
    "config": 16, "disable": 4, "enable": 9, "grant": 4, "update": 4, "rollback": 4, "uninstall": 1,
}  # fmt: skip
READS = {"execute": 4, "plugin": 5, "config": 4, "list": 1}
# An update that keeps losing its race waits for the queue; then it may still happen.
INSTALL_WAIT_S = 10
# Refusals that a race may rightly end in; anything else that is no success is a fault.
EXPECTED = {404, 409, 412}


@dataclass(frozen=True)
class Mix:
    """How often each kind of write and of read is chosen, as weights."""

    actions: dict[str, int] = field(default_factory=lambda: dict(ACTIONS))
    reads: dict[str, int] = field(default_factory=lambda: dict(READS))


@dataclass
class Slot:
    """A name under which one plugin lives after the other."""

    name: str
    runtime: str
    hosts: tuple[str, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    plugin_id: str | None = None
    config_id: str | None = None
    installing: bool = False
    counter: int = 0
    versions: list[str] = field(default_factory=list)

    def next_version(self) -> str:
        with self.lock:
            self.counter += 1
            return f"1.{self.counter}.0"


def slots(seed: int) -> list[Slot]:
    """Return the plugins that all clients share: each runtime, and one that asks for the network.

    They are of one history alone: one before it on the same stack has left its own, and used up their versions.
    """
    return [
        Slot(f"py-one-{seed}", "python"),
        Slot(f"py-two-{seed}", "python"),
        Slot(f"py-net-{seed}", "python", ("api.example.com",)),
        Slot(f"wat-one-{seed}", "wasm"),
    ]


@dataclass(frozen=True)
class Answer:
    """An answer and its interval in seconds of the monotonic clock."""

    began: float
    ended: float
    response: httpx.Response

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def body(self) -> Any:
        return self.response.json()

    @property
    def code(self) -> str:
        return str(self.body.get("code", "")) if self.status >= 400 else ""


class Client:
    """One thread's connection."""

    def __init__(self, url: str, credential: str) -> None:
        self._http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {credential}"}, timeout=40
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, **options: Any) -> Answer:
        began = time.monotonic()
        response = self._http.request(method, path, **options)
        return Answer(began, time.monotonic(), response)

    def upload(self, method: str, path: str, content: bytes, **options: Any) -> Answer:
        files = {"file": ("plugin.zip", content, "application/zip")}
        return self.send(method, path, data={"source": "local"}, files=files, **options)


def registration(resource: dict[str, Any]) -> Registered:
    """Return what a plugin's resource shows."""
    hosts = tuple(resource["grants"]["network"])
    return Registered(int(resource["generation"]), resource["version"], resource["status"], hosts)


def configuration(resource: dict[str, Any]) -> Configured:
    """Return what a config's resource shows."""
    return Configured(resource["configItems"]["value"], resource["isDefault"])


class Actor:
    """What writers and readers have in common."""

    def __init__(self, client: Client, recorder: Recorder, shared: list[Slot], mix: Mix, seed: int) -> None:
        self._mix = mix
        self._client = client
        self._recorder = recorder
        self._slots = shared
        self._random = random.Random(seed)

    def choose(self, weights: dict[str, int]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def live(self) -> tuple[Slot, str, str] | None:
        slot = self._random.choice(self._slots)
        with slot.lock:
            if slot.plugin_id is None or slot.config_id is None:
                return None
            return slot, slot.plugin_id, slot.config_id

    def saw(self, plugin_id: str, what: str, answer: Answer, fits: Callable[[Any], bool]) -> None:
        self._recorder.saw(plugin_id, Observation(what, answer.began, answer.ended, fits))

    def gone_or_fault(self, plugin_id: str, what: str, answer: Answer) -> None:
        """Record an answer that is no success."""
        if answer.code == "plugin.not_found":
            self.saw(plugin_id, f"{what}: 404", answer, absent)
        elif answer.status in EXPECTED:
            self._recorder.refused(what, answer.code)
        else:
            self._recorder.fault(f"{what} {plugin_id}: {answer.status} {answer.response.text[:400]}")


class Writer(Actor):
    """Changes plugins at random."""

    def step(self) -> None:
        found = self.live()
        if found is None:
            self._install(self._random.choice(self._slots))
            return
        slot, plugin_id, config_id = found
        action = self.choose(self._mix.actions)
        self._recorder.count(action)
        if action == "config":
            self._configure(plugin_id, config_id)
        elif action == "update":
            self._update(slot, plugin_id)
        elif action == "uninstall":
            self._uninstall(slot, plugin_id)
        elif action == "grant":
            hosts = self._random.choice([(), ("api.example.com",), ("api.example.com", "b.example.com")])
            self._change(plugin_id, "grant", "PUT", "grants", {"network": list(hosts)}, hosts=hosts)
        elif action == "rollback":
            version = self._random.choice(slot.versions or ["1.1.0"])
            self._change(plugin_id, "rollback", "POST", "rollback", {"version": version}, version=version)
        else:
            self._change(plugin_id, action, "POST", action, None)

    def _change(self, plugin_id: str, action: str, method: str, tail: str, body: Any, **asked: Any) -> None:
        answer = self._client.send(method, f"/plugins/{plugin_id}/{tail}", json=body)
        if answer.status == 200:
            self._wrote(plugin_id, action, answer, **asked)
        elif answer.code == "plugin.grant_needed":
            self._recorder.refused(action, answer.code)
        else:
            self.gone_or_fault(plugin_id, action, answer)

    def _wrote(self, plugin_id: str, action: str, answer: Answer, **asked: Any) -> None:
        seen = registration(answer.body)
        stamp = answer.body["updateTime"]
        write = Write(action, answer.began, answer.ended, stamp, registered=seen, **asked)
        self._recorder.wrote(plugin_id, write)
        self.saw(plugin_id, f"{action} → {seen}", answer, shows(seen))

    def _configure(self, plugin_id: str, config_id: str) -> None:
        value = f"{self._random.randrange(16**8):08x}"
        body = {"configItems": {"value": value}, "isDefault": self._random.random() < 0.8}
        answer = self._client.send("PUT", f"/plugins/{plugin_id}/configs/{config_id}", json=body)
        if answer.status == 200:
            self._wrote_config(plugin_id, answer)
        else:
            self.gone_or_fault(plugin_id, "config", answer)

    def _wrote_config(self, plugin_id: str, answer: Answer) -> None:
        seen = configuration(answer.body)
        write = Write("config", answer.began, answer.ended, answer.body["updateTime"], configured=seen)
        self._recorder.wrote(plugin_id, write)
        self.saw(plugin_id, f"config → {seen}", answer, holds(seen))

    def _update(self, slot: Slot, plugin_id: str) -> None:
        version = slot.next_version()
        content = package(slot.name, version, slot.runtime, hosts=slot.hosts)
        answer = self._client.upload("PUT", f"/plugins/{plugin_id}", content)
        if answer.status == 200:
            self._wrote(plugin_id, "update", answer, version=version)
        elif answer.status == 202:
            task, ended = self._registered(answer.body["installId"])
            if task["state"] not in ("registered", "verifying"):
                self._recorder.refused("update", f"{task['state']} {task['errorCode']}")
                return
            self._recorder.wrote(plugin_id, Write("update", answer.began, ended, version=version))
        elif answer.code in ("plugin.version_not_raised", "plugin.grant_needed"):
            self._recorder.refused("update", answer.code)
            return
        else:
            self.gone_or_fault(plugin_id, "update", answer)
            return
        slot.versions.append(version)

    def _registered(self, install_id: str) -> tuple[dict[str, Any], float]:
        """Return the task at its end and when that was known; never, where it has not ended in time."""
        deadline = time.monotonic() + INSTALL_WAIT_S
        while True:
            answer = self._client.send("GET", f"/plugins/installs/{install_id}")
            task = answer.body
            if task["state"] not in ("awaiting_upload", "verifying"):
                return task, answer.ended
            if time.monotonic() > deadline:
                self._recorder.refused("update", f"pending {task['errorCode']}")
                return task, float("inf")
            time.sleep(0.03)

    def _install(self, slot: Slot) -> None:
        with slot.lock:
            if slot.installing or slot.plugin_id is not None:
                return
            slot.installing = True
        try:
            self._recorder.count("install")
            self._install_now(slot)
        finally:
            slot.installing = False

    def _install_now(self, slot: Slot) -> None:
        version = slot.next_version()
        content = package(slot.name, version, slot.runtime, hosts=slot.hosts)
        answer = self._client.upload("POST", "/plugins/install", content)
        plugin_id, ended = "", answer.ended
        if answer.status == 202:
            task, ended = self._registered(answer.body["installId"])
            if task["state"] != "registered":
                self._recorder.fault(f"install of {slot.name}: {task}")
                return
            plugin_id = task["pluginId"]
        elif answer.status == 201:
            plugin_id = answer.body["pluginId"]
        else:
            self._recorder.fault(f"install of {slot.name}: {answer.status} {answer.response.text[:300]}")
            return
        self._recorder.asks(plugin_id, slot.hosts)
        # Nobody else knows the id yet, so this shows what the install made.
        first = self._client.send("GET", f"/plugins/{plugin_id}").body
        seen = registration(first)
        write = Write("install", answer.began, ended, first["updateTime"], registered=seen, version=version)
        self._recorder.wrote(plugin_id, write)
        self._recorder.saw(plugin_id, Observation(f"install → {seen}", answer.began, ended, shows(seen)))
        self._settle(slot, plugin_id, version)

    def _settle(self, slot: Slot, plugin_id: str, version: str) -> None:
        """Give a new plugin its config, its grants and, mostly, its enabling; then the others may have it."""
        body = {"name": "shared", "scope": "app", "configItems": {"value": "first"}, "isDefault": True}
        answer = self._client.send("POST", f"/plugins/{plugin_id}/configs", json=body)
        self._wrote_config(plugin_id, answer)
        if slot.hosts:
            self._change(plugin_id, "grant", "PUT", "grants", {"network": list(slot.hosts)}, hosts=slot.hosts)
        with slot.lock:
            slot.plugin_id, slot.config_id = plugin_id, answer.body["configId"]
            slot.versions = [version]
        self._change(plugin_id, "enable", "POST", "enable", None)

    def _uninstall(self, slot: Slot, plugin_id: str) -> None:
        """Uninstall on condition that nothing changed since the history was read: so it is complete."""
        path = f"/plugins/{plugin_id}"
        for _ in range(3):
            tag = self._client.send("GET", path).response.headers.get("etag")
            lines = read_history(self._client, plugin_id)
            if tag is None or lines is None:
                return
            answer = self._client.send("DELETE", path, headers={"If-Match": tag})
            if answer.status == 204:
                self._recorder.knows(plugin_id, lines)
                self._recorder.wrote(plugin_id, Write("uninstall", answer.began, answer.ended))
                self.saw(plugin_id, "uninstall", answer, absent)
                with slot.lock:
                    if slot.plugin_id == plugin_id:
                        slot.plugin_id = slot.config_id = None
                return
            self.gone_or_fault(plugin_id, "uninstall", answer)


def read_history(client: Client, plugin_id: str) -> list[Line] | None:
    """Return the plugin's own history without its configs, oldest first; None where the plugin is gone."""
    lines: list[Line] = []
    cursor = None
    while True:
        query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        answer = client.send("GET", f"/plugins/{plugin_id}/history", params=query)
        if answer.status != 200:
            return None
        page = answer.body
        lines += [Line(item["action"], item["version"], item["at"]) for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return sorted((line for line in lines if line.action != "config"), key=lambda line: line.at)


class Reader(Actor):
    """Looks at plugins at random."""

    def step(self) -> None:
        found = self.live()
        if found is None:
            time.sleep(0.01)
            return
        _, plugin_id, config_id = found
        kind = self.choose(self._mix.reads)
        self._recorder.count(f"read {kind}")
        if kind == "plugin":
            self._plugin(plugin_id)
        elif kind == "config":
            self._config(plugin_id, config_id)
        elif kind == "list":
            self._list()
        else:
            self._execute(plugin_id)

    def _plugin(self, plugin_id: str) -> None:
        answer = self._client.send("GET", f"/plugins/{plugin_id}")
        if answer.status == 200:
            seen = registration(answer.body)
            self.saw(plugin_id, f"GET plugin → {seen}", answer, shows(seen))
        else:
            self.gone_or_fault(plugin_id, "GET plugin", answer)

    def _config(self, plugin_id: str, config_id: str) -> None:
        answer = self._client.send("GET", f"/plugins/{plugin_id}/configs/{config_id}")
        if answer.status == 200:
            seen = configuration(answer.body)
            self.saw(plugin_id, f"GET config → {seen}", answer, holds(seen))
        elif answer.code == "config.not_found":
            self.saw(plugin_id, "GET config: 404", answer, no_config)
        else:
            self.gone_or_fault(plugin_id, "GET config", answer)

    def _list(self) -> None:
        answer = self._client.send("GET", "/plugins", params={"limit": "100"})
        if answer.status != 200:
            self._recorder.fault(f"GET /plugins: {answer.status} {answer.response.text[:300]}")
            return
        items = {
            item["pluginId"]: lists(int(item["generation"]), item["version"], item["status"])
            for item in answer.body["items"]
        }
        self._recorder.listed(answer.began, answer.ended, items)

    def _execute(self, plugin_id: str) -> None:
        answer = self._client.send("POST", f"/plugins/{plugin_id}/execute", json={"params": {}})
        if answer.status == 200:
            version, value = shown(answer.body["result"])
            if version != answer.body["version"]:
                self._recorder.fault(f"execute {plugin_id}: {version} ran as {answer.body['version']}")
            self.saw(plugin_id, f"execute → {version}, {value}", answer, executed(version, value))
        elif answer.code == "plugin.disabled":
            self.saw(plugin_id, "execute: disabled", answer, refused)
        else:
            self.gone_or_fault(plugin_id, "execute", answer)


def run(
    url: str,
    credential: str,
    *,
    operations: int,
    within_s: float,
    seed: int,
    mix: Mix | None = None,
    writers: int = 8,
    readers: int = 6,
) -> Recorder:
    """Let writers and readers loose until there were enough operations, or the time is over.

    Parameters
    ----------
    operations, within_s
        How many writes and reads, and for how many seconds at most.
    seed
        Of every choice, and of the plugins' names: another one for each run on a stack. What the threads' timing makes
        of it differs from run to run.

    Raises
    ------
    BaseExceptionGroup
        What ended a thread before its time.
    """
    recorder, shared = Recorder(), slots(seed)
    deadline = time.monotonic() + within_s
    crashes: list[Exception] = []

    def act(kind: type[Writer] | type[Reader], number: int) -> None:
        client = Client(url, credential)
        actor = kind(client, recorder, shared, mix or Mix(), seed * 1000 + number)
        try:
            while recorder.total < operations and time.monotonic() < deadline and not crashes:
                actor.step()
        except Exception as error:
            crashes.append(error)
        finally:
            client.close()

    kinds: list[type[Writer] | type[Reader]] = [*[Writer] * writers, *[Reader] * readers]
    threads = [threading.Thread(target=act, args=(kind, number)) for number, kind in enumerate(kinds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if crashes:
        raise ExceptionGroup("clients ended early", crashes)
    client = Client(url, credential)
    for slot in shared:
        if slot.plugin_id is not None and (lines := read_history(client, slot.plugin_id)) is not None:
            recorder.knows(slot.plugin_id, lines)
    client.close()
    return recorder
