"""Each function of WASI that is ours, called by a module that answers what it was told."""

from __future__ import annotations

import struct
import time

import pytest

from chalicelib.plugins.runtime.faults import PluginFault
from chalicelib.plugins.runtime.signatures import SIGNATURES
from tests.unit.plugins.runtime.support import Bench

BADF, FAULT, INVAL, NOSYS, SPIPE, NOTCAPABLE = 8, 21, 28, 52, 70, 76
W = "wasi_snapshot_preview1"


def calling(name: str, arguments: str, module: str = W) -> str:
    """A module that answers the errno of one call, as a number of up to three digits, and 16 bytes from 512 on."""
    kinds = {"i": "i32", "l": "i64"}
    parameters = " ".join(kinds[letter] for letter in SIGNATURES[(module, name)].split(":")[0])
    write = (
        ""
        if name == "fd_write"
        else f'(import "{W}" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))'
    )
    return f"""
(module
  (import "{module}" "{name}" (func ${"w" if name == "fd_write" else "f"} (param {parameters}) (result i32)))
  {write}
  (memory (export "memory") 1)
  (data (i32.const 100) "{{\\"result\\":\\"000 ")
  (data (i32.const 160) "\\"}}")
  (func $hex (param $from i32) (param $to i32)
    (local $i i32)
    (loop $next
      (i32.store8 (i32.add (local.get $to) (local.get $i))
        (i32.load8_u (i32.add (i32.const 200) (i32.and (i32.const 15)
          (i32.shr_u (i32.load8_u (i32.add (local.get $from) (i32.shr_u (local.get $i) (i32.const 1))))
            (select (i32.const 0) (i32.const 4) (i32.and (local.get $i) (i32.const 1))))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 32)))))
  (data (i32.const 200) "0123456789abcdef")
  (func (export "_start")
    (local $e i32)
    (local.set $e (call ${"w" if name == "fd_write" else "f"} {arguments}))
    (i32.store8 (i32.const 111) (i32.add (i32.const 48) (i32.div_u (local.get $e) (i32.const 100))))
    (i32.store8 (i32.const 112) (i32.add (i32.const 48)
      (i32.rem_u (i32.div_u (local.get $e) (i32.const 10)) (i32.const 10))))
    (i32.store8 (i32.const 113) (i32.add (i32.const 48) (i32.rem_u (local.get $e) (i32.const 10))))
    (call $hex (i32.const 512) (i32.const 115))
    (memory.copy (i32.const 147) (i32.const 160) (i32.const 2))
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const 49))
    (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


def call(bench: Bench, name: str, *arguments: int, module: str = W) -> tuple[int, bytes]:
    letters = SIGNATURES[(module, name)].split(":")[0]
    text = " ".join(
        f"({'i32' if letter == 'i' else 'i64'}.const {value})"
        for letter, value in zip(letters, arguments, strict=True)
    )
    answer = bench.run(bench.wasm_event(calling(name, text, module)))
    assert answer["ok"], answer
    number, memory = answer["result"].split(" ")
    return int(number), bytes.fromhex(memory)


@pytest.mark.parametrize(
    ("name", "arguments", "errno"),
    [
        ("path_open", (3, 0, 512, 4, 0, 0, 0, 0, 520), NOTCAPABLE),
        ("path_filestat_get", (3, 0, 512, 4, 520), NOTCAPABLE),
        ("path_unlink_file", (3, 512, 4), NOTCAPABLE),
        ("sock_accept", (3, 0, 512), NOTCAPABLE),
        ("sock_send", (3, 512, 1, 0, 520), NOTCAPABLE),
        ("fd_prestat_get", (3, 512), BADF),
        ("fd_readdir", (3, 512, 10, 0, 520), NOSYS),
        ("fd_write", (3, 512, 1, 520), BADF),
        ("fd_write", (1, 512, 2000, 520), INVAL),
        ("fd_write", (1, 70000, 1, 520), FAULT),
        ("fd_write", (1, -8, 1, 520), FAULT),
        ("fd_read", (1, 512, 1, 520), BADF),
        ("fd_seek", (1, 0, 0, 512), SPIPE),
        ("fd_seek", (9, 0, 0, 512), BADF),
        ("fd_close", (1,), 0),
        ("fd_close", (3,), BADF),
        ("fd_fdstat_get", (4, 512), BADF),
        ("fd_filestat_get", (4, 512), BADF),
        ("fd_filestat_get", (1, 1024), 0),
        ("clock_time_get", (9, 0, 512), INVAL),
        ("clock_res_get", (9, 512), INVAL),
        ("poll_oneoff", (512, 1024, 0, 2048), INVAL),
        ("poll_oneoff", (512, 1024, 5000, 2048), INVAL),
        ("random_get", (65530, 100), FAULT),
        ("random_get", (-1, 1), FAULT),
        ("sched_yield", (), 0),
    ],
)
def test_errno(bench: Bench, name: str, arguments: tuple[int, ...], errno: int) -> None:
    assert call(bench, name, *arguments)[0] == errno


@pytest.mark.parametrize("name", ["environ_sizes_get", "args_sizes_get"])
def test_there_is_no_environment_and_no_argument(bench: Bench, name: str) -> None:
    assert call(bench, name, 512, 516) == (0, bytes(16))


def test_clocks_run(bench: Bench) -> None:
    number, memory = call(bench, "clock_time_get", 0, 0, 512)

    assert number == 0
    assert abs(struct.unpack_from("<Q", memory)[0] / 1e9 - time.time()) < 60


def test_random_bytes_differ(bench: Bench) -> None:
    assert call(bench, "random_get", 512, 16)[1] != call(bench, "random_get", 512, 16)[1]


def test_standard_streams_are_no_terminal(bench: Bench) -> None:
    number, memory = call(bench, "fd_fdstat_get", 1, 512)

    assert (number, memory[0]) == (0, 0)


def test_http_without_a_request_is_the_plugins_error(bench: Bench) -> None:
    answer = bench.run(
        bench.wasm_event(calling("http_request", "(i32.const 512) (i32.const 4)", module="hotplug"))
    )

    assert answer["error"]["kind"] == PluginFault("plugin", "c", "m").kind
    assert answer["error"]["code"] == "plugin.bad_output"


def sleeping(nanoseconds: int) -> str:
    return f"""
(module
  (import "{W}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "{W}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "{{\\"result\\":\\"awake\\"}}")
  (func (export "_start")
    (i32.store (i32.const 528) (i32.const 1))
    (i64.store (i32.const 536) (i64.const {nanoseconds}))
    (drop (call $poll (i32.const 512) (i32.const 1024) (i32.const 1) (i32.const 2048)))
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const 18))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


def test_a_short_sleep_ends(bench: Bench) -> None:
    answer = bench.run(bench.wasm_event(sleeping(20_000_000)))

    assert answer["result"] == "awake"
    assert answer["durationMs"] >= 20


def test_a_long_sleep_ends_at_the_deadline(bench: Bench) -> None:
    answer = bench.run(bench.wasm_event(sleeping(5_000_000_000), timeoutMs=100))

    assert answer["error"]["code"] == "plugin.timeout"
    assert 100 <= answer["durationMs"] < 2_000
