"""/api/v1/plugins: what ran, and how well. Apart from running them, so that a read starts without what runs."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import PAGE, SINCE, moment, page_of, resource
from chalicelib.api.plugin_schemas import NUMBER, OPTIONAL_TEXT, OPTIONAL_TIME, TEXT, TIME
from chalicelib.api.request import Request
from chalicelib.plugins import catalog, execution_log, metrics

blueprint = Blueprint(__name__)

OPTIONAL_NUMBER: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
EXECUTION = resource(
    "PluginExecution",
    {
        "executionId": TEXT,
        "pluginId": TEXT,
        "version": TEXT,
        "action": TEXT,
        "subject": OPTIONAL_TEXT,
        "outcome": {"enum": list(execution_log.OUTCOMES)},
        "errorCode": OPTIONAL_TEXT,
        "durationMs": NUMBER,
        "coldLoad": {"type": "boolean"},
        "loadMs": NUMBER,
        "memoryBytes": COUNT,
        "requestId": TEXT,
        "startedAt": TIME,
    },
)
METRIC = resource(
    "PluginMetric",
    {
        "pluginId": TEXT,
        "name": TEXT,
        "type": TEXT,
        "version": TEXT,
        "path": TEXT,
        "description": TEXT,
        "status": {"enum": ["disabled", "enabled", "error"]},
        "executions": COUNT,
        "errors": COUNT,
        "errorRate": {"type": "number", "minimum": 0, "maximum": 1},
        "lastError": OPTIONAL_TEXT,
        "lastExecutedAt": OPTIONAL_TIME,
        "p50Ms": OPTIONAL_NUMBER,
        "p95Ms": OPTIONAL_NUMBER,
        "coldLoads": COUNT,
        "loadMs": OPTIONAL_NUMBER,
        "memoryBytes": COUNT,
    },
)
FILTERS: dict[str, Any] = {
    "outcome": {"type": "string", "enum": list(execution_log.OUTCOMES)},
    "since": SINCE,
}


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/executions", role="viewer", query={**PAGE, **FILTERS},
    returns={200: page_of(EXECUTION)}, summary="The app's runs of a plugin, newest first",
)  # fmt: skip
def list_executions(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    outcome, since = request.query.get("outcome"), moment("since", request.query.get("since"))
    with request.reads() as session:
        return execution_log.list_executions(
            session, request.caller, found, request.page(), outcome=outcome, since=since
        )


@endpoint(
    blueprint, "GET", "/plugins/{pluginId}/executions/{executionId}", role="viewer",
    returns={200: EXECUTION}, summary="One run",
)  # fmt: skip
def get_execution(request: Request) -> dict[str, Any]:
    found = catalog.find(request.cache, request.caller, request.path["pluginId"])
    with request.reads() as session:
        return execution_log.read_execution(session, request.caller, found, request.path["executionId"])


@endpoint(
    blueprint, "GET", "/plugins/metrics", role="viewer",
    query={"window": {"type": "string", "pattern": metrics.WINDOW_PATTERN, "default": "1h"}},
    returns={200: {"type": "array", "items": METRIC}},
    summary="How the app's plugins, and the shared ones that it ran, did lately",
)  # fmt: skip
def get_metrics(request: Request) -> list[Any]:
    minutes = metrics.window_minutes(request.query["window"])
    with request.reads() as session:
        return metrics.summary(session, request.caller, minutes)
