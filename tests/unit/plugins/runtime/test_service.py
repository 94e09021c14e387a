from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from chalicelib.plugins.runtime.faults import Deadline
from chalicelib.plugins.runtime.locked_child import Sandbox
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.python_plugin import PythonPlugin
from chalicelib.plugins.runtime.request import PluginRef, Resources
from chalicelib.plugins.runtime.service import Runtime
from tests.unit.plugins.runtime.support import ECHO_WAT, Bench, ObjectServer, answering, package

PYTHON = """
class Plugin:
    def init(self, config):
        print("init", config)
        self.config = config
        self.count = 0
    def cleanup(self):
        print("cleaned")
    def execute(self, action, params, context):
        self.count += 1
        return {"config": self.config, "count": self.count, "action": action, "params": params, "app": context["appId"]}
"""


def changed(event: dict[str, Any], version: int, *changes: list[object], epoch: str = "e1") -> dict[str, Any]:
    return {**event, "cache": {"version": version, "epoch": epoch, "changes": list(changes)}}


def loaded(answer: dict[str, Any]) -> set[tuple[str, str]]:
    return {(plugin["pluginId"], plugin["version"]) for plugin in answer["loaded"]}


def test_importing_the_service_loads_nothing_heavy() -> None:
    heavy = [
        "sqlalchemy",
        "pymysql",
        "boto3",
        "botocore",
        "chalice",
        "wasmtime",
        "httpx",
        "httpcore",
        "jsonschema",
    ]
    script = (
        "import sys, chalicelib.plugins.runtime.service, chalicelib.plugins.runtime.compile;"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_a_python_plugin_is_initialised_once_for_each_config(bench: Bench) -> None:
    first = bench.python_event(PYTHON, config={"url": "a"}, params=[1], action="notify")
    second = {**first, "config": {"url": "b"}}

    answers = [bench.run(event) for event in (first, first, second, first)]

    assert [answer["coldLoad"] for answer in answers] == [True, False, True, False]
    assert [answer["result"]["count"] for answer in answers] == [1, 2, 1, 3]
    assert answers[0]["result"] == {
        "config": {"url": "a"},
        "count": 1,
        "action": "notify",
        "params": [1],
        "app": "a1",
    }
    assert answers[0]["logs"] == "init {'url': 'a'}\n"
    assert answers[2]["result"]["config"] == {"url": "b"}


def test_every_answer_tells_the_state_of_the_environment(bench: Bench) -> None:
    event = bench.wasm_event(ECHO_WAT)
    cold, warm = bench.run(event), bench.run(event)

    assert cold["instanceId"] == warm["instanceId"] == bench.runtime.instance_id
    assert cold["scopeVersion"] == 1
    assert cold["loadMs"] > 0 == warm["loadMs"]
    assert warm["memoryBytes"] > 1024 * 1024
    checksum = event["plugin"]["checksum"]
    assert warm["loaded"] == [{"pluginId": "plugin_sample_aaaaaa", "version": "1.0.0", "checksum": checksum}]


def test_load_initialises_without_executing(bench: Bench) -> None:
    event = bench.python_event(PYTHON, operation="load", config=1)

    answer = bench.run(event)

    assert (answer["ok"], answer["result"], answer["logs"], answer["coldLoad"]) == (
        True,
        None,
        "init 1\n",
        True,
    )
    assert bench.run({**event, "operation": "execute"})["result"]["count"] == 1


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("{1}", "Object of type set is not JSON serializable"),
        ("float('nan')", "Out of range float values are not JSON compliant"),
        ("'\\ud800'", "'utf-8' codec can't encode character"),
    ],
    ids=["set", "nan", "half a character"],
)
def test_a_result_that_is_no_json_is_named_as_that(bench: Bench, result: str, why: str) -> None:
    source = f"class Plugin:\n    def execute(self, *given):\n        return {result}"

    error = bench.run(bench.python_event(source))["error"]

    assert error["code"] == "plugin.exception"
    assert error["message"].startswith(f"TypeError: execute returned no JSON: {why}")


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("raise RuntimeError('no')", "plugin.load_failed", "RuntimeError: no"),
        (
            "class Plugin:\n    pass",
            "plugin.load_failed",
            "TypeError: Plugin has no method execute(action, params, context)",
        ),
        (
            "class Plugin:\n    async def execute(self, *given):\n        return 1",
            "plugin.load_failed",
            "TypeError: Plugin.execute is async: nothing would await it",
        ),
        ("x = 1", "plugin.load_failed", "TypeError: main.py has no class Plugin"),
        ("import sys; sys.exit(1)", "plugin.load_failed", "SystemExit: 1"),
        ("import os; os._exit(1)", "plugin.crashed", "The plugin's process ended: exit code 1."),
        ("def", "plugin.load_failed", "SyntaxError: invalid syntax (main.py, line 1)"),
        (
            "import time; time.sleep(60)",
            "plugin.load_timeout",
            "The plugin was not loaded within the load timeout.",
        ),
    ],
    ids=["raises", "no-execute", "async", "no-class", "exit", "dies", "syntax", "hangs"],
)
def test_a_python_plugin_that_does_not_load(bench: Bench, source: str, code: str, message: str) -> None:
    answer = bench.run(bench.python_event(source, operation="load", loadTimeoutMs=1_000))

    assert answer["error"] == {"kind": "load", "code": code, "message": message, "data": None}
    assert answer["loaded"] == []


def test_a_new_version_that_does_not_load_leaves_the_old_one_loaded(bench: Bench) -> None:
    old = bench.python_event(PYTHON)
    bench.run(old)

    broken = bench.run(bench.python_event("raise RuntimeError", version="2.0.0", operation="load"))

    assert not broken["ok"]
    assert loaded(broken) == {("plugin_sample_aaaaaa", "1.0.0")}
    assert bench.run(old)["coldLoad"] is False


@pytest.mark.parametrize("kind", ["wasm", "python"])
def test_a_new_version_replaces_the_old_one(bench: Bench, kind: str) -> None:
    def event(version: str) -> dict[str, Any]:
        if kind == "wasm":
            return bench.wasm_event(answering(json.dumps({"result": version})), version=version)
        return bench.python_event(PYTHON + f"# {version}", version=version)

    bench.run(event("1.0.0"))
    answer = bench.run(event("2.0.0"))

    assert loaded(answer) == {("plugin_sample_aaaaaa", "2.0.0")}
    assert bench.run(event("1.0.0"))["coldLoad"] is True


def test_the_same_version_with_other_bytes_is_another_plugin(bench: Bench) -> None:
    bench.run(bench.wasm_event(answering('{"result":1}')))
    answer = bench.run(bench.wasm_event(answering('{"result":2}')))

    assert (answer["result"], answer["coldLoad"], len(answer["loaded"])) == (2, True, 1)


@pytest.mark.parametrize(
    ("version", "changes", "epoch", "kept"),
    [
        (5, [[5, "*"]], "e1", {"a", "b"}),  # nothing new
        (6, [[5, "x"], [6, "plugin_a_aaaaaa"]], "e1", {"b"}),
        (6, [[6, "plugin_a_aaaaaa"]], "e1", {"b"}),
        (7, [[6, "plugin_a_aaaaaa"], [7, "plugin_b_aaaaaa"]], "e1", set()),
        (6, [[6, "plugin_x_aaaaaa"]], "e1", {"a", "b"}),
        (6, [[6, "*"]], "e1", set()),
        (8, [[7, "plugin_x_aaaaaa"], [8, "plugin_x_aaaaaa"]], "e1", set()),  # 6 is missing
        (8, [[6, "plugin_x_aaaaaa"]], "e1", set()),  # 7 and 8 are missing
        (6, [], "e1", set()),
        (5, [[5, "*"]], "e2", set()),  # restored from a backup
        (4, [[4, "plugin_x_aaaaaa"]], "e1", {"a", "b"}),  # overtaken by an invocation that knew more
        (4, [[4, "plugin_x_aaaaaa"]], "e2", set()),
    ],
)
def test_what_changed_is_unloaded(
    bench: Bench, version: int, changes: list[list[object]], epoch: str, kept: set[str]
) -> None:
    for name in ("a", "b"):
        event = bench.wasm_event(answering('{"result":1}'), plugin_id=f"plugin_{name}_aaaaaa")
        bench.run(changed(event, 5, [5, "*"]))

    other = bench.wasm_event(answering('{"result":1}'), plugin_id="plugin_other_aaaaaa")
    answer = bench.run(changed(other, version, *changes, epoch=epoch))

    names = {plugin_id.split("_")[1] for plugin_id, _ in loaded(answer)}
    assert names == kept | {"other"}
    assert answer["scopeVersion"] == version


def test_what_an_overtaken_invocation_loads_is_unloaded_by_the_next(bench: Bench) -> None:
    """Disabled in version 6 while an invocation that had read version 5 was on its way: it may run the plugin, but
    must not leave it loaded."""
    gone = bench.wasm_event(answering('{"result":1}'), plugin_id="plugin_gone_aaaaaa")
    other = bench.wasm_event(answering('{"result":1}'), plugin_id="plugin_other_aaaaaa")
    change = [6, "plugin_gone_aaaaaa"]
    bench.run(changed(other, 5, [5, "*"]))
    bench.run(changed(other, 6, [5, "*"], change))

    late = bench.run(changed(gone, 5, [5, "*"]))
    assert loaded(late) == {("plugin_gone_aaaaaa", "1.0.0"), ("plugin_other_aaaaaa", "1.0.0")}
    answer = bench.run(changed(other, 6, [5, "*"], change))

    assert loaded(answer) == {("plugin_other_aaaaaa", "1.0.0")}
    assert answer["coldLoad"] is False


def test_the_least_recently_used_instance_goes_first(server: ObjectServer, tmp_path: Path) -> None:
    runtime = Runtime(tmp_path, max_instances=2)
    bench = Bench(runtime, server, tmp_path)
    events = {
        name: bench.wasm_event(answering('{"result":1}'), plugin_id=f"plugin_{name}_aaaaaa") for name in "abc"
    }

    for name in ("a", "b", "a"):
        bench.run(events[name])
    answer = bench.run(events["c"])

    assert {plugin_id.split("_")[1] for plugin_id, _ in loaded(answer)} == {"a", "c"}
    runtime.close()


def test_three_tiers(bench: Bench) -> None:
    event = bench.wasm_event(ECHO_WAT)
    bench.run(event)
    assert (bench.folder / "plugin_sample_aaaaaa_1.0.0.zip").is_file()

    bench.run(event)
    cold = bench.run(changed(event, 2, [2, "*"]))

    assert cold["coldLoad"] is True  # from the folder
    assert len(bench.server.requests) == 1


def test_a_compiled_module_is_used_where_the_engine_is_the_same(bench: Bench) -> None:
    event = bench.compiled(bench.wasm_event(ECHO_WAT), ECHO_WAT)

    assert bench.run(event)["ok"]
    assert len(bench.server.requests) == 2
    other = {**event["compiled"], "engine": "wasmtime-1"}
    bench.runtime.handle(changed({**event, "compiled": other}, 2, [2, "*"]))
    assert len(bench.server.requests) == 2  # compiled from the package that is in the folder


def test_a_compiled_module_with_another_checksum_is_never_run(bench: Bench) -> None:
    event = bench.compiled(bench.wasm_event(ECHO_WAT), ECHO_WAT)
    name = event["compiled"]["url"].rpartition("/")[2].partition("?")[0]
    bench.server.objects[name] = bench.server.objects[name][:-1] + b"!"

    answer = bench.run(event)

    assert answer["error"]["code"] == "plugin.checksum_mismatch"


@pytest.mark.parametrize(
    "change",
    [
        {"plugin": None},
        {"operation": "delete"},
        {"artifact": {"url": "file:///etc/passwd", "sizeBytes": 1}},
        {"timeoutMs": "soon"},
        {"cache": {"version": "x"}},
    ],
)
def test_a_malformed_event_is_an_answer(bench: Bench, change: dict[str, object]) -> None:
    answer = bench.run({**bench.wasm_event(ECHO_WAT), **change})

    assert (answer["error"]["kind"], answer["error"]["code"]) == ("internal", "runtime.bad_event")


@pytest.mark.parametrize("field", ["pluginId", "version"])
def test_names_that_could_leave_the_folder_are_refused(bench: Bench, field: str) -> None:
    event = bench.wasm_event(ECHO_WAT)
    event["plugin"][field] = "../../evil"

    assert bench.run(event)["error"]["code"] == "runtime.bad_event"


def test_a_crashed_child_is_started_again(bench: Bench) -> None:
    source = PYTHON.replace(
        "self.count += 1", "self.count += 1\n        if action == 'die': import os; os._exit(9)"
    )
    event = bench.python_event(source)
    bench.run(event)

    died = bench.run({**event, "action": "die"})
    after = bench.run(event)

    assert (died["error"]["kind"], died["error"]["code"]) == ("plugin", "plugin.crashed")
    assert (after["result"]["count"], after["coldLoad"]) == (1, True)


def test_unloading_leaves_no_folder(bench: Bench) -> None:
    assert bench.run(bench.python_event(PYTHON))["ok"]
    (folder,) = _run_folders()
    assert Path(folder, "main.py").is_file()

    answer = bench.run(changed(bench.wasm_event(ECHO_WAT, plugin_id="plugin_other_aaaaaa"), 2, [2, "*"]))

    assert loaded(answer) == {("plugin_other_aaaaaa", "1.0.0")}
    assert _run_folders() == []


@pytest.mark.parametrize(
    ("cleanup", "expected"),
    [
        ('print("cleaned")', "cleaned\n"),
        ('raise RuntimeError("stuck")', "RuntimeError: stuck\n"),
        ("__import__('time').sleep(60)", ""),
    ],
    ids=["works", "raises", "hangs"],
)
def test_cleanup_is_called_and_the_process_ends_whatever_it_does(
    tmp_path: Path, cleanup: str, expected: str
) -> None:
    archive = tmp_path / "p.zip"
    archive.write_bytes(package({"main.py": PYTHON.replace('print("cleaned")', cleanup)}))
    resources = Resources(cpu_millis=1000, memory_bytes=64 * 1024 * 1024)
    reference = PluginRef("plugin_a_aaaaaa", "1.0.0", "0" * 64, "python", "main.py", resources, ())
    plugin = PythonPlugin(reference, archive, None, Sandbox(), Deadline.after(20_000), Log())
    pid, log = plugin.pid, Log()

    plugin.close(log)

    assert log.text().endswith(expected)
    assert not Path(f"/proc/{pid}").exists()


def _run_folders() -> list[str]:
    return glob.glob(os.path.join(tempfile.gettempdir(), f"hotplug-run-{os.getpid()}-*"))


def test_folders_of_dead_runtimes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = Path(tempfile.gettempdir(), f"hotplug-run-{ended.pid}-x")
    stale.mkdir()
    alive = Path(tempfile.gettempdir(), f"hotplug-run-{os.getppid()}-x")
    alive.mkdir()

    Runtime(tmp_path).close()

    assert not stale.exists()
    alive.rmdir()


def test_a_plugins_own_error_carries_its_code_and_data(bench: Bench) -> None:
    source = """
class Refused(Exception):
    code = "channel_archived"
    data = {"channel": 7}
class Plugin:
    def execute(self, action, params, context):
        print("trying")
        raise Refused("the channel is archived")
"""
    answer = bench.run(bench.python_event(source))

    assert answer["error"] == {
        "kind": "plugin",
        "code": "channel_archived",
        "message": "Refused: the channel is archived",
        "data": {"channel": 7},
    }
    assert answer["logs"].startswith("trying\n")
    assert 'File "main.py", line 8, in execute' in answer["logs"]
    assert bench.run(bench.python_event(source))["coldLoad"] is False
