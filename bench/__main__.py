"""`python -m bench [AREA …]`: measure, print a table, write `.local/bench.json`.

Exits 1 where a count misses its budget (a stale answer, a second round trip) or an area fails; a ratio over its
budget is shown as MISSED and does not fail the run, because a busy machine can do that too.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from pathlib import Path

from bench.figure import Figure, exit_status, report, table
from bench.machine import load_note, server

AREAS = (
    "read",
    "reload",
    "lists",
    "history",
    "flows",
    "tools",
    "execute",
    "cold",
    "cold_package",
    "register",
    "stack",
)
REPORT = Path(__file__).resolve().parent.parent / ".local" / "bench.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the areas that are named, all without a name; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    areas = parser.parse_args(arguments).areas or list(AREAS)
    if unknown := sorted(set(areas) - set(AREAS)):
        parser.error(f"unknown area {', '.join(unknown)}; there are {', '.join(AREAS)}")
    logging.disable(logging.CRITICAL)
    figures: list[Figure] = []
    with server():
        for area in areas:
            began = time.perf_counter()
            figures += importlib.import_module(f"bench.{area}").measure()
            print(f"{area} measured in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{table(figures)}\n")
    missed = [figure for figure in figures if not figure.ok]
    with_budget = sum(figure.budget is not None for figure in figures)
    print(f"{with_budget - len(missed)} of {with_budget} budgets kept. {load_note()}")
    status = exit_status(figures)
    if missed and not status:
        print(
            "What is over budget is a matter of speed: measure again on a quiet machine before you believe it."
        )
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report(figures))
    print(f"{REPORT} has them.")
    return status


if __name__ == "__main__":
    sys.exit(main())
