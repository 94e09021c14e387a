"""The node `hotplug-plugin`: an action of a plugin."""

from __future__ import annotations

from chalicelib.core.errors import HotplugError
from chalicelib.core.instances import Heartbeat
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import TOOL_FAILED
from chalicelib.flows.nodes.outputs import outputs_of
from chalicelib.flows.nodes.refusals import refused
from chalicelib.plugins import execution, execution_log
from chalicelib.plugins.services import Services


def execute(services: Services, heartbeat: Heartbeat, call: Call) -> Result:
    """Run the action as the flow's author, keep the row of the run, and return its result as outputs.

    Raises
    ------
    NodeError
        23400, 20601.
    """
    params = call.node.params
    try:
        run = execution.execute(
            services,
            heartbeat,
            call.scope.author,
            params["pluginId"],
            action=params["action"],
            params=dict(call.inputs),
            config_id=params.get("configId") or None,
            subject=call.scope.uid or None,
            within_ms=int(call.seconds_left(execution.MAX_TIMEOUT_MS / 1000) * 1000),
            idempotency_key=call.idempotency_key,
        )
        services.database.run(lambda session: execution_log.store(session, run))
    except HotplugError as error:
        raise refused(error, TOOL_FAILED, call) from error
    return Result(outputs_of(call.node, run.result, "The result"))
