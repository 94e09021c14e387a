"""The node types that ask a language model."""

from __future__ import annotations

from functools import partial

from chalicelib.flows.engine.call import Execute
from chalicelib.flows.nodes import decision, extractor, llm
from chalicelib.flows.nodes.model_services import ModelServices


def model_nodes(services: ModelServices) -> dict[str, Execute]:
    """Return the work of each of these node types, by its name."""
    return {
        "llm": partial(llm.execute, services),
        "decision-making": partial(decision.execute, services),
        "extractor-parameter": partial(extractor.execute, services),
    }
