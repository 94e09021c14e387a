"""All that nodes can do outside the interpreter."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.flows.engine.call import Execute


def kinds() -> Mapping[str, Execute]:
    """Return the work of each node type with the services of this process."""
    return {}
