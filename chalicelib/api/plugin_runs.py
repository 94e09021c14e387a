"""/api/v1/plugins: running them."""

from __future__ import annotations

from typing import Any

from chalice.app import Blueprint

from chalicelib.api.endpoint import endpoint
from chalicelib.api.parameters import resource
from chalicelib.api.plugin_schemas import NUMBER, TEXT
from chalicelib.api.request import Answer, Request
from chalicelib.core import process
from chalicelib.core.ids import ULID_PATTERN
from chalicelib.core.settings import ONE_MIB
from chalicelib.plugins import execution, execution_log
from chalicelib.plugins.configs.scopes import SUBJECT_PATTERN
from chalicelib.plugins.services import plugin_services

blueprint = Blueprint(__name__)

MAX_BODY_BYTES = ONE_MIB
RUN: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "action": {
            "type": "string",
            "pattern": execution.ACTION_PATTERN,
            "default": execution.DEFAULT_ACTION,
            "description": "One that the manifest declares; any name where it declares none.",
        },
        "params": {"description": "Any JSON that the paramsSchema admits.", "default": {}},
        "options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "timeoutMs": {"type": "integer", "minimum": 1, "maximum": execution.MAX_TIMEOUT_MS},
                "configId": {"type": "string", "pattern": ULID_PATTERN},
                "subject": {"type": "string", "pattern": SUBJECT_PATTERN},
            },
        },
    },
}
RESULT = resource(
    "PluginResult",
    {
        "executionId": TEXT,
        "result": {"description": "What the plugin answered: any JSON."},
        "durationMs": NUMBER,
        "logs": TEXT,
        "version": TEXT,
        "coldLoad": {"type": "boolean"},
    },
)


@endpoint(
    blueprint, "POST", "/plugins/{pluginId}/execute", role="caller", idempotent=True, body=RUN, body_optional=True,
    max_body_bytes=MAX_BODY_BYTES, errors=(409, 422, 502, 504),
    rights=("database", "open_secrets", "presign", "invoke_runtime"),
    returns={200: RESULT}, summary="Run one action of a plugin",
)  # fmt: skip
def execute_plugin(request: Request) -> Answer:
    body = request.body
    options = body.get("options", {})
    run = execution.execute(
        plugin_services(),
        process.heartbeat(),
        request.caller,
        request.path["pluginId"],
        action=body.get("action", execution.DEFAULT_ACTION),
        params=body.get("params", {}),
        timeout_ms=options.get("timeoutMs"),
        config_id=options.get("configId"),
        subject=options.get("subject"),
    )

    def work(session: Any) -> dict[str, Any]:
        execution_log.store(session, run)
        return run.as_dict()

    return request.write(work)
