"""Ends the stack's children when the stack itself was killed and could not.

Run as a script by the stack, in a session of its own, with a pipe on standard input: `+PID` and `-PID` lines say which
process groups live. The end of the pipe means that the stack is gone. It also holds the folder's lock, so that a new
stack cannot start beside the remains of the old one.

This process imports as little as it can: it starts with every stack.
"""

from __future__ import annotations

import os
import signal
import sys

ROUNDS = 5


def descendants(root: int) -> set[int]:
    """Return all processes below `root`, whatever session they moved to (Linux; elsewhere none are found)."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return set()
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    # The command in parentheses may hold spaces and parentheses of its own.
                    parent = int(stat.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended while we looked
            children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    pending = [root]
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


def kill_tree(root: int) -> None:
    """Kill a process, its group and everything below it.

    The tree is stopped first, so that nothing can fork away between the look and the kill.
    """
    tree = {root}
    for _ in range(ROUNDS):
        for pid in tree:
            _send(pid, signal.SIGSTOP)
        grown = {root} | descendants(root)
        if grown <= tree:
            break
        tree |= grown
    try:
        os.killpg(root, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it ended by itself
    for pid in tree:
        _send(pid, signal.SIGKILL)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it ended by itself


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    alive: set[int] = set()
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            alive.add(pid)
        else:
            alive.discard(pid)
    for pid in alive:
        kill_tree(pid)


if __name__ == "__main__":
    main()
