"""All that nodes can do outside the interpreter."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.core import process
from chalicelib.flows.engine.call import Execute
from chalicelib.flows.nodes.calling import call_services, calling_nodes
from chalicelib.flows.nodes.model_services import model_services
from chalicelib.flows.nodes.models import model_nodes
from chalicelib.flows.nodes.variables import variable_nodes


def kinds() -> Mapping[str, Execute]:
    """Return the work of each node type with the services of this process."""
    # Made here, by the thread of the run: two that are made by two nodes at once would be two.
    process.breaker()
    return {
        **model_nodes(model_services()),
        **calling_nodes(call_services()),
        **variable_nodes(process.database()),
    }
