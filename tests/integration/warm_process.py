"""A warm process of its own that runs a tool whenever it is told to, and tells what it did for it.

`python -m tests.integration.warm_process CREDENTIAL PATH BODY`, with the deployment's environment: each line on
standard input is one run, each line on standard output its report.
"""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

from tests.http import Client, hotplug

# Whoever enters one of these reads a document, or makes something of it.
READERS = ("/chalicelib/tools/openapi/", "/yaml/", "/openapi_spec_validator/")


class Spy:
    """What a run entered: by the profiler, past which no Python code runs."""

    def __init__(self) -> None:
        self.entered: set[str] = set()
        self.longest_json = 0
        self.compiled = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if any(one in code.co_filename for one in READERS):
            self.entered.add(f"{code.co_filename.rpartition('/chalicelib/')[2]}:{code.co_name}")
        elif code.co_filename.endswith("/json/decoder.py") and code.co_name == "raw_decode":
            self.longest_json = max(self.longest_json, len(frame.f_locals["s"]))
        elif code.co_filename.endswith("/core/json_schema/schemas.py") and code.co_name == "_build":
            self.compiled += 1


def main(credential: str, path: str, body: str) -> None:
    client = Client(hotplug(), credential)
    # Import what is imported once, and be authenticated once.
    client.get("/api/v1/me")
    report = sys.stdout
    # The application logs to standard output.
    sys.stdout = sys.stderr
    print("ready", file=report, flush=True)
    for _ in sys.stdin:
        spy = Spy()
        sys.setprofile(spy)
        answer = client.post(path, json.loads(body))
        sys.setprofile(None)
        told = {
            "status": answer.status,
            "body": answer.json.get("body"),
            "entered": sorted(spy.entered),
            "longestJson": spy.longest_json,
            "compiled": spy.compiled,
        }
        print(json.dumps(told), file=report, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
