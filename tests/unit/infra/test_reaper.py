from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from infra.local import reaper

# A process whose child moved to a session of its own, as a plugin's might.
TREE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def start_tree() -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", TREE], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != b"Z"


def wait_gone(*pids: int) -> bool:
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_killing_a_tree_reaches_a_child_in_another_session() -> None:
    process, child = start_tree()
    with process:
        assert child in reaper.descendants(process.pid)
        reaper.kill_tree(process.pid)
    assert wait_gone(process.pid, child)


def test_the_reaper_kills_what_still_lives_when_its_pipe_closes() -> None:
    kept, kept_child = start_tree()
    ended, _ = start_tree()
    with (
        kept,
        ended,
        subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__], stdin=subprocess.PIPE, text=True
        ) as running,
    ):
        assert running.stdin is not None
        running.stdin.write(f"+{kept.pid}\n+{ended.pid}\n-{ended.pid}\n")
        running.stdin.close()
        assert running.wait(10) == 0
        assert wait_gone(kept.pid, kept_child)
        assert alive(ended.pid)
        reaper.kill_tree(ended.pid)
