"""The child process of a python plugin, or of a flow's code: it locks itself in, then runs what is not ours.

This file is not imported but handed to a bare interpreter as text, so it uses the standard library alone.
Until `_lock_in` has returned, no byte of what it runs has been read.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import importlib.util
import json
import os
import resource
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

MAX_FRAME = 12 * 1024 * 1024
MAX_RESULT_BYTES = 5 * 1024 * 1024
MAX_OPEN_FILES = 64
THREAD_STACK_BYTES = 2 * 1024 * 1024
MAX_MESSAGE = 2_000
CODE_FILE = "<code>"
CODE_MODULE = "flow_code"  # not __main__: what a file does when it is run as a script is not done

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_M_ARENA_MAX = -8
# linux/landlock.h; the numbers of these calls are the same on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _LANDLOCK_PATH_BENEATH = 444, 445, 446, 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS_OF_ABI = (0, 13, 14, 15, 15, 16)  # how many file rights each ABI version knows


class HttpError(Exception):
    """A request that was refused or failed; `code` tells why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Pipe:
    """Length-prefixed JSON to and from the runtime."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    def receive(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(4))
        frame = json.loads(self._exactly(length))
        return frame if isinstance(frame, dict) else {}

    def send(self, frame: bytes) -> None:
        rest = memoryview(struct.pack(">I", len(frame)) + frame)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]

    def _exactly(self, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.read(self._incoming, length)
            if not piece:
                os._exit(0)  # the runtime is gone, or done with us
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


class Http:
    """`context.http`: the runtime makes the request, to granted hosts only."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.lock = threading.Lock()
        self.turn: str | None = None  # of the execution that is going on

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        timeout_ms: int | None = None,
    ) -> dict[str, Any]:
        """Return `{status, headers, body (text), content (bytes)}`; raises HttpError."""
        content = body.encode() if isinstance(body, str) else body
        message = {
            "method": method,
            "url": url,
            "headers": dict(headers or {}),
            "bodyBase64": None if content is None else base64.b64encode(content).decode(),
            "timeoutMs": timeout_ms,
        }
        with self.lock:
            # A thread that outlives its execution would read the frames of the next one.
            if self.turn is None:
                raise HttpError("http.closed", "context.http works during execute() only")
            frame = json.dumps({"turn": self.turn, "http": message}).encode()
            if len(frame) > MAX_RESULT_BYTES:
                raise HttpError("http.request_too_large", "the request is too large")
            self._pipe.send(frame)
            answer = self._pipe.receive()
        if "error" in answer:
            raise HttpError(answer["error"]["code"], answer["error"]["message"])
        received = base64.b64decode(answer["bodyBase64"])
        return {
            "status": answer["status"],
            "headers": answer["headers"],
            "body": received.decode("utf-8", "replace"),
            "content": received,
        }


class Context(dict[str, Any]):
    """What `execute` is given besides its parameters: `context["requestId"]`, `context.http`."""

    def __init__(self, values: Mapping[str, Any], http: Http) -> None:
        super().__init__(values)
        self.http = http


def main(incoming: int, outgoing: int) -> None:
    """Lock in, load, and answer until the runtime closes the pipe."""
    _hide()
    pipe = Pipe(incoming, outgoing)
    setup = pipe.receive()
    interpreter = _interpreter_paths()
    try:
        folder = _lock_in(setup)
    except (OSError, ValueError) as error:
        _fail(pipe, "refused", "plugin.sandbox_unavailable", f"The sandbox cannot be set up: {error}")
    if setup["entryPoint"] is None:
        pipe.send(b'{"ready":true}')
        pipe.send(_run_code(pipe.receive(), interpreter | set(sys.path)))
        os._exit(0)
    http = Http(pipe)
    try:
        plugin = _load(folder, setup["entryPoint"], setup["config"])
    except MemoryError:
        _fail(pipe, "memory", "plugin.out_of_memory", "The plugin ran out of memory while it was loaded.")
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        _report(error, folder)
        _fail(pipe, "load", "plugin.load_failed", f"{type(error).__name__}: {error}")
    _flush()
    pipe.send(b'{"ready":true}')
    while True:
        frame = pipe.receive()
        if "cleanup" in frame:
            _clean_up(plugin, folder)
            _flush()
            os._exit(0)
        pipe.send(_answer(plugin, frame, http, folder))


def _answer(plugin: Any, frame: dict[str, Any], http: Http, folder: str) -> bytes:
    turn = frame["turn"]
    http.turn = turn
    try:
        result = plugin.execute(frame["action"], frame["params"], Context(frame["context"], http))
        answer = json.dumps({"turn": turn, "result": result}, ensure_ascii=False, allow_nan=False).encode()
        if len(answer) > MAX_RESULT_BYTES:
            return _error("output", "plugin.result_too_large", "The result is too large.", turn=turn)
        return answer
    except MemoryError:
        return _error("memory", "plugin.out_of_memory", "The plugin ran out of memory.", turn=turn)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        _report(error, folder)
        code, data = getattr(error, "code", None), getattr(error, "data", None)
        name = "plugin.recursion" if isinstance(error, RecursionError) else "plugin.exception"
        message = f"{type(error).__name__}: {error}"
        return _error("plugin", code if isinstance(code, str) else name, message, data, turn=turn)
    finally:
        with http.lock:  # waits for a thread's request that is on its way
            http.turn = None
        _flush()


def _run_code(frame: dict[str, Any], paths: set[str]) -> bytes:
    """Run `main` of a source with its inputs, and return the answer.

    Parameters
    ----------
    paths
        Where this machine keeps its interpreter: left out of messages.
    """
    try:
        try:
            result = _main_of(frame["source"])(**frame["inputs"])
        except MemoryError:
            return _error("memory", "code.out_of_memory", "The code ran out of memory.")
        except BaseException as error:  # noqa: BLE001 - strangers' code may raise anything, SystemExit too
            return _error("plugin", "code.failed", _told(error, paths))
        if not isinstance(result, dict):
            return _error("output", "code.result_invalid", f"main returned {type(result).__name__}, no dict.")
        try:
            answer = json.dumps({"result": result}, ensure_ascii=False, allow_nan=False).encode()
        except MemoryError:
            return _error("memory", "code.out_of_memory", "The code ran out of memory.")
        except BaseException as error:  # noqa: BLE001 - a subclass of dict has methods of its own
            return _error(
                "output", "code.result_invalid", f"What main returned is no JSON: {_told(error, paths)}"
            )
        if len(answer) > frame["maxBytes"]:
            return _error("output", "code.result_too_large", "The result is too large.")
        return answer
    finally:
        _flush()


def _main_of(source: str) -> Callable[..., Any]:
    # Not with our own `from __future__`.
    compiled = compile(source, CODE_FILE, "exec", dont_inherit=True)
    module = ModuleType(CODE_MODULE)
    sys.modules[CODE_MODULE] = module  # dataclasses look their module up
    exec(compiled, module.__dict__)  # noqa: S102 - that is what this process is for
    main: Callable[..., Any] | None = getattr(module, "main", None)
    if not callable(main):
        raise NameError("The code defines no function main.")
    return main


def _told(error: BaseException, paths: set[str]) -> str:
    """Return an exception's type, its message, and the line of the code that it came from."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == CODE_FILE else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CODE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__
        text = ""
    place = "" if line is None else f" (line {line})"
    kept = MAX_MESSAGE - len(place)
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, "…")
    return f"{type(error).__name__}: {text}".removesuffix(": ")[:kept] + place


def _interpreter_paths() -> set[str]:
    places = {*sys.path, sys.prefix, sys.base_prefix, os.path.dirname(sys.executable)}
    return {path for path in places if path.count("/") > 1}


def _error(kind: str, code: str, message: str, data: Any = None, *, turn: str | None = None) -> bytes:
    error = {"kind": kind, "code": code, "message": message[:MAX_MESSAGE], "data": data}
    try:
        return json.dumps({"turn": turn, "error": error}, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return json.dumps({"turn": turn, "error": {**error, "data": None}}).encode()


def _fail(pipe: Pipe, kind: str, code: str, message: str) -> NoReturn:
    _flush()
    pipe.send(_error(kind, code, message))
    os._exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # The plugin closed or replaced it: its log ends here.
            continue


def _report(error: BaseException, folder: str) -> None:
    """Write the plugin's part of a traceback to its log."""
    try:
        frames = [
            entry for entry in traceback.extract_tb(error.__traceback__) if entry.filename.startswith(folder)
        ]
        lines = [*traceback.format_list(frames[-50:]), *traceback.format_exception_only(error)]
        sys.stderr.write("".join(lines).replace(f"{folder}/", ""))
    except Exception:  # noqa: BLE001, S110 - a hostile __str__, a closed stream
        pass


def _load(folder: str, entry_point: str, config: Any) -> Any:
    sys.path.insert(0, folder)
    path = os.path.join(folder, entry_point)
    spec = importlib.util.spec_from_file_location("hotplug_plugin", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry_point} is not a python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hotplug_plugin"] = module
    spec.loader.exec_module(module)
    plugin = module.Plugin()
    if not callable(getattr(plugin, "execute", None)):
        raise TypeError("Plugin has no method execute(action, params, context)")
    if hasattr(plugin, "init"):
        plugin.init(config)
    return plugin


def _clean_up(plugin: Any, folder: str) -> None:
    try:
        if hasattr(plugin, "cleanup"):
            plugin.cleanup()
    except BaseException as error:  # noqa: BLE001 - the process ends either way
        _report(error, folder)


def _hide() -> None:
    """Close `/proc/<pid>/mem` and its neighbours to other plugins of this user, before the configuration comes:
    where there is no Landlock, native code of theirs could read our secrets there."""
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _lock_in(setup: dict[str, Any]) -> str:
    """Give up everything that is not needed; return the plugin's folder as this process can reach it, '' where there
    is none."""
    os.environ.clear()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mallopt(_M_ARENA_MAX, 1)  # an arena per thread would reserve 64 MB of the address space each
    threading.stack_size(THREAD_STACK_BYTES)
    folders = [path for path in sys.path if os.path.isdir(path)]
    if setup["folder"] is not None:
        folders.insert(0, setup["folder"])
    # The wall below closes /proc, its own entry included.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    opened = {path: os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in folders}
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    walled = setup["landlock"] and _landlock(libc, [*folders, *setup["readable"]])
    if setup["uid"] is not None:
        os.setgroups([])
        os.setresgid(setup["uid"], setup["uid"], setup["uid"])
        resource.setrlimit(resource.RLIMIT_NPROC, (setup["processes"], setup["processes"]))
        os.setresuid(setup["uid"], setup["uid"], setup["uid"])
    else:
        _limit(resource.RLIMIT_NPROC, setup["processes"])
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != setup["parent"]:
        os._exit(0)
    reached = {path: _reachable(path, descriptor) for path, descriptor in opened.items()}
    sys.path[:] = [reached.get(path, path) for path in sys.path]
    _relocate_packages(reached)
    if not walled:
        sys.addaudithook(_open_only([*folders, *setup["readable"]]))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CPU, setup["cpuSeconds"])
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_AS, _address_space(statm) + setup["memoryBytes"])
    if setup["filter"] is not None:
        _seccomp(libc, base64.b64decode(setup["filter"]))
    return reached.get(setup["folder"], "")


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _address_space(statm: int) -> int:
    pages = int(os.read(statm, 200).split()[0])
    os.close(statm)
    return pages * resource.getpagesize()


def _reachable(path: str, descriptor: int) -> str:
    """Return a path by which this user reaches a folder: where a parent folder is closed to it (an
    interpreter under /root), the descriptor that was opened before."""
    try:
        os.scandir(path).close()
    except PermissionError:
        return f"/proc/self/fd/{descriptor}"
    os.close(descriptor)
    return path


def _relocate_packages(reached: Mapping[str, str]) -> None:
    """Let packages that are loaded already find their submodules by the new paths."""
    moved = {path: target for path, target in reached.items() if path != target}
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        places = getattr(module, "__path__", None)
        if isinstance(places, list):
            for old, new in moved.items():
                places[:] = [new + place[len(old) :] if place.startswith(old) else place for place in places]


def _landlock(libc: ctypes.CDLL, readable: list[str]) -> bool:
    """Allow reading these paths and no other file; False where the kernel has no Landlock."""
    abi = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    handled = (1 << _RIGHTS_OF_ABI[min(abi, 5)]) - 1
    # TCP from ABI 4; abstract sockets and signals to outside from ABI 6. The filter refuses them all anyway.
    attributes = struct.pack("=QQQ", handled, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0))
    for path in readable:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this system; then there is nothing to read
        rights = _READ_FILE | _EXECUTE | (_READ_DIR if os.path.isdir(path) else 0)
        rule = struct.pack("=Qi", rights, descriptor)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0))
        os.close(descriptor)
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0))
    os.close(ruleset)
    return True


def _open_only(readable: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that refuses to open other paths: what python code can do where there is no
    Landlock. Native code gets around it."""
    roots = tuple(os.path.realpath(path) for path in readable)
    prefixes = tuple(f"{root}/" for root in roots)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir"):
            return
        path = arguments[0]
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path) if path is not None else os.getcwd())
        if real not in roots and not real.startswith(prefixes):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    return hook


def _seccomp(libc: ctypes.CDLL, program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    filled = Program(len(program) // 8, program)
    _check(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
