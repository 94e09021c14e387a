"""The filter, read by a small interpreter of classic BPF: so both architectures are tested on either."""

from __future__ import annotations

import errno
import struct

import pytest

from chalicelib.plugins.runtime.seccomp import assemble

PID = 4242
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000


def decide(machine: str, number: int, *arguments: int, arch: int | None = None) -> int:
    data = struct.pack("<IIQ6Q", number, arch or ARCH[machine], 0, *(*arguments, *[0] * (6 - len(arguments))))
    program = list(struct.iter_unpack("=HBBI", assemble(PID, machine)))
    position, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            position += if_true if accumulator == value else if_false
        elif code == 0x35:
            position += if_true if accumulator >= value else if_false
        else:
            assert code == 0x06
            return int(value)


def refused(number: int) -> int:
    return 0x00050000 | number


RDONLY, WRONLY, RDWR, CREAT, TRUNC, CLOEXEC = 0, 1, 2, 0o100, 0o1000, 0o2000000
THREAD = 0x3D0F00  # what glibc's pthread_create passes


@pytest.mark.parametrize(
    ("name", "x86_64", "aarch64", "arguments", "expected"),
    [
        ("read", 0, 63, (), ALLOW),
        ("futex", 202, 98, (), ALLOW),
        ("openat to read", 257, 56, (0, 0, RDONLY | CLOEXEC), ALLOW),
        ("openat to write", 257, 56, (0, 0, WRONLY), refused(errno.EACCES)),
        ("openat to read and write", 257, 56, (0, 0, RDWR), refused(errno.EACCES)),
        ("openat to create", 257, 56, (0, 0, CREAT), refused(errno.EACCES)),
        ("openat to truncate", 257, 56, (0, 0, TRUNC), refused(errno.EACCES)),
        ("openat a nameless file", 257, 56, (0, 0, 0o20000000), refused(errno.EACCES)),
        ("openat2", 437, 437, (), refused(errno.ENOSYS)),
        ("clone a thread", 56, 220, (THREAD,), ALLOW),
        ("clone a process", 56, 220, (17,), refused(errno.EPERM)),
        ("clone3", 435, 435, (), refused(errno.ENOSYS)),
        ("kill itself", 62, 129, (PID, 10), ALLOW),
        ("kill another", 62, 129, (1, 10), refused(errno.EPERM)),
        ("kill all", 62, 129, (0xFFFFFFFF, 9), refused(errno.EPERM)),
        ("kill its group", 62, 129, (0, 9), refused(errno.EPERM)),
        ("tgkill itself", 234, 131, (PID, PID, 10), ALLOW),
        ("tgkill another", 234, 131, (1, 1, 10), refused(errno.EPERM)),
        ("tkill", 200, 130, (PID,), refused(errno.EPERM)),
        ("fcntl F_GETFL", 72, 25, (3, 3), ALLOW),
        ("fcntl F_SETOWN", 72, 25, (3, 8), refused(errno.EPERM)),
        ("prctl PR_SET_NAME", 157, 167, (15,), ALLOW),
        ("prctl PR_SET_DUMPABLE", 157, 167, (4,), refused(errno.EPERM)),
        ("prlimit64 to read its own", 302, 261, (0, 9, 0), ALLOW),
        ("prlimit64 of another", 302, 261, (PID, 9, 0), refused(errno.EPERM)),
        ("prlimit64 to write, low half", 302, 261, (0, 9, 0x1000), refused(errno.EPERM)),
        ("prlimit64 to write, high half", 302, 261, (0, 9, 0x7F00_0000_0000), refused(errno.EPERM)),
        ("ioctl", 16, 29, (), refused(errno.ENOTTY)),
        ("socket", 41, 198, (), refused(errno.EPERM)),
        ("socketpair", 53, 199, (), refused(errno.EPERM)),
        ("connect", 42, 203, (), refused(errno.EPERM)),
        ("execve", 59, 221, (), refused(errno.EPERM)),
        ("execveat", 322, 281, (), refused(errno.EPERM)),
        ("ptrace", 101, 117, (), refused(errno.EPERM)),
        ("process_vm_readv", 310, 270, (), refused(errno.EPERM)),
        ("process_vm_writev", 311, 271, (), refused(errno.EPERM)),
        ("pidfd_getfd", 438, 438, (), refused(errno.EPERM)),
        ("pidfd_send_signal", 424, 424, (), refused(errno.EPERM)),
        ("mount", 165, 40, (), refused(errno.EPERM)),
        ("unshare", 272, 97, (), refused(errno.EPERM)),
        ("setns", 308, 268, (), refused(errno.EPERM)),
        ("bpf", 321, 280, (), refused(errno.EPERM)),
        ("perf_event_open", 298, 241, (), refused(errno.EPERM)),
        ("keyctl", 250, 219, (), refused(errno.EPERM)),
        ("io_uring_setup", 425, 425, (), refused(errno.EPERM)),
        ("open_by_handle_at", 304, 265, (), refused(errno.EPERM)),
        ("userfaultfd", 323, 282, (), refused(errno.EPERM)),
        ("memfd_create", 319, 279, (), refused(errno.EPERM)),
        ("unlinkat", 263, 35, (), refused(errno.EPERM)),
        ("setsid", 112, 157, (), refused(errno.EPERM)),
        ("a call of a later kernel", 900, 900, (), refused(errno.EPERM)),
    ],
)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_decision(
    machine: str, name: str, x86_64: int, aarch64: int, arguments: tuple[int, ...], expected: int
) -> None:
    assert decide(machine, x86_64 if machine == "x86_64" else aarch64, *arguments) == expected, name


@pytest.mark.parametrize(
    ("number", "name"), [(2, "open"), (57, "fork"), (58, "vfork"), (85, "creat"), (87, "unlink")]
)
def test_calls_that_only_x86_64_has(number: int, name: str) -> None:
    expected = refused(errno.EACCES) if name == "open" else refused(errno.EPERM)

    assert decide("x86_64", number, 0, CREAT) == expected


def test_numbers_of_another_architecture_end_the_process() -> None:
    i386 = 0x40000003

    assert decide("x86_64", 0, arch=i386) == KILL
    assert decide("aarch64", 63, arch=ARCH["x86_64"]) == KILL


def test_the_x32_table_is_closed() -> None:
    assert decide("x86_64", 0x40000000) == KILL


def test_no_table_no_filter() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        assemble(PID, "riscv64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_kernel_takes_programs_of_this_length(machine: str) -> None:
    assert len(assemble(PID, machine)) // 8 < 4096  # BPF_MAXINSNS
