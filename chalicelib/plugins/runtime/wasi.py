"""WASI preview 1, as much of it as a command with stdin, stdout and stderr needs, and nothing of the host.

Implemented here and not by wasmtime, because of what its own does: a `poll_oneoff` of an hour ignores the
epoch deadline, and an output file has no limit. There is no environment, argument, file or socket: those
answer an errno, as a program on a machine without them would see.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chalicelib.plugins.runtime.faults import (
    MAX_RESULT_BYTES,
    ONE_MIB,
    Deadline,
    PluginFault,
    read_object,
    result_too_large,
    timed_out,
)
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Gateway
from chalicelib.plugins.runtime.signatures import SIGNATURES

if TYPE_CHECKING:
    from wasmtime import Caller, Engine, FuncType, Linker

SUCCESS, BADF, FAULT, INVAL, NOSYS, NOTSUP, SPIPE, NOTCAPABLE = 0, 8, 21, 28, 52, 58, 70, 76

# A caller may name the same 100 MB a million times in one vector; a real libc writes one or two pieces.
MAX_VECTORS = 1_024
MAX_SUBSCRIPTIONS = 1_024
RANDOM_CHUNK = 64 * 1024
WRITE_CHUNK = 1024 * 1024
OUTPUT_LIMIT = MAX_RESULT_BYTES + ONE_MIB  # blanks and the envelope around the largest result

_READ, _WRITE = 1 << 1, 1 << 6  # rights


class Exit(Exception):
    """`proc_exit`; unwinds the module."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit {code}")
        self.code = code


class Call:
    """The streams of one execution.

    Parameters
    ----------
    stdin
        All that the module can read.
    deadline
        Sleeping ends here.
    gateway
        Makes the module's HTTP requests.
    log
        Takes what it writes to stderr.
    """

    def __init__(self, stdin: bytes, deadline: Deadline, gateway: Gateway, log: Log) -> None:
        self.stdin = stdin
        self.position = 0
        self.stdout = bytearray()
        self.deadline = deadline
        self.gateway = gateway
        self.log = log
        self.http_response = b""

    def write(self, descriptor: int, piece: bytes) -> None:
        if descriptor == 1:
            if len(self.stdout) + len(piece) > OUTPUT_LIMIT:
                raise result_too_large()
            self.stdout += piece
        else:
            self.log.write(piece)


class _Memory:
    """The module's memory during one host call; every access is checked against its size now."""

    def __init__(self, caller: Caller) -> None:
        from wasmtime import Memory

        memory = caller.get("memory")
        if not isinstance(memory, Memory):
            raise PluginFault("plugin", "plugin.wasm_invalid", "The module exports no memory.")
        self._size = memory.data_len(caller)
        self._address = ctypes.addressof(memory.data_ptr(caller).contents) if self._size else 0

    def read(self, pointer: int, length: int) -> bytes:
        self._check(pointer, length)
        return ctypes.string_at(self._address + pointer, length) if length else b""

    def write(self, pointer: int, content: bytes) -> None:
        self._check(pointer, len(content))
        if content:
            ctypes.memmove(self._address + pointer, content, len(content))

    def vectors(self, pointer: int, count: int) -> list[tuple[int, int]]:
        if count > MAX_VECTORS:
            raise _Errno(INVAL)
        return list(struct.iter_unpack("<II", self.read(pointer, count * 8)))

    def _check(self, pointer: int, length: int) -> None:
        if pointer + length > self._size:
            raise _Errno(FAULT)


class _Errno(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Host:
    """The functions that modules import. One call runs at a time; `call` is set before and cleared after
    it."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self._functions: dict[str, Callable[..., int]] = {
            "args_get": self._nothing,
            "args_sizes_get": self._no_strings,
            "environ_get": self._nothing,
            "environ_sizes_get": self._no_strings,
            "clock_res_get": self._clock_resolution,
            "clock_time_get": self._clock_time,
            "fd_close": self._sync,
            "fd_datasync": self._sync,
            "fd_sync": self._sync,
            "fd_fdstat_get": self._descriptor_state,
            "fd_fdstat_set_flags": self._nothing,
            "fd_filestat_get": self._file_state,
            "fd_prestat_get": self._bad_descriptor,
            "fd_prestat_dir_name": self._bad_descriptor,
            "fd_read": self._read,
            "fd_write": self._write,
            "fd_seek": self._no_seek,
            "fd_tell": self._no_seek,
            "poll_oneoff": self._poll,
            "proc_exit": self._exit,
            "sched_yield": self._nothing,
            "random_get": self._random,
            "http_request": self._http_request,
            "http_response": self._http_response,
        }

    def link(self, engine: Engine) -> Linker:
        """Return a linker with every allowed import; what is not implemented answers an errno."""
        from wasmtime import Linker

        linker = Linker(engine)
        for (module, name), signature in SIGNATURES.items():
            linker.define_func(module, name, function_type(signature), self._guard(name), access_caller=True)
        return linker

    def _guard(self, name: str) -> Callable[..., Any]:
        refused = NOTCAPABLE if name.startswith(("path_", "sock_")) else NOSYS
        function = self._functions.get(name)

        def run(caller: Caller, *arguments: int) -> int:
            if function is None:
                return refused
            call = self.call
            if call is None or call.deadline.passed:
                raise timed_out()
            try:
                # Wasm integers have no sign; wasmtime hands them over as if they had.
                return function(call, _Memory(caller), *(argument & 0xFFFFFFFF for argument in arguments))
            except _Errno as error:
                return error.number

        return run

    def _nothing(self, _call: Call, _memory: _Memory, *_arguments: int) -> int:
        return SUCCESS

    def _bad_descriptor(self, _call: Call, _memory: _Memory, *_arguments: int) -> int:
        return BADF

    def _sync(self, _call: Call, _memory: _Memory, descriptor: int) -> int:
        return SUCCESS if descriptor <= 2 else BADF

    def _no_seek(self, _call: Call, _memory: _Memory, descriptor: int, *_arguments: int) -> int:
        return SPIPE if descriptor <= 2 else BADF

    def _no_strings(self, _call: Call, memory: _Memory, count: int, size: int) -> int:
        memory.write(count, bytes(4))
        memory.write(size, bytes(4))
        return SUCCESS

    def _clock_resolution(self, _call: Call, memory: _Memory, clock: int, result: int) -> int:
        if clock > 3:
            return INVAL
        memory.write(result, struct.pack("<Q", 1_000))
        return SUCCESS

    def _clock_time(self, _call: Call, memory: _Memory, clock: int, _precision: int, result: int) -> int:
        memory.write(result, struct.pack("<Q", _now(clock)))
        return SUCCESS

    def _descriptor_state(self, _call: Call, memory: _Memory, descriptor: int, result: int) -> int:
        if descriptor > 2:
            return BADF
        # Type 0, unknown: a "character device" would be a terminal, to which libc writes line by line.
        memory.write(result, struct.pack("<BxHxxxxQQ", 0, 0, _READ if descriptor == 0 else _WRITE, 0))
        return SUCCESS

    def _file_state(self, _call: Call, memory: _Memory, descriptor: int, result: int) -> int:
        if descriptor > 2:
            return BADF
        memory.write(result, bytes(64))
        return SUCCESS

    def _read(
        self, call: Call, memory: _Memory, descriptor: int, vectors: int, count: int, result: int
    ) -> int:
        if descriptor != 0:
            return BADF
        start = call.position
        for pointer, length in memory.vectors(vectors, count):
            piece = call.stdin[call.position : call.position + length]
            memory.write(pointer, piece)
            call.position += len(piece)
        memory.write(result, struct.pack("<I", call.position - start))
        return SUCCESS

    def _write(
        self, call: Call, memory: _Memory, descriptor: int, vectors: int, count: int, result: int
    ) -> int:
        if descriptor not in (1, 2):
            return BADF
        written = 0
        for pointer, length in memory.vectors(vectors, count):
            # In pieces: a thousand vectors may each name all of the memory, and no deadline ends a copy.
            for offset in range(0, length, WRITE_CHUNK):
                _check_deadline(call)
                call.write(descriptor, memory.read(pointer + offset, min(WRITE_CHUNK, length - offset)))
            written += length
        memory.write(result, struct.pack("<I", written & 0xFFFFFFFF))
        return SUCCESS

    def _poll(
        self, call: Call, memory: _Memory, subscriptions: int, events: int, count: int, result: int
    ) -> int:
        if not 0 < count <= MAX_SUBSCRIPTIONS:
            return INVAL
        waits, ready = [], []
        for index in range(count):
            user, kind, clock, timeout, flags = struct.unpack(
                "<QBxxxxxxxIxxxxQxxxxxxxxHxxxxxx", memory.read(subscriptions + index * 48, 48)
            )
            event = struct.pack("<QHBxxxxxQHxxxxxx", user, SUCCESS, kind, 0, 0)
            if kind == 0:
                waits.append((max(0, timeout - _now(clock)) if flags & 1 else timeout, event))
            else:
                ready.append(event)
        if not ready:
            shortest = min(wait for wait, _ in waits)
            _sleep(shortest / 1e9, call.deadline)
            ready = [event for wait, event in waits if wait <= shortest]
        memory.write(events, b"".join(ready))
        memory.write(result, struct.pack("<I", len(ready)))
        return SUCCESS

    def _exit(self, _call: Call, _memory: _Memory, code: int) -> int:
        raise Exit(code)

    def _random(self, call: Call, memory: _Memory, pointer: int, length: int) -> int:
        for offset in range(0, length, RANDOM_CHUNK):
            _check_deadline(call)
            memory.write(pointer + offset, os.urandom(min(RANDOM_CHUNK, length - offset)))
        return SUCCESS

    def _http_request(self, call: Call, memory: _Memory, pointer: int, length: int) -> int:
        if length > OUTPUT_LIMIT:
            raise result_too_large()
        answer = call.gateway.call(read_object(memory.read(pointer, length)))
        call.http_response = json.dumps(answer, ensure_ascii=False).encode("utf-8")
        return len(call.http_response)

    def _http_response(self, call: Call, memory: _Memory, pointer: int, capacity: int) -> int:
        if capacity < len(call.http_response):
            return -1
        memory.write(pointer, call.http_response)
        return len(call.http_response)


def function_type(signature: str) -> FuncType:
    """Return wasmtime's type for a signature of SIGNATURES."""
    from wasmtime import FuncType, ValType

    kinds = {"i": ValType.i32, "l": ValType.i64}
    parameters, results = signature.split(":")
    return FuncType([kinds[kind]() for kind in parameters], [kinds[kind]() for kind in results])


def _now(clock: int) -> int:
    if clock == 0:
        return time.time_ns()
    if clock == 1:
        return time.monotonic_ns()
    if clock in (2, 3):
        return time.thread_time_ns()
    raise _Errno(INVAL)


def _check_deadline(call: Call) -> None:
    if call.deadline.passed:
        raise timed_out()


def _sleep(seconds: float, deadline: Deadline) -> None:
    left = deadline.left()
    time.sleep(min(seconds, left))
    if seconds >= left:
        raise timed_out()
