"""Load every agent of this checkout as a function would, and say what came of it: `python -m infra.agents`.

It needs no database and no stack. Exits with 1 where an agent could not be loaded.
"""

from __future__ import annotations

import logging
import sys

from chalicelib.agents.loading.process import registry_of_process
from chalicelib.agents.spec import LoadedAgent


def main() -> int:
    """Print a line for each agent and return the process's exit status."""
    # The lines that a function logs on the way say the same, for operators.
    logging.disable(logging.CRITICAL)
    agents = registry_of_process().all()
    for loaded in agents:
        print("\n".join(_lines(loaded)))
    return 1 if any(loaded.error for loaded in agents) else 0


def _lines(loaded: LoadedAgent) -> list[str]:
    version = loaded.spec.version if loaded.spec else "-"
    if loaded.error is not None:
        return [f"{loaded.name} {version}: {loaded.error.code}", f"  {loaded.error.detail}"]
    if loaded.agent is None:
        return [f"{loaded.name} {version}: disabled in its agent.yaml"]
    history = f", history {loaded.history_mode}" if loaded.history_mode else ""
    lines = [f"{loaded.name} {version}: loaded{history}"]
    lines += [f"  {table.mode} table {table.name}" for table in loaded.tables]
    return [*lines, *(f"  warning: {text}" for text in loaded.warnings)]


if __name__ == "__main__":
    sys.exit(main())
