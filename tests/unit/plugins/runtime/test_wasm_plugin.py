from __future__ import annotations

import pytest

from tests.unit.plugins.runtime.support import ECHO_WAT, MIB, Bench, answering

LOOP = '(module (memory (export "memory") 1) (func (export "_start") (loop br 0)))'


def test_a_module_gets_its_input_and_gives_a_result_and_a_log(bench: Bench) -> None:
    event = bench.wasm_event(ECHO_WAT, action="notify", params={"text": "Grüße"}, config={"key": [1]})

    answer = bench.run(event)

    assert answer["ok"], answer
    assert answer["result"] == {
        "action": "notify",
        "params": {"text": "Grüße"},
        "config": {"key": [1]},
        "context": {"requestId": "r1", "appId": "a1", "subject": None},
    }
    assert answer["logs"] == "a line of log\n"
    assert answer["coldLoad"] is True
    assert bench.run(event)["coldLoad"] is False


@pytest.mark.parametrize(
    ("wat", "expected"),
    [
        (
            answering('{"error":{"code":"no_channel","message":"No such channel","data":{"id":3}}}'),
            {"kind": "plugin", "code": "no_channel", "message": "No such channel", "data": {"id": 3}},
        ),
        (
            answering('{"error":{"code":"late","message":"m"}}', "(call $exit (i32.const 1))"),
            {"kind": "plugin", "code": "late", "message": "m", "data": None},
        ),
        (
            answering("", "(call $exit (i32.const 7))"),
            {
                "kind": "plugin",
                "code": "plugin.exit",
                "message": "The plugin exited with code 7 and wrote no answer.",
                "data": None,
            },
        ),
        (
            answering("[1]"),
            {
                "kind": "plugin",
                "code": "plugin.bad_output",
                "message": "The plugin's answer is not an object.",
                "data": None,
            },
        ),
        (
            answering(""),
            {
                "kind": "plugin",
                "code": "plugin.bad_output",
                "message": "The plugin's answer is empty.",
                "data": None,
            },
        ),
        (
            answering('{"result":NaN}'),
            {
                "kind": "plugin",
                "code": "plugin.bad_output",
                "message": "The plugin's answer is no JSON: is NaN, which is not JSON at /result.",
                "data": None,
            },
        ),
        (
            answering("{}"),
            {
                "kind": "plugin",
                "code": "plugin.bad_output",
                "message": "The plugin's answer has neither `result` nor `error`.",
                "data": None,
            },
        ),
        (
            answering("", "unreachable"),
            {
                "kind": "plugin",
                "code": "plugin.trap",
                "message": "The plugin trapped: unreachable.",
                "data": None,
            },
        ),
    ],
    ids=["error", "error-and-exit", "exit", "not-an-object", "nothing", "nan", "empty", "trap"],
)
def test_what_a_module_answers_instead_of_a_result(
    bench: Bench, wat: str, expected: dict[str, object]
) -> None:
    assert bench.run(bench.wasm_event(wat))["error"] == expected


def test_a_result_survives_exit_code_zero(bench: Bench) -> None:
    answer = bench.run(bench.wasm_event(answering('{"result":41}', "(call $exit (i32.const 0))")))

    assert answer["result"] == 41


def test_fuel_ends_what_the_clock_would_let_run(bench: Bench) -> None:
    # 1 % of a processor over 25 s is a quarter of a second, raised to the least budget of one.
    event = bench.wasm_event(LOOP, timeoutMs=25_000)
    event["plugin"]["resources"]["cpuMillis"] = 10

    answer = bench.run(event)

    assert answer["error"]["kind"] == "timeout"
    assert answer["error"]["code"] == "plugin.cpu_exhausted"
    assert answer["durationMs"] < 20_000


def test_a_deadline_of_one_execution_does_not_end_the_next(bench: Bench) -> None:
    loop = bench.wasm_event(LOOP, timeoutMs=30)
    good = bench.wasm_event(ECHO_WAT, plugin_id="plugin_good_aaaaaa")
    for _ in range(20):
        assert bench.run(loop)["error"]["code"] == "plugin.timeout"
        assert bench.run(good)["ok"]


def test_executions_share_no_memory(bench: Bench) -> None:
    counter = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $count (mut i32) (i32.const 0))
  (data (i32.const 100) "{\\"result\\":0}")
  (func (export "_start")
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 110) (i32.add (i32.load8_u (i32.const 110)) (global.get $count)))
    (i32.store (i32.const 0) (i32.const 100))
    (i32.store (i32.const 4) (i32.const 12))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""
    event = bench.wasm_event(counter)

    assert [bench.run(event)["result"] for _ in range(3)] == [1, 1, 1]


def test_a_start_section_runs_within_the_same_limits(bench: Bench) -> None:
    wat = """
(module (memory (export "memory") 1)
  (func $forever (loop br 0)) (func (export "_start")) (start $forever))
"""
    for operation in ("load", "execute"):
        answer = bench.run(bench.wasm_event(wat, operation=operation))
        assert (answer["error"]["kind"], answer["error"]["code"]) == ("load", "plugin.load_timeout")
        assert answer["loaded"] == []


def test_a_module_that_begins_with_too_much_memory_is_refused(bench: Bench) -> None:
    wat = '(module (memory (export "memory") 100) (func (export "_start")))'

    answer = bench.run(bench.wasm_event(wat, memory=MIB))

    assert answer["error"]["kind"] == "memory"
    assert answer["error"]["code"] == "plugin.out_of_memory"
