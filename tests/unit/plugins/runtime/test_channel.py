"""A child that never lets its pipe rest: what it sends without end outlasts neither the deadline nor the budget."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from chalicelib.plugins.runtime.channel import Channel
from chalicelib.plugins.runtime.faults import Deadline, PluginFault, cpu_exhausted
from chalicelib.plugins.runtime.log import Log

FRAME = struct.pack(">I", 2) + b"{}"
LONG = 1_000_000
Say = Callable[[int, int], object]
Do = Callable[[Channel, Deadline], None]


@contextlib.contextmanager
def talking(say: Say) -> Iterator[Channel]:
    """A channel to a thread that does `say(incoming, outgoing)` again and again, as a child would."""
    to_child, from_child, log = os.pipe(), os.pipe(), os.pipe()
    channel = Channel(to_child[1], from_child[0], log[0])
    over = threading.Event()

    def child() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                say(to_child[0], from_child[1])

    thread = threading.Thread(target=child)
    thread.start()
    try:
        yield channel
    finally:
        over.set()
        channel.close()
        for descriptor in (to_child[0], from_child[1], log[1]):
            os.close(descriptor)
        thread.join()


def frames_without_end() -> Say:
    return lambda _incoming, outgoing: os.write(outgoing, FRAME * 1_000)


def half_a_frame() -> Say:
    pieces = itertools.chain([struct.pack(">I", 5 * LONG)], itertools.repeat(b" "))
    return lambda _incoming, outgoing: os.write(outgoing, next(pieces))


def hearing_little() -> Say:
    return lambda incoming, _outgoing: os.read(incoming, 4_096)


def receive(channel: Channel, deadline: Deadline) -> None:
    while True:  # as `PythonPlugin._next` does with frames of another execution
        channel.receive(deadline, Log())


def send(channel: Channel, deadline: Deadline) -> None:
    while True:
        channel.send({"text": "x" * LONG}, deadline, Log())


TALKS = [(frames_without_end, receive), (half_a_frame, receive), (hearing_little, send)]


@pytest.mark.parametrize(("say", "do"), TALKS)
def test_the_deadline_ends_it(say: Callable[[], Say], do: Do) -> None:
    with talking(say()) as channel, pytest.raises(PluginFault) as caught:
        do(channel, Deadline.after(300))
    assert caught.value.code == "plugin.timeout"


@pytest.mark.parametrize(("say", "do"), TALKS)
def test_its_budget_is_watched_meanwhile(say: Callable[[], Say], do: Do) -> None:
    looks: list[int] = []

    def watch() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise cpu_exhausted()

    with talking(say()) as channel, pytest.raises(PluginFault) as caught:
        channel.watch = watch
        do(channel, Deadline.after(20_000))
    assert caught.value.code == "plugin.cpu_exhausted"


def test_a_log_that_never_ends_is_not_waited_for() -> None:
    """What a child writes while its log is read must not keep its answer back."""
    log = os.pipe()
    to_child, from_child = os.pipe(), os.pipe()
    channel = Channel(to_child[1], from_child[0], log[0])
    reads: list[int] = []

    class Endless(Log):
        def write(self, piece: bytes) -> None:
            super().write(piece)
            reads.append(len(piece))
            assert len(reads) < 1_000
            os.write(log[1], b"more")

    os.write(log[1], b"first")
    kept = Endless()
    channel.drain(kept)
    assert kept.text().startswith("firstmore")
    channel.close()
    for descriptor in (to_child[0], from_child[1], log[1]):
        os.close(descriptor)
