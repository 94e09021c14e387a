"""Hostile plugins in both runtimes: each ends as a clean error within its limit, and the next execution works.

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
from chalicelib.plugins.runtime.locked_child import Sandbox
from chalicelib.plugins.runtime.service import Runtime
from tests.unit.plugins.runtime.support import ECHO_WAT, MIB, Bench, ObjectServer

ROOT = Path(__file__).parents[2]

# Runs what its parameters say; `out` is the result. A stranger's code, in short.
PYTHON = """
class Plugin:
    def execute(self, action, params, context):
        names = {"context": context, "params": params}
        exec(params["code"], names)
        return names.get("out")
"""


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from _benches(tmp_path, Sandbox())


@pytest.fixture(params=["landlock", "no-landlock"])
def walls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """As on a kernel that has Landlock, and as on Lambda, whose kernel has none."""
    yield from _benches(tmp_path, Sandbox(landlock=request.param == "landlock"))


def _benches(folder: Path, sandbox: Sandbox) -> Iterator[Bench]:
    server = ObjectServer()
    runtime = Runtime(folder / "cache", sandbox=sandbox)
    yield Bench(runtime, server, folder / "cache")
    runtime.close()
    server.close()


def run(bench: Bench, code: str, **changes: Any) -> dict[str, Any]:
    """Run code in the python plugin, then see that the plugin still works."""
    answer = bench.run(bench.python_event(PYTHON, params={"code": code}, **changes))
    after = bench.run(bench.python_event(PYTHON, params={"code": "out = 6 * 7"}, **changes))
    assert after.get("result") == 42, after
    return answer


PERMISSION = ("plugin", "plugin.exception", "PermissionError")

ATTACKS = {
    "read /etc/passwd": "out = open('/etc/passwd').read()",
    "list /": "import os; out = os.listdir('/')",
    "read its parent's environment": "import os; out = open(f'/proc/{os.getppid()}/environ').read()",
    "read its parent's memory": "import os; out = open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "read its own environment from /proc": "out = open('/proc/self/environ').read()",
    "write into its folder": "import os\n"
    "open(os.path.join(os.path.dirname(__import__('hotplug_plugin').__file__), 'x'), 'w')",
    "write into /tmp": "open('/tmp/x', 'w')",
    "create with os.open": "import os; os.open('/dev/shm/x', os.O_RDWR | os.O_CREAT)",
    "delete": "import os; os.unlink('/tmp/x')",
    "make a folder": "import os; os.mkdir('/tmp/x')",
    "open a TCP socket": "import socket; socket.socket()",
    "open a unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "open a raw socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "make a socket pair": "import socket; socket.socketpair()",
    "ask the metadata service": "import socket; socket.create_connection(('169.254.169.254', 80), 1)",
    "ask the runtime API": "import socket; socket.create_connection(('127.0.0.1', 9001), 1)",
    "exec": "import os; os.execv('/bin/sh', ['sh', '-c', 'id'])",
    "spawn": "import subprocess; subprocess.run(['/bin/sh', '-c', 'id'])",
    "posix_spawn": "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "leave the session": "import os; os.setsid()",
    "kill its parent": "import os; os.kill(os.getppid(), 9)",
    "stop everything": "import os; os.kill(-1, 19)",
    "raise its own limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "become root": "import os; os.setuid(0)",
    "leave by namespaces": "import ctypes; l = ctypes.CDLL(None, use_errno=True); r = l.unshare(0x10000000)\n"
    "if r: raise PermissionError(ctypes.get_errno())",
    "trace its parent": "import ctypes, os; l = ctypes.CDLL(None, use_errno=True)\n"
    "r = l.ptrace(16, os.getppid(), 0, 0)\n"
    "if r: raise PermissionError(ctypes.get_errno())",
    "read its parent by process_vm_readv": "import ctypes, os; l = ctypes.CDLL(None, use_errno=True)\n"
    "if l.process_vm_readv(os.getppid(), None, 0, None, 0, 0): raise PermissionError(ctypes.get_errno())",
    "io_uring": "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
    "if l.syscall(425, 1, None) < 0: raise PermissionError(ctypes.get_errno())",
    "memfd": "import os; os.memfd_create('x')",
    "signal another by SIGIO": "import fcntl, os; r, w = os.pipe(); fcntl.fcntl(r, 8, os.getppid())",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_python_plugin_may_not_do(walls: Bench, attack: str) -> None:
    error = run(walls, ATTACKS[attack])["error"]

    # setrlimit says ValueError for EPERM where the limit would rise.
    assert (error["kind"], error["code"]) == PERMISSION[:2], error
    assert error["message"].startswith(("PermissionError", "ValueError: not allowed to raise")), error


def test_a_python_plugin_reads_nothing_of_another(walls: Bench) -> None:
    other = walls.run(
        walls.python_event(
            PYTHON,
            plugin_id="plugin_other_aaaaaa",
            params={"code": "out = __import__('hotplug_plugin').__file__"},
        )
    )["result"]
    assert Path(other).read_text() == PYTHON  # it is there; we may
    archive = next(walls.folder.glob("*.zip"))

    for path in (other, archive):
        error = run(walls, f"out = open({str(path)!r}).read()")["error"]
        assert error["message"].startswith("PermissionError"), error


def test_a_python_plugin_finds_no_environment(bench: Bench) -> None:
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wJalrXUtnFEMI"
    os.environ["HOTPLUG_DATABASE_URL"] = "mysql+pymysql://root:secret@db/hotplug"
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "runtime"

    answer = run(bench, "import os; out = dict(os.environ)")

    assert answer["result"] == {}
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    assert "HOTPLUG_DATABASE_URL" not in os.environ
    assert os.environ["AWS_LAMBDA_FUNCTION_NAME"] == "runtime"  # the runtime interface client reads it


def test_credentials_leave_what_the_kernel_shows_of_the_runtime() -> None:
    script = (
        "import os; from chalicelib.plugins.runtime import process; process.harden();"
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0));"
        "print(b'wJalrXUtnFEMI' in open('/proc/self/environ', 'rb').read() if os.geteuid() == 0 else False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stdout.split() == ["0", "False"], done


LIMITS = {
    "infinite loop": ("while True: pass", "timeout"),
    "infinite loop that ignores signals": (
        "import signal\nfor n in range(1, 32):\n"
        "    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
    ),
    "sleep": ("import time; time.sleep(60)", "timeout"),
    "memory": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory"),
    "one large allocation": ("out = len(bytearray(1 << 34))", "memory"),
    "large result": ("out = 'x' * (6 << 20)", "output"),
    "log flood": ("while True: print('x' * 65536)", "timeout"),
    "recursion": ("def f(): f()\nf()", "plugin"),
    "recursion in native code": (
        "import sys; sys.setrecursionlimit(10**8)\ndef f(x): return f([x])\nf(0)",
        None,
    ),
    "crash": ("import ctypes; ctypes.string_at(0)", "plugin"),
    "exit": ("import os; os._exit(3)", "plugin"),
    "sys.exit": ("import sys; sys.exit(3)", "plugin"),
    "threads without end": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        "plugin",
    ),
    "result that is no JSON": ("out = object()", "plugin"),
    "result with a cycle": ("out = []; out.append(out)", "plugin"),
    "deep result": ("out = []\nfor _ in range(500): out = [out]", "plugin"),
    "lone surrogate": ("out = '\\ud800'", "plugin"),
    "closing every descriptor": ("import os; os.closerange(0, 1024)", "plugin"),
    "garbage on the pipe": (
        "import os, sys\nfor n in range(3, 1024):\n  try: os.write(n, b'\\x00\\x00\\x00\\x04nope')\n"
        "  except OSError: pass",
        "plugin",
    ),
    "endless frame": (
        "import os\nfor n in range(3, 1024):\n  try: os.write(n, b'\\xff\\xff\\xff\\xff')\n"
        "  except OSError: pass",
        "output",
    ),
    "frames of another execution without end": (
        "import os\npipe = context.http._pipe._outgoing\nwhile True: os.write(pipe, b'\\x00\\x00\\x00\\x02{}' * 1000)",
        "timeout",
    ),
    "a frame byte by byte": (
        "import os\npipe = context.http._pipe._outgoing\nos.write(pipe, b'\\x00\\x50\\x00\\x00')\n"
        "while True: os.write(pipe, b' ')",
        "timeout",
    ),
    "stop itself": ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_a_python_plugin(bench: Bench, name: str) -> None:
    code, kind = LIMITS[name]

    answer = run(bench, code, timeoutMs=1_500)

    assert not answer["ok"], answer
    if kind is not None:
        assert answer["error"]["kind"] == kind, answer["error"]
    assert answer["durationMs"] < 6_000
    assert len(answer["logs"].encode()) <= 64 * 1024


def test_processor_time_of_a_python_plugin(bench: Bench) -> None:
    event = bench.python_event(PYTHON, params={"code": "while True: pass"}, timeoutMs=20_000)
    event["plugin"]["resources"]["cpuMillis"] = 10

    answer = bench.run(event)

    assert answer["error"]["code"] == "plugin.cpu_exhausted"


@pytest.mark.parametrize(
    "code",
    [
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: out = sum(pool.map(lambda n: n, range(100))) == 4950",
        "import threading; t = threading.Thread(target=print); t.start(); t.join(); out = True",
        "import json, re, hashlib, hmac, base64, datetime, decimal, random, uuid, zlib, csv, logging, email.message\n"
        "import urllib.parse, html, difflib, statistics, string, textwrap, xml.etree.ElementTree, sqlite3, secrets\n"
        "out = hashlib.sha256(b'x').hexdigest()[:4] == '2d71'",
        "import asyncio, multiprocessing, ssl, ctypes, unittest.mock, http.client; out = True",
        "import encodings.idna; out = 'bücher'.encode('idna') == b'xn--bcher-kva'",
        "import time; time.sleep(0.01); out = time.time() > 0 and time.monotonic() > 0",
        "import os; out = len(os.urandom(8)) == 8 and os.getpid() > 0 and bool(os.getcwd())",
        "import signal, os; signal.signal(signal.SIGUSR1, lambda *a: None)\n"
        "os.kill(os.getpid(), signal.SIGUSR1); out = True",
        "import zoneinfo; out = True",
    ],
    ids=["pool", "thread", "library", "heavy-imports", "idna", "time", "os", "own-signal", "zoneinfo"],
)
def test_what_a_python_plugin_may_do(walls: Bench, code: str) -> None:
    answer = run(walls, code)

    assert answer.get("result") is True, answer


def test_without_a_filter_a_python_plugin_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    for bench in _benches(tmp_path, Sandbox()):
        answer = bench.run(bench.python_event(PYTHON, params={"code": "out = 1"}))

        assert (answer["error"]["kind"], answer["error"]["code"]) == ("refused", "plugin.sandbox_unavailable")
        assert answer["loaded"] == []


def test_unsandboxed_descendants_are_killed_wherever_they_hide(tmp_path: Path) -> None:
    sandbox = Sandbox.from_environment({"HOTPLUG_UNSANDBOXED_PYTHON": "1"})
    code = """
import os, time
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    pid = os.fork()
    if not pid:
        time.sleep(60)
    os.write(writer, str(pid).encode())
    os._exit(0)
out = int(os.read(reader, 20))
"""
    for bench in _benches(tmp_path, sandbox):
        before = process.children(os.getpid())
        grandchild = bench.run(bench.python_event(PYTHON, params={"code": code}))["result"]
        assert os.path.exists(f"/proc/{grandchild}")
        bench.runtime.close()
        assert not os.path.exists(f"/proc/{grandchild}")
        assert process.children(os.getpid()) == before


WASM_LIMITS = {
    "infinite loop": ("(loop br 0)", "timeout", "plugin.timeout"),
    "memory growth": (
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
        "memory",
        "plugin.out_of_memory",
    ),
    "output flood": (
        "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 65536))"
        "(loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) br 0)",
        "output",
        "plugin.result_too_large",
    ),
    "log flood": (
        "(i32.store (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 65536))"
        "(loop (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))) br 0)",
        "timeout",
        "plugin.timeout",
    ),
    "deep recursion": ("(call $recurse)", "plugin", "plugin.stack_overflow"),
    "sleep": (
        "(i32.store (i32.const 528) (i32.const 1)) (i64.store (i32.const 536) (i64.const 5000000000))"
        "(drop (call $poll (i32.const 512) (i32.const 1024) (i32.const 1) (i32.const 2048)))",
        "timeout",
        "plugin.timeout",
    ),
    "random without end": (
        "(loop (drop (call $random (i32.const 0) (i32.const 65536))) br 0)",
        "timeout",
        "plugin.timeout",
    ),
    "division by zero": ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "plugin", "plugin.trap"),
    "out of bounds": ("(drop (i32.load (i32.const -4)))", "plugin", "plugin.trap"),
}


@pytest.mark.parametrize("name", WASM_LIMITS)
def test_limits_of_a_wasm_plugin(bench: Bench, name: str) -> None:
    body, kind, code = WASM_LIMITS[name]
    wat = f"""
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $recurse (call $recurse))
  (func (export "_start") {body}))
"""
    answer = bench.run(bench.wasm_event(wat, timeoutMs=300, memory=16 * MIB))

    assert (answer["error"]["kind"], answer["error"]["code"]) == (kind, code)
    assert answer["durationMs"] < 3_000
    assert len(answer["logs"].encode()) <= 64 * 1024
    assert bench.run(bench.wasm_event(ECHO_WAT, plugin_id="plugin_good_aaaaaa"))["ok"]


def _figures(bench: Bench, answer: dict[str, Any]) -> tuple[int, int, int]:
    return answer["memoryBytes"], len(os.listdir("/proc/self/fd")), len(process.children(os.getpid()))


@pytest.mark.slow
def test_memory_comes_back_over_200_reloads(bench: Bench) -> None:
    padding = "".join(
        f"(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {n})))" for n in range(300)
    )
    wat = ECHO_WAT.rstrip()[:-1] + padding + ")"
    versions = [
        (
            bench.compiled(bench.wasm_event(wat, version=f"1.0.{number}", plugin_id="plugin_w_aaaaaa"), wat),
            bench.python_event(
                f"data = bytearray({4 * MIB})\n" + PYTHON,
                version=f"1.0.{number}",
                plugin_id="plugin_p_aaaaaa",
                params={"code": "out = 1"},
            ),
        )
        for number in range(2)
    ]

    def reload(times: int) -> tuple[int, int, int]:
        answer: dict[str, Any] = {}
        for turn in range(times):
            for event in versions[turn % 2]:
                answer = bench.run(event)
                assert answer["ok"], answer
                assert answer["coldLoad"]
        return _figures(bench, answer)

    memory, descriptors, children = reload(20)
    after = reload(200)

    assert after[1:] == (descriptors, children)
    assert abs(after[0] - memory) <= memory * 0.1, (memory, after[0])
    # Disabled and uninstalled: nothing stays loaded.
    idle = bench.run(
        bench.wasm_event(
            ECHO_WAT,
            plugin_id="plugin_other_aaaaaa",
            cache={"version": 3, "epoch": "e1", "changes": [[2, "plugin_w_aaaaaa"], [3, "plugin_p_aaaaaa"]]},
        )
    )
    assert [plugin["pluginId"] for plugin in idle["loaded"]] == ["plugin_other_aaaaaa"]
    assert len(process.children(os.getpid())) == children - 1


NOBODY = 65_534


def _interpreter() -> str | None:
    """A python that an unprivileged user can start."""
    question = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run(
                [candidate, "-c", question],
                user=NOBODY if os.geteuid() == 0 else None,
                cwd="/",
                timeout=30,
                check=False,
            )
        except (FileNotFoundError, PermissionError):
            continue
        if done.returncode == 0:
            return candidate
    return None


AS_USER = """
import json, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from chalicelib.plugins.runtime.locked_child import Sandbox
from chalicelib.plugins.runtime.service import Runtime
attacks, events = json.load(sys.stdin)
for landlock in (True, False):
    runtime = Runtime(Path(tempfile.mkdtemp()), sandbox=Sandbox(landlock=landlock))
    for name, event in zip(attacks, events):
        print(json.dumps([landlock, name, os.geteuid(), runtime.handle(event)]))
    runtime.close()
"""


def test_a_runtime_that_is_not_root_holds_them_too(bench: Bench) -> None:
    """As on Lambda: the child has the user of its parent, and no other user's file permissions to hide behind."""
    interpreter = _interpreter()
    if interpreter is None:
        pytest.fail("no interpreter of 3.11 or later that an unprivileged user can start")
    events = [bench.python_event(PYTHON, params={"code": code}) for code in ATTACKS.values()]
    good = bench.python_event(PYTHON, params={"code": "import hashlib, threading; out = 42"})
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [interpreter, "-c", AS_USER, str(ROOT)],
            input=json.dumps([[*ATTACKS, "good"], [*events, good]]),
            text=True,
            user=NOBODY if os.geteuid() == 0 else None,
            env={"TMPDIR": folder},
            cwd="/",
            capture_output=True,
            timeout=120,
            check=False,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert len(lines) == 2 * (len(ATTACKS) + 1), done.stderr[-2000:]
    for landlock, name, user, answer in lines:
        assert user != 0
        if name == "good":
            assert answer.get("result") == 42, answer
        else:
            assert not answer["ok"] and answer["error"]["kind"] == "plugin", (landlock, name, answer)
            assert answer["error"]["message"].startswith(("PermissionError", "ValueError: not allowed")), (
                name,
                answer,
            )
