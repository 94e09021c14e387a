"""The system calls that a python plugin may make, as a classic BPF program for seccomp(2).

An allow-list: what is not named fails with EPERM, so a call that a new kernel adds is refused before anybody
has thought about it. Assembled by hand, because libseccomp is not on Lambda.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

# linux/audit.h, linux/seccomp.h, linux/bpf_common.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_KILL_PROCESS, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER_OFFSET, _ARCH_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_X32_BIT = 0x4000_0000

_CLONE_THREAD = 0x0001_0000
# O_ACCMODE | O_CREAT | O_TRUNC | __O_TMPFILE, equal on both architectures
_WRITES = 0o3 | 0o100 | 0o1000 | 0o20000000
# Duplicating and flags. Not F_SETOWN: with O_ASYNC it sends SIGIO, which ends a process, to any of the same
# user.
_FCNTL = (0, 1, 2, 3, 4, 1030)
_PRCTL = (15, 16)  # PR_SET_NAME, PR_GET_NAME

ARCHITECTURES = tuple(_AUDIT_ARCH)

# name: (x86_64, aarch64)
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "close": (3, 57),
    "close_range": (436, 436),
    "fstat": (5, 80),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "getcwd": (79, 17),
    "getrandom": (318, 278),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "arch_prctl": (158, None),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "getdents64": (217, 61),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fadvise64": (221, 223),
    "membarrier": (324, 283),
    "sysinfo": (99, 179),
    "restart_syscall": (219, 128),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
}

# Those of which only some arguments are allowed.
_OPEN, _OPENAT = (2, None), (257, 56)
_CLONE, _CLONE3, _OPENAT2 = (56, 220), (435, 435), (437, 437)
_FCNTL_NUMBER, _PRCTL_NUMBER, _PRLIMIT, _GETRLIMIT = (72, 25), (157, 167), (302, 261), (97, 163)
_KILL, _TGKILL, _IOCTL = (62, 129), (234, 131), (16, 29)


@dataclass(frozen=True)
class _Instruction:
    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


def assemble(pid: int, machine: str | None = None) -> bytes:
    """Return the filter as an array of `struct sock_filter`.

    Parameters
    ----------
    pid
        Of the process that installs it: the only one that it may signal.
    machine
        `x86_64` or `aarch64`; this machine's by default.

    Raises
    ------
    ValueError
        For another architecture, whose system calls have other numbers.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT_ARCH:
        raise ValueError(f"no system call table for {machine}")
    column = ARCHITECTURES.index(machine)
    program = [
        _Instruction(_LOAD, _ARCH_OFFSET),
        # A 32-bit call has other numbers; a filter that does not look reads them as its own (CVE-2009-0835).
        _Instruction(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _Instruction(_RETURN, _KILL_PROCESS),
        _Instruction(_LOAD, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        program += [_Instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _Instruction(_RETURN, _KILL_PROCESS)]
    for numbers, body in _conditional(pid):
        number = numbers[column]
        if number is not None:
            program += [_Instruction(_JUMP_EQUAL, number, 0, len(body)), *body]
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            program += [_Instruction(_JUMP_EQUAL, number, 0, 1), _Instruction(_RETURN, _ALLOW)]
    program.append(_refuse(errno.EPERM))
    return b"".join(instruction.pack() for instruction in program)


def _conditional(pid: int) -> list[tuple[tuple[int | None, int | None], list[_Instruction]]]:
    return [
        (_OPEN, _allow_unless_flags(1, _WRITES)),
        (_OPENAT, _allow_unless_flags(2, _WRITES)),
        # Its flags lie in memory, where a filter cannot look; libc falls back to openat.
        (_OPENAT2, [_refuse(errno.ENOSYS)]),
        (_CLONE3, [_refuse(errno.ENOSYS)]),
        (_CLONE, _allow_if_flag(0, _CLONE_THREAD)),
        (_FCNTL_NUMBER, _allow_if_one_of(1, _FCNTL)),
        (_PRCTL_NUMBER, _allow_if_one_of(0, _PRCTL)),
        (_PRLIMIT, _allow_if_zero((0, 2))),  # its own, and only to read
        (_GETRLIMIT, [_Instruction(_RETURN, _ALLOW)]),
        (_KILL, _allow_if_one_of(0, (pid,))),
        (_TGKILL, _allow_if_one_of(0, (pid,))),
        # As if nothing were a terminal: open() asks each file. TIOCSTI types into a terminal.
        (_IOCTL, [_refuse(errno.ENOTTY)]),
    ]


def _argument(index: int, half: int = 0) -> _Instruction:
    # Both architectures are little-endian: the low half comes first.
    return _Instruction(_LOAD, _ARGUMENTS_OFFSET + 8 * index + 4 * half)


def _refuse(number: int) -> _Instruction:
    return _Instruction(_RETURN, _ERRNO | number)


def _allow_unless_flags(index: int, flags: int) -> list[_Instruction]:
    return [
        _argument(index),
        _Instruction(_AND, flags),
        _Instruction(_JUMP_EQUAL, 0, 0, 1),
        _Instruction(_RETURN, _ALLOW),
        _refuse(errno.EACCES),
    ]


def _allow_if_flag(index: int, flag: int) -> list[_Instruction]:
    return [
        _argument(index),
        _Instruction(_AND, flag),
        _Instruction(_JUMP_EQUAL, flag, 0, 1),
        _Instruction(_RETURN, _ALLOW),
        _refuse(errno.EPERM),
    ]


def _allow_if_one_of(index: int, values: tuple[int, ...]) -> list[_Instruction]:
    # The kernel reads these arguments as 32 bits, so the high half says nothing.
    body = [_argument(index)]
    for value in values:
        body += [_Instruction(_JUMP_EQUAL, value, 0, 1), _Instruction(_RETURN, _ALLOW)]
    return [*body, _refuse(errno.EPERM)]


def _allow_if_zero(indexes: tuple[int, ...]) -> list[_Instruction]:
    body: list[_Instruction] = []
    for index in indexes:
        for half in (0, 1):
            body += [_argument(index, half), _Instruction(_JUMP_EQUAL, 0, 1, 0), _refuse(errno.EPERM)]
    return [*body, _Instruction(_RETURN, _ALLOW)]
