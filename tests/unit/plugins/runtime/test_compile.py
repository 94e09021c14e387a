from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.plugins.runtime.compile import MAX_MODULE_BYTES, compile_module, engine_id
from chalicelib.plugins.runtime.engine import engine, target
from tests.unit.plugins.runtime.support import ECHO_WAT, wasm

MIB = 1024 * 1024


def compiling(folder: Path, content: bytes, **limits: float) -> Path:
    source, output = folder / "module.wasm", folder / "module.cwasm"
    source.write_bytes(content)
    compile_module(source, output, **limits)  # type: ignore[arg-type]
    return output


def test_the_output_loads_into_the_engine_that_the_id_names(tmp_path: Path) -> None:
    from wasmtime import Module

    output = compiling(tmp_path, wasm(ECHO_WAT))

    assert [export.name for export in Module.deserialize_file(engine(), str(output)).exports] == [
        "memory",
        "_start",
    ]
    assert engine_id().startswith("wasmtime-")
    assert target() in engine_id()
    assert "/" not in engine_id()


@pytest.mark.parametrize(
    ("wat", "rules"),
    [
        ("(module)", {"wasm.start_missing": "exports no function `_start` without parameters"}),
        (
            '(module (func (export "_start") (param i32)))',
            {"wasm.start_missing": "exports no function `_start` without parameters"},
        ),
        (
            '(module (import "env" "f" (func)) (func (export "_start")))',
            {"wasm.import": "imports env.f; only wasi_snapshot_preview1 and hotplug are provided"},
        ),
        (
            '(module (import "hotplug" "shell" (func)) (func (export "_start")))',
            {"wasm.import": "imports hotplug.shell, which hotplug does not have"},
        ),
        (
            '(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64))) (func (export "_start")))',
            {"wasm.import": "imports wasi_snapshot_preview1.fd_close with another type"},
        ),
        (
            '(module (import "wasi_snapshot_preview1" "fd_close" (memory 1)) (func (export "_start")))',
            {"wasm.import": "imports wasi_snapshot_preview1.fd_close with another type"},
        ),
    ],
)
def test_a_module_that_is_no_plugin(tmp_path: Path, wat: str, rules: dict[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, wasm(wat))

    assert caught.value.code == "plugin.wasm_invalid"
    assert {violation.rule: violation.message for violation in caught.value.errors} == rules
    assert not (tmp_path / "module.cwasm").exists()


def test_every_reason_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, wasm('(module (import "a" "b" (func)) (import "c" "d" (func)))'))

    assert [violation.rule for violation in caught.value.errors] == [
        "wasm.import",
        "wasm.import",
        "wasm.start_missing",
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"(module)", b"\x7fELF" + bytes(60), b"\0asm\x01\0\0\0\xff\xff", b"\0asm\x0d\0\x01\0"],
    ids=["empty", "text", "elf", "broken", "component"],
)
def test_what_is_no_module(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, content)

    assert caught.value.code == "plugin.wasm_invalid"
    assert [violation.rule for violation in caught.value.errors] == ["wasm.syntax"]


@pytest.mark.parametrize(
    "wat",
    [
        '(module (memory i64 1) (func (export "_start")))',
        '(module (memory 1) (memory 1) (func (export "_start")))',
        '(module (memory 1 1 shared) (func (export "_start")))',
    ],
    ids=["memory64", "multi-memory", "threads"],
)
def test_proposals_that_a_command_does_not_need(tmp_path: Path, wat: str) -> None:
    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, wasm(wat))

    assert [violation.rule for violation in caught.value.errors] == ["wasm.syntax"]


def test_a_module_that_is_too_large_is_not_even_read(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, bytes(MAX_MODULE_BYTES + 1))

    assert [violation.rule for violation in caught.value.errors] == ["wasm.size"]


def _many_functions(count: int) -> bytes:
    """`count` functions of 400 bytes each, put together here: as text they take longer to read than to compile."""
    step = b"\x20\x00\x20\x00\x42\x03\x7c\x7e\x21\x00"  # local 0 becomes local 0 * (local 0 + 3)
    body = b"\x01\x01\x7e" + step * 40 + b"\x0b"
    function = _leb(len(body)) + body
    sections = {
        1: b"\x01\x60\x00\x00",
        3: _leb(count) + b"\x00" * count,
        7: b"\x01\x06_start\x00\x00",
        10: _leb(count) + function * count,
    }
    return b"\0asm\x01\0\0\0" + b"".join(
        bytes([number]) + _leb(len(content)) + content for number, content in sections.items()
    )


def _leb(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def test_a_compiler_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    compiling(tmp_path, _many_functions(10))

    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, _many_functions(20_000), seconds=0.1)

    assert caught.value.code == "plugin.wasm_too_complex"
    assert "longer than 0.1 s" in caught.value.errors[0].message


def _large_jump_tables(count: int) -> bytes:
    table = "(block (br_table " + "0 " * 65_000 + "(local.get 0)))"
    return wasm(f'(module (func (param i32) {table * count}) (func (export "_start")))')


def test_a_compiler_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    """Far from the limit on both sides: the small module needs half of it, the other seven times as much and at once.
    Near it the compiler asks on and on for less, and how that ends depends on its threads."""
    compiling(tmp_path, wasm(ECHO_WAT), memory_bytes=512 * MIB)

    with pytest.raises(Invalid) as caught:
        compiling(tmp_path, _large_jump_tables(30), memory_bytes=512 * MIB)

    assert caught.value.code == "plugin.wasm_too_complex"
    assert "memory" in caught.value.errors[0].message
