"""A flow's code in its child process: what it may do, what it may not, and that no run finds what another one left.

The runtime runs here as it does on Lambda, with real child processes, and where it can also as another user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.plugins.runtime import process
from chalicelib.plugins.runtime.locked_child import RUN_FOLDER_PREFIX, Sandbox
from chalicelib.plugins.runtime.service import Runtime
from tests.integration.test_attacks import SPY
from tests.integration.test_runtime_sandbox import ATTACKS, NOBODY, ROOT, _interpreter
from tests.unit.plugins.runtime.support import MIB, Bench, ObjectServer

# Runs what it is given; `out` is the result. A stranger's code, in short.
ANYTHING = """
def main(code, **more):
    names = dict(more)
    exec(code, names)
    return {"out": names.get("out")}
"""
IN_ITS_FOLDER = "write into its folder"  # a plugin's; code has none


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture(params=["landlock", "no-landlock"])
def walls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """As on a kernel that has Landlock, and as on Lambda, whose kernel has none."""
    made = Runtime(tmp_path / "cache", sandbox=Sandbox(landlock=request.param == "landlock"))
    yield made
    made.close()


def event(
    source: str, *, timeout_ms: int = 5_000, limits: dict[str, int] | None = None, **inputs: Any
) -> Any:
    return {
        "operation": "code",
        "code": {"source": source, "inputs": inputs, **(limits or {})},
        "timeoutMs": timeout_ms,
    }


def run(runtime: Runtime, source: str, **more: Any) -> dict[str, Any]:
    """Run code, then see that the runtime still works and that nothing is left of it."""
    before = process.children(os.getpid())
    answer = runtime.handle(event(source, **more))
    json.dumps(answer)  # it travels as JSON
    after = runtime.handle(event("def main(n):\n    return {'n': n * 7}", n=6))
    assert after.get("result") == {"n": 42}, after
    assert process.children(os.getpid()) == before
    assert not list(Path(tempfile.gettempdir()).glob(f"{RUN_FOLDER_PREFIX}{os.getpid()}-*"))
    return answer


def anything(runtime: Runtime, code: str, **more: Any) -> dict[str, Any]:
    return run(runtime, ANYTHING, code=code, **more)


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != IN_ITS_FOLDER])
def test_what_code_may_not_do(walls: Runtime, attack: str) -> None:
    error = anything(walls, ATTACKS[attack])["error"]

    assert (error["kind"], error["code"]) == ("plugin", "code.failed"), error
    assert error["message"].startswith(("PermissionError", "ValueError: not allowed to raise")), error


def test_a_runtime_that_is_not_root_holds_them_too() -> None:
    interpreter = _interpreter()
    assert interpreter is not None, "no interpreter of 3.11 or later that an unprivileged user can start"
    attacks = {name: code for name, code in ATTACKS.items() if name != IN_ITS_FOLDER} | {"good": "out = 42"}
    script = (
        "import json, os, sys, tempfile\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from chalicelib.plugins.runtime.locked_child import Sandbox\n"
        "from chalicelib.plugins.runtime.service import Runtime\n"
        "events = json.load(sys.stdin)\n"
        "runtime = Runtime(Path(tempfile.mkdtemp()), sandbox=Sandbox(landlock=False))\n"
        "for name, event in events.items():\n"
        "    print(json.dumps([name, os.geteuid(), runtime.handle(event)]))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [interpreter, "-c", script, str(ROOT)],
            input=json.dumps({name: event(ANYTHING, code=code) for name, code in attacks.items()}),
            text=True,
            user=NOBODY if os.geteuid() == 0 else None,
            env={"TMPDIR": folder},
            cwd="/",
            capture_output=True,
            timeout=120,
            check=False,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(lines) == len(attacks), done.stderr[-2000:]
    for name, user, answer in lines:
        assert user != 0
        if name == "good":
            assert answer.get("result") == {"out": 42}, answer
        else:
            message = answer["error"]["message"]
            assert message.startswith(("PermissionError", "ValueError: not allowed")), (name, answer)


def test_code_finds_no_environment(runtime: Runtime) -> None:
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wJalrXUtnFEMI"
    os.environ["HOTPLUG_DATABASE_URL"] = "mysql+pymysql://root:secret@db/hotplug"

    answer = anything(runtime, "import os; out = dict(os.environ)")

    assert answer["result"] == {"out": {}}


def test_code_reads_nothing_of_a_plugin(walls: Runtime, tmp_path: Path) -> None:
    server = ObjectServer()
    bench = Bench(walls, server, tmp_path / "cache")
    source = (
        "class Plugin:\n    def execute(self, *_):\n        import os\n        return [__file__, os.getpid()]"
    )
    try:
        file, pid = bench.run(bench.python_event(source, config={"apiKey": "s"}))["result"]
        archive = next((tmp_path / "cache").glob("*.zip"))
        for path in (file, archive):
            assert Path(path).exists()  # it is there; we may
            error = walls.handle(event(ANYTHING, code=f"open({str(path)!r}).read()"))["error"]
            assert error["message"].startswith("PermissionError"), error
        # Natively, where no audit hook looks: its process has the plugin's configuration in its memory.
        spied = walls.handle(event(ANYTHING, code=SPY, params={"pid": pid}))
        assert not any(spied["result"]["out"].values()), spied
    finally:
        server.close()


LEAVES = """
import builtins, json, sys, threading, time
def main(secret):
    found = getattr(builtins, "kept", None), globals().get("kept"), getattr(json, "kept", None)
    builtins.kept = json.kept = globals()["kept"] = secret
    json.dumps = lambda *_, **__: '{"result":{"found":"forged"}}'
    threading.Thread(target=time.sleep, args=(60,)).start()
    return {"found": [one for one in found if one is not None]}
"""


def test_no_run_finds_what_another_left(runtime: Runtime) -> None:
    """The same source twice, of one tenant, for two end users."""
    honest = LEAVES.replace("    json.dumps", "    #")
    answers = [runtime.handle(event(source, secret="s")) for source in (honest, LEAVES, honest)]

    assert [answer["result"] for answer in answers] == [{"found": []}, {"found": "forged"}, {"found": []}]


LIMITS: dict[str, tuple[str, str]] = {
    "infinite loop": ("while True: pass", "code.timeout"),
    "infinite loop that ignores signals": (
        "import signal\nfor n in range(1, 32):\n"
        "    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "code.timeout",
    ),
    "sleep": ("import time; time.sleep(60)", "code.timeout"),
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "code.out_of_memory"),
    "one large allocation": ("out = len(bytearray(1 << 34))", "code.out_of_memory"),
    "large result": ("out = 'x' * (1 << 20)", "code.result_too_large"),
    "log flood": ("while True: print('x' * 65536)", "code.timeout"),
    "recursion": ("def f(): f()\nf()", "code.failed"),
    "crash": ("import ctypes; ctypes.string_at(0)", "code.crashed"),
    "exit": ("import os; os._exit(3)", "code.crashed"),
    "sys.exit": ("import sys; sys.exit(3)", "code.failed"),
    "threads without end": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        "code.failed",
    ),
    "result that is no JSON": ("out = object()", "code.result_invalid"),
    "result with a cycle": ("out = []; out.append(out)", "code.result_invalid"),
    "deep result": ("out = []\nfor _ in range(500): out = [out]", "code.result_invalid"),
    "not a number": ("out = float('nan')", "code.result_invalid"),
    "lone surrogate": ("out = '\\ud800'", "code.result_invalid"),
    "closing every descriptor": ("import os; os.closerange(0, 1024)", "code.crashed"),
    "stop itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "code.timeout"),
    "endless frame": (
        "import os\nfor n in range(3, 1024):\n  try: os.write(n, b'\\xff\\xff\\xff\\xff')\n"
        "  except OSError: pass",
        "code.result_too_large",
    ),
    "a frame of its own": (
        "import json, os, struct, sys\ntext = json.dumps({'result': {'out': 'x' * (2 << 20)}}).encode()\n"
        "os.write(int(sys.argv[2]), struct.pack('>I', len(text)) + text[:1000])\n"
        "rest = text[1000:]\nwhile rest: rest = rest[os.write(int(sys.argv[2]), rest):]\nos._exit(0)",
        "code.result_too_large",
    ),
    "a frame that is no result": (
        "import os, struct, sys\ntext = b'{\"result\": [1]}'\n"
        "os.write(int(sys.argv[2]), struct.pack('>I', len(text)) + text); os._exit(0)",
        "code.result_invalid",
    ),
    "a frame with a kind of its own": (
        'import os, struct, sys\ntext = b\'{"error": {"kind": "internal", "code": "x.y", "message": "m"}}\'\n'
        "os.write(int(sys.argv[2]), struct.pack('>I', len(text)) + text); os._exit(0)",
        "code.failed",
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_code(runtime: Runtime, name: str) -> None:
    code, expected = LIMITS[name]

    answer = anything(runtime, code, timeout_ms=1_500)

    assert not answer["ok"], answer
    assert answer["error"]["code"] == expected, answer["error"]
    assert answer["durationMs"] < 6_000
    assert len(answer["logs"].encode()) <= 64 * 1024


def test_its_processor_time_is_not_that_of_the_clock(runtime: Runtime) -> None:
    answer = anything(runtime, "while True: pass", timeout_ms=20_000, limits={"cpuMs": 500})

    assert answer["error"]["code"] == "code.cpu_exhausted"
    assert answer["durationMs"] < 5_000


def test_the_memory_that_it_has_by_default(runtime: Runtime) -> None:
    fits = anything(runtime, f"out = len(bytearray({200 * MIB}))")
    over = anything(runtime, f"out = len(bytearray({300 * MIB}))")

    assert fits["result"] == {"out": 200 * MIB}
    assert over["error"]["message"] == "The code needs more than its 256 MiB of memory."


def test_a_result_may_take_a_mebibyte(runtime: Runtime) -> None:
    envelope = len('{"result": {"out": ""}}')

    fits = anything(runtime, f"out = 'x' * {MIB - envelope}")

    assert len(fits["result"]["out"]) == MIB - envelope


# Sources, and the message that each fails with.
TOLD = {
    "exception": (
        "def main():\n    x = 1\n    return 1 / 0",
        "ZeroDivisionError: division by zero (line 3)",
    ),
    "below main": (
        "def inner():\n    raise KeyError('a')\ndef main():\n    inner()",
        "KeyError: 'a' (line 2)",
    ),
    "in a library": (
        "import json\ndef main():\n    return json.loads('{')",
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1) (line 3)",
    ),
    "while it is loaded": ("x = 1\nraise ValueError('no')\n", "ValueError: no (line 2)"),
    "syntax": ("def main():\n    return {\n", "SyntaxError: '{' was never closed (line 2)"),
    "no main": ("x = 1", "NameError: The code defines no function main."),
    "main is no function": ("main = 1", "NameError: The code defines no function main."),
    "another input": (
        "def main(a):\n    return {}",
        "TypeError: main() got an unexpected keyword argument 'given'",
    ),
    "nothing said": ("def main(given):\n    raise RuntimeError", "RuntimeError (line 2)"),
    "hostile text": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\ndef main(given):\n    raise E",
        "E (line 4)",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_is_told_of_a_failure(runtime: Runtime, name: str) -> None:
    source, message = TOLD[name]
    inputs = {"given": 1} if "given" in source or name == "another input" else {}

    error = runtime.handle(event(source, **inputs))["error"]

    assert (error["code"], error["message"]) == ("code.failed", message)


@pytest.mark.parametrize(
    "code",
    [
        "from json import nothing",
        "import json; raise ValueError(json.__file__)",
        "import sys; raise ValueError(' '.join(sys.path) + sys.prefix + sys.executable)",
    ],
)
def test_no_message_tells_where_this_machine_keeps_things(walls: Runtime, code: str) -> None:
    message = anything(walls, code)["error"]["message"]

    places = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), str(ROOT)}
    assert not [place for place in places if place in message], message


def test_a_message_is_bounded(runtime: Runtime) -> None:
    error = anything(runtime, "raise ValueError('x' * 1_000_000)")["error"]

    assert len(error["message"]) == 2_000
    assert error["message"].endswith("(line 4)")


USES = {
    "the whole module": (
        "import re\nFACTOR = 3\ndef _twice(n): return 2 * n\n"
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
        "def main(n):\n    return {'n': _twice(Point(n).x) * FACTOR, 'm': re.sub('a', 'b', 'aa')}",
        {"n": 7},
        {"n": 42, "m": "bb"},
    ),
    "values of every type": (
        "def main(**inputs):\n    return inputs",
        {"a": [1, 2.5, None, True], "b": {"c": "bücher"}, "d": ""},
        {"a": [1, 2.5, None, True], "b": {"c": "bücher"}, "d": ""},
    ),
    "as a script it does nothing": (
        "def main():\n    return {'a': 1}\nif __name__ == '__main__':\n    raise SystemExit(main())",
        {},
        {"a": 1},
    ),
    "annotations are values": (
        "def main(n: int):\n    return {'is': main.__annotations__['n'] is int}",
        {"n": 1},
        {"is": True},
    ),
    "its output is no answer": (
        "import sys\ndef main():\n    print('{\"result\": {}}'); print('x', file=sys.stderr)\n    return {'a': 1}",
        {},
        {"a": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_what_code_may_do(walls: Runtime, name: str) -> None:
    source, inputs, expected = USES[name]

    answer = run(walls, source, **inputs)

    assert answer.get("result") == expected, answer


@pytest.mark.parametrize(
    "change",
    [
        {"source": 1},
        {"inputs": []},
        {"inputs": None},
        {"source": "x" * (MIB + 1)},
        {"memoryBytes": "much"},
    ],
)
def test_a_malformed_invocation_is_named(runtime: Runtime, change: dict[str, Any]) -> None:
    asked = event("def main(): return {}")
    asked["code"].update(change)

    assert runtime.handle(asked)["error"]["code"] == "runtime.bad_event"


def test_half_a_character_in_an_input(runtime: Runtime) -> None:
    error = runtime.handle(event("def main(a): return {}", a="\ud800"))["error"]

    assert error["message"] == "An input holds half a character (a lone surrogate)."


def test_without_a_filter_code_is_refused(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")

    error = runtime.handle(event("def main(): return {}"))["error"]

    assert (error["kind"], error["code"]) == ("refused", "plugin.sandbox_unavailable")


def test_code_lets_the_runtime_follow_what_changed(runtime: Runtime, tmp_path: Path) -> None:
    """Its invocation is one like any other: a plugin that was disabled before it is not loaded after it."""
    server = ObjectServer()
    bench = Bench(runtime, server, tmp_path / "cache")
    source = "class Plugin:\n    def execute(self, *_): return 1"
    try:
        loaded = bench.run(bench.python_event(source))
        asked = event("def main(): return {}")
        asked["cache"] = {"version": 2, "epoch": "e1", "changes": [[2, loaded["loaded"][0]["pluginId"]]]}
        answer = runtime.handle(asked)
    finally:
        server.close()

    assert (answer["loaded"], answer["scopeVersion"]) == ([], 2)
