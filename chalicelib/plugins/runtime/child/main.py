"""The child process of a python plugin, or of a flow's code, from its start to its end.

The modules of this folder are not imported but handed to a bare interpreter as text (`locked_child.py`), so they use
each other and the standard library alone.

Until `walls.lock_in` has returned, no byte of what it runs has been read.
"""

from __future__ import annotations

import os
import sys

from chalicelib.plugins.runtime.child import code, frames, plugin, walls


def main(incoming: int, outgoing: int) -> None:
    """Lock in, load, and answer until the runtime closes the pipe."""
    walls.hide()
    pipe = frames.Pipe(incoming, outgoing)
    setup = pipe.receive()
    interpreter = code.interpreter_paths()
    try:
        folder = walls.lock_in(setup)
    except (OSError, ValueError) as error:
        frames.fail(pipe, "refused", "plugin.sandbox_unavailable", f"The sandbox cannot be set up: {error}")
    if setup["entryPoint"] is None:
        pipe.send(b'{"ready":true}')
        pipe.send(code.run(pipe.receive(), interpreter | set(sys.path)))
        os._exit(0)
    http = plugin.Http(pipe)
    try:
        loaded = plugin.load(folder, setup["entryPoint"], setup["config"])
    except MemoryError:
        frames.fail(
            pipe, "memory", "plugin.out_of_memory", "The plugin ran out of memory while it was loaded."
        )
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        plugin.report(error, folder)
        frames.fail(pipe, "load", "plugin.load_failed", f"{type(error).__name__}: {error}")
    frames.flush()
    pipe.send(b'{"ready":true}')
    while True:
        frame = pipe.receive()
        if "cleanup" in frame:
            plugin.clean_up(loaded, folder)
            frames.flush()
            os._exit(0)
        pipe.send(plugin.answer(loaded, frame, http, folder))
