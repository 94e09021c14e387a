"""One registration, or one download, in a process of its own: `python -m bench.register_process WORK KEY VERSION`.

Prints `{"seconds": ..., "peakBytes": ...}` as its last line.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from chalicelib.plugins import incoming
from chalicelib.plugins.services import Services, plugin_services

MAX_BYTES = 200_000_000


def register(services: Services, key: str, version_id: str) -> None:
    """Do what the registering function does with one event."""
    outcome = incoming.register_artifact(services, key, version_id)
    if outcome != "registered":
        raise RuntimeError(f"the package was {outcome}")


def download(services: Services, key: str, version_id: str) -> None:
    """Stream the object to a file and hash it, as any way of registering must."""
    with tempfile.TemporaryFile() as file:
        services.storage.download(key, version_id, file, max_bytes=MAX_BYTES)


def peak_bytes() -> int:
    """Return the most memory that this process had."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would begin with the peak of the process that this one was started from.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Do the work that the command line names; the clients are warm, as in a function that has served before."""
    work, key, version_id = sys.argv[1:]
    services = plugin_services()
    services.storage.head(key)
    with services.database.reads() as session:
        session.connection()
    began = perf_counter()
    {"register": register, "download": download}[work](services, key, version_id)
    told = {"seconds": perf_counter() - began, "peakBytes": peak_bytes()}
    # A line of its own, past whatever was logged.
    os.write(1, f"\n{json.dumps(told)}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
