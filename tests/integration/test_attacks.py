"""Attacks that once worked on the runtime: each did what its test says, and must not do it again."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.plugins.runtime.faults import Deadline, PluginFault
from chalicelib.plugins.runtime.locked_child import Sandbox
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Gateway
from chalicelib.plugins.runtime.service import Runtime
from chalicelib.plugins.runtime.wasi import WRITE_CHUNK, Call, Host
from tests.integration.test_runtime_sandbox import NOBODY, PYTHON, ROOT, _interpreter
from tests.unit.plugins.runtime.support import MIB, Bench, ObjectServer

# Writes frames of its own to the runtime; `turn` is what this execution's answer must carry.
FORGE = """
import json, os, struct, sys
caller = sys._getframe()
while "turn" not in caller.f_locals:
    caller = caller.f_back
turn = caller.f_locals["turn"]
def forge(frame, **more):
    content = json.dumps({**frame, **more}).encode()
    os.write(int(sys.argv[2]), struct.pack(">I", len(content)) + content)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    environment = dict(os.environ)
    server = ObjectServer()
    runtime = Runtime(tmp_path / "cache", sandbox=Sandbox())
    yield Bench(runtime, server, tmp_path / "cache")
    runtime.close()
    server.close()
    os.environ.clear()
    os.environ.update(environment)


def run(bench: Bench, code: str) -> dict[str, Any]:
    return bench.run(bench.python_event(PYTHON, params={"code": code}, memory=256 * MIB))


# -- answers of one caller for another -----------------------------------------------------------------------------


def test_a_second_answer_is_nobodys(bench: Bench) -> None:
    """Two answers to one question shifted every later answer by one: each caller got the one before's."""
    first = run(bench, FORGE + "forge({'result': 'forged'}, turn=turn); out = 'of the first caller'")

    answers = [run(bench, f"out = {number}")["result"] for number in range(3)]

    assert first["result"] == "forged"
    assert answers == [0, 1, 2]


def test_an_answer_between_executions_is_nobodys(bench: Bench) -> None:
    code = (
        "import threading, time\n"
        "def later():\n    time.sleep(0.05); forge({'result': 'forged'})\n"
        "threading.Thread(target=later, daemon=True).start(); out = 1"
    )
    run(bench, FORGE + code)

    # Time enough for a thread that still runs.
    assert run(bench, "import time; time.sleep(0.2); out = 2")["result"] == 2
    assert [run(bench, f"out = {number}")["result"] for number in range(3)] == [0, 1, 2]


def test_nothing_of_a_plugin_runs_between_executions(bench: Bench) -> None:
    """A thread that spun on used the processor of whoever came next, and could watch other plugins start."""
    code = (
        "import os, threading\ndef spin():\n    while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start(); out = os.getpid()"
    )
    pid = run(bench, code)["result"]

    # The kernel stops it as soon as it sees the signal.
    states = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for _ in range(10_000))

    assert "T" in states


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("memory", "plugin.out_of_memory"),
        ("output", "plugin.result_too_large"),
        ("load", "mine"),
        ("refused", "mine"),
        ("timeout", "mine"),
        ("internal", "mine"),
    ],
)
def test_a_forged_error_cannot_speak_for_the_service(bench: Bench, kind: str, code: str) -> None:
    """`kind: memory` let a plugin choose the problem's code and detail, and `load` made the plugin look broken."""
    frame = {"error": {"kind": kind, "code": "mine", "message": "forged"}}

    error = run(bench, FORGE + f"forge({frame!r}, turn=turn); import time; time.sleep(5)")["error"]

    assert error["code"] == code
    assert (error["kind"] == "plugin") == (code == "mine")
    assert (error["message"] == "forged") == (code == "mine")


def test_a_code_with_control_characters_is_replaced(bench: Bench) -> None:
    code = "class E(Exception): code = 'x\\r\\nSet-Cookie: a=b'\nraise E('no')"

    assert run(bench, code)["error"]["code"] == "plugin.error"


@pytest.mark.parametrize("result", ["'\"' * 2_400_000", "'\\\\' * 2_400_000"])
def test_a_result_that_grows_on_its_way_is_too_large(bench: Bench, result: str) -> None:
    """5 MB of quotes are 10 MB as text within JSON: the run was a success, and its answer a 502 without a word."""
    assert run(bench, f"out = {result}")["error"]["code"] == "plugin.result_too_large"
    assert run(bench, "out = 'x' * 5_200_000")["ok"]


# -- deadlines ------------------------------------------------------------------------------------------------------


class _Memory:
    """All of a module's memory in each of a thousand vectors."""

    def __init__(self) -> None:
        self.read_sizes: list[int] = []

    def vectors(self, pointer: int, count: int) -> list[tuple[int, int]]:
        return [(0, 100 * MIB)] * count

    def read(self, pointer: int, length: int) -> bytes:
        self.read_sizes.append(length)
        return bytes(length)

    def write(self, pointer: int, content: bytes) -> None:
        """Nobody looks."""


@pytest.mark.parametrize("descriptor", [1, 2])
def test_one_write_of_everything_ends_at_the_deadline(descriptor: int) -> None:
    """A thousand vectors that each name all of the memory kept a runtime busy for half a minute beyond its
    deadline, and copied twice what the plugin may have."""
    # What goes to stdout ends at the result's size, however slow the machine is; what goes to the log at the deadline.
    deadline = Deadline.after(50 if descriptor == 2 else 60_000)
    memory, call = _Memory(), Call(b"", deadline, Gateway(None, (), deadline), Log())

    with pytest.raises(PluginFault) as fault:
        Host()._write(call, memory, descriptor, 0, 1_024, 16)  # type: ignore[arg-type]

    assert fault.value.code == ("plugin.timeout" if descriptor == 2 else "plugin.result_too_large")
    assert max(memory.read_sizes) <= WRITE_CHUNK


def test_a_child_that_closes_its_pipe_and_lives_on_is_killed(bench: Bench) -> None:
    """Its end was waited for, however long it took: no deadline held, and the environment was lost."""
    error = run(bench, "import os, sys, time\nos.close(int(sys.argv[2]))\ntime.sleep(20)")["error"]

    assert error["message"] == "The plugin's process ended: SIGKILL."
    assert run(bench, "out = 1")["result"] == 1


# -- plugins of one tenant ------------------------------------------------------------------------------------------

# Native calls, which no audit hook sees. Tells what it could open of the process `pid`.
SPY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
out = {}
for name in ("mem", "maps", "environ", "fd/0"):
    descriptor = libc.open(f"/proc/{params['pid']}/{name}".encode(), 0)
    out[name] = descriptor >= 0 and len(os.read(descriptor, 10)) >= 0 if name == "maps" else descriptor >= 0
"""

AS_USER = """
import json, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from chalicelib.plugins.runtime.locked_child import Sandbox
from chalicelib.plugins.runtime.service import Runtime
victim, spy = json.load(sys.stdin)
runtime = Runtime(Path(tempfile.mkdtemp()), sandbox=Sandbox(landlock=False))
pid = runtime.handle(victim)["result"]
spy["params"]["pid"] = pid
print(json.dumps([os.geteuid(), pid, runtime.handle(spy)]))
runtime.close()
"""


def test_the_memory_of_another_plugin_is_closed_without_landlock(bench: Bench) -> None:
    """As on Lambda, where all children have one user: a tenant's own plugin read the secrets that the owner of a
    shared plugin had configured out of that plugin's process."""
    interpreter = _interpreter()
    assert interpreter is not None, "no interpreter of 3.11 or later that an unprivileged user can start"
    victim = bench.python_event(
        PYTHON, params={"code": "import os; out = os.getpid()"}, config={"apiKey": "s"}
    )
    spy = bench.python_event(PYTHON, plugin_id="plugin_spy_aaaaaa", params={"code": SPY})

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [interpreter, "-c", AS_USER, str(ROOT)],
            input=json.dumps([victim, spy]),
            text=True,
            user=NOBODY if os.geteuid() == 0 else None,
            env={"TMPDIR": folder},
            cwd="/",
            capture_output=True,
            timeout=60,
            check=False,
        )
    user, pid, answer = json.loads(done.stdout)

    assert user != 0 and isinstance(pid, int), done.stderr[-2000:]
    assert answer.get("result") == {"mem": False, "maps": False, "environ": False, "fd/0": False}, answer
