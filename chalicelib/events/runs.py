"""The function of durable runs: the service invokes it until a run has ended."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from chalicelib.core import process, telemetry

# It writes the text of what a step raised, with a stack, for every attempt that is made again.
_NOISY = "aws_durable_execution_sdk_python.operation.step"


def handle(event: dict[str, Any], context: Any) -> Any:
    """Go on with the execution that an event of the service is about."""
    try:
        return _durable()(event, context)
    finally:
        telemetry.flush()


@lru_cache(maxsize=1)
def _durable() -> Any:
    from aws_durable_execution_sdk_python import durable_execution

    from chalicelib.flows.runs import durable
    from chalicelib.flows.services import flow_services

    logging.getLogger(_NOISY).setLevel(logging.CRITICAL)

    def run(event: dict[str, Any], context: Any) -> dict[str, Any]:
        telemetry.bind(runId=event["runId"], function=process.FUNCTION_NAME)
        return durable.handle(flow_services(), event["runId"], context)

    return durable_execution(run)
