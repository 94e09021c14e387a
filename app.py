"""Everything that is deployed, top to bottom: the HTTP API, then the functions that other events trigger.

`HOTPLUG_ENDPOINT` narrows the API to one endpoint's module (`plugins.get_plugin`), or to none for a function that
serves no HTTP, so that a cold start imports what it needs and nothing else.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from chalice.app import Chalice, Rate

API_MODULES = (
    "system", "apps", "plugins", "plugin_installs", "plugin_configs", "plugin_runs", "plugin_executions", "tools",
    "tool_runs", "tool_credentials", "mcp_servers", "mcp", "agents", "agent_threads", "agent_tables", "flows",
    "flow_versions", "flow_licenses", "flow_diagrams", "flow_history", "flow_runs", "runs", "maintenance",
)  # fmt: skip

# Logging is core/telemetry's: Chalice would write every line a second time.
app = Chalice(app_name="hotplug", configure_logs=False)
# A multipart form is binary to API Gateway only if it is told so.
app.api.binary_types.append("multipart/form-data")

_endpoint = os.environ.get("HOTPLUG_ENDPOINT", "")
for _module in API_MODULES:
    if _endpoint in ("", "all") or _endpoint.partition(".")[0] == _module:
        app.register_blueprint(importlib.import_module(f"chalicelib.api.{_module}").blueprint)


@app.on_sqs_message(queue="hotplug-installs", batch_size=1, name="register")
def register(event: Any) -> dict[str, Any]:
    from chalicelib.events import registration

    return registration.handle(event.to_dict())


@app.on_sqs_message(queue="hotplug-installs-dead", batch_size=1, name="register_dead_letter")
def register_dead_letter(event: Any) -> dict[str, Any]:
    from chalicelib.events import registration

    return registration.handle_dead_letter(event.to_dict())


@app.schedule(Rate(1, unit=Rate.MINUTES), name="sweep")
def sweep(event: Any) -> dict[str, Any]:
    from chalicelib.events import schedules

    return schedules.run("sweep", "sweep_runs", "send_run_callbacks", "move_agents")


@app.schedule(Rate(5, unit=Rate.MINUTES), name="lost_events")
def lost_events(event: Any) -> dict[str, Any]:
    from chalicelib.events import schedules

    return schedules.run("lost_events", "measure")


@app.schedule(Rate(10, unit=Rate.MINUTES), name="expired_uploads")
def expired_uploads(event: Any) -> dict[str, Any]:
    from chalicelib.events import schedules

    return schedules.run("expired_uploads")


@app.schedule(Rate(1, unit=Rate.HOURS), name="hourly")
def hourly(event: Any) -> dict[str, Any]:
    from chalicelib.events import schedules

    return schedules.run(
        "prune_log", "prune_instances", "prune_idempotency", "prune_leases", "prune_breakers", "purge_moved"
    )


@app.schedule(Rate(1, unit=Rate.DAYS), name="daily")
def daily(event: Any) -> dict[str, Any]:
    from chalicelib.events import schedules

    return schedules.run(
        "retain_versions",
        "retain_executions",
        "retain_agents",
        "retain_tool_executions",
        "purge_tools",
        "retain_flow_history",
        "purge_flow_history",
        "retain_runs",
        "tombstoned_objects",
    )


@app.lambda_function(name="runtime")
def runtime(event: Any, context: Any) -> dict[str, Any]:
    from chalicelib.events import execution

    return execution.handle(event)


@app.lambda_function(name="runtime_network")
def runtime_network(event: Any, context: Any) -> dict[str, Any]:
    from chalicelib.events import execution

    return execution.handle(event)


@app.lambda_function(name="run")
def run(event: Any, context: Any) -> Any:
    from chalicelib.events import runs

    return runs.handle(event, context)


@app.lambda_function(name="migrate")
def migrate(event: Any, context: Any) -> dict[str, Any]:
    from chalicelib.events import deployment

    return deployment.handle(event, context)
