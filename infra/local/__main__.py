"""`python -m infra.local`: run the local stack until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from infra.functions import ROOT
from infra.local.folder import FolderInUse
from infra.local.stack import LocalStack, StackFailed

DEFAULT_PORT = 8700
SIGNAL_POLL_S = 0.1
OWN_VARIABLES = frozenset(
    {"HOTPLUG_DATABASE_URL", "HOTPLUG_ENDPOINT", "HOTPLUG_LOCAL_CACHE_DIR", "HOTPLUG_MINISTACK"}
)
CLIENT_VARIABLES = frozenset({"HOTPLUG_URL", "HOTPLUG_CREDENTIAL", "HOTPLUG_S3"})
"""What the documentation has a reader export: nothing that a function needs, and one is a secret."""


def main(arguments: list[str] | None = None) -> int:
    """Run the stack; return the process's exit status."""
    options = _parser().parse_args(arguments)
    wait_for_signal = until_signal()
    port = free_port(options.port)
    stack = LocalStack(
        options.folder,
        port=port,
        api_processes=options.api_processes,
        per_endpoint=options.per_endpoint,
        environment=settings_of(os.environ) | dict(options.env),
        task_root=options.task_root,
    )
    try:
        stack.start()
    except (StackFailed, FolderInUse) as error:
        print(f"the local stack did not start: {error}", file=sys.stderr)
        return 1
    try:
        print(f"base URL          {stack.url}{port_note(options.port, port)}")
        print(f"admin credential  {stack.admin_credential or '(none)'}")
        print(f"S3 endpoint       {stack.s3_endpoint}")
        print(f"logs              {stack.logs_folder}")
        print("Ctrl-C stops the stack; its state stays.", flush=True)
        wait_for_signal()
    finally:
        stack.stop()
    return 0


def until_signal() -> Callable[[], None]:
    """Take over SIGINT and SIGTERM, and return a function that waits for the first of them.

    A flag and a short sleep, not an Event: a handler that runs while its own thread is entering `Event.wait` would
    wait for ever for the lock that the interrupted call holds.
    """
    arrived: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: arrived.append(number))

    def wait() -> None:
        while not arrived:
            time.sleep(SIGNAL_POLL_S)

    return wait


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".local", help="where all state lives")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="a free one is used when it is taken")
    parser.add_argument("--api-processes", type=int, default=4, help="how many API processes are kept warm")
    parser.add_argument("--per-endpoint", action="store_true", help="one function per endpoint, as deployed")
    parser.add_argument("--task-root", type=Path, default=ROOT, help="the folder with app.py")
    parser.add_argument(
        "--env",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for all trusted functions",
    )
    return parser


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError("NAME=VALUE is wanted")
    return name, value


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the service's settings that a shell holds; what the stack itself decides is left out."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith("HOTPLUG_") and name not in OWN_VARIABLES | CLIENT_VARIABLES
    }


def free_port(wanted: int) -> int:
    """Return a port, or 0, which takes any, where another program has it."""
    with socket.socket() as probe:
        # As the server itself will do: a port that only lingers after its last owner is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def port_note(wanted: int, found: int) -> str:
    """Return what is said beside an address that is not at the port that was wanted."""
    return f" (port {wanted} is taken)" if wanted != found else ""


if __name__ == "__main__":
    sys.exit(main())
