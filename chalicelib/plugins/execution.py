"""Running a plugin: resolve from the hot cache, invoke the runtime function, tell what happened, keep a row of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.errors import (
    Conflict,
    HotplugError,
    Invalid,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
    Violation,
)
from chalicelib.core.ids import new_ulid
from chalicelib.core.instances import Heartbeat
from chalicelib.plugins import catalog, loading
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.configs import resolution
from chalicelib.plugins.execution_log import MAX_ERROR_CODE, Execution, store
from chalicelib.plugins.services import Services

# The action of a plugin that declares none.
DEFAULT_ACTION = "default"
ACTION_PATTERN = "^[a-z][a-zA-Z0-9_-]{0,63}$"
DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 25_000
MAX_MESSAGE = 2_000


@dataclass(frozen=True)
class _Run:
    """A run that is about to happen."""

    execution_id: str
    found: Registration
    caller: Caller
    action: str
    subject: str | None
    timeout_ms: int
    within_ms: int
    idempotency_key: str | None
    started_at: datetime


# -- running -------------------------------------------------------------------------------------------------------


def execute(
    services: Services,
    heartbeat: Heartbeat,
    caller: Caller,
    plugin_id: str,
    *,
    action: str = DEFAULT_ACTION,
    params: Any,
    timeout_ms: int | None = None,
    config_id: str | None = None,
    subject: str | None = None,
    within_ms: int = MAX_TIMEOUT_MS,
    idempotency_key: str | None = None,
) -> Execution:
    """Run one action of a plugin and return how it ended well; the caller stores it (`store`). Not inside a unit.

    A run that ended badly is stored here, before its error is raised.

    Parameters
    ----------
    params
        Validated by the action's paramsSchema, else by the manifest's.
    timeout_ms
        Milliseconds that the plugin's own work may take, 1..25,000; None for what its manifest says. Loading it comes
        on top, within the 25 s that the whole may take.
    config_id, subject
        Which configuration applies; see `configs.resolution.resolve`.
    within_ms
        Milliseconds for the whole, loading included; at most 25,000.
    idempotency_key
        Told to the plugin: two runs with the same one are meant to be one.

    Raises
    ------
    errors.NotFound
        No such plugin, or no such config.
    errors.Conflict
        `plugin.not_executable`, `plugin.broken`, `plugin.disabled`; `plugin.changed` where it does not stand still.
    errors.Invalid
        `plugin.unknown_action`, `plugin.params_invalid`, `config.incomplete`; nothing was run.
    errors.UpstreamFailed, errors.UpstreamTimeout, errors.Unavailable
        It was run: `plugin.failed` with the plugin's own error, `plugin.timeout`, `plugin.out_of_memory`,
        `plugin.result_too_large`, `plugin.result_invalid`, `plugin.load_failed`, `runtime.failed`; each with
        `executionId`, `version` and `logs`.
    """
    found, declared, config = _settled(services, caller, plugin_id, action, params, config_id, subject)
    if timeout_ms is None:
        timeout_ms = found.resource["manifest"].get("resources", {}).get("timeoutMs", DEFAULT_TIMEOUT_MS)
    within_ms = min(within_ms, MAX_TIMEOUT_MS)
    timeout_ms = min(timeout_ms, within_ms)
    run = _Run(
        new_ulid(), found, caller, action, subject, timeout_ms, within_ms, idempotency_key, datetime.now(UTC)
    )
    with telemetry.operation(
        "plugin.execute", pluginId=plugin_id, version=found.version, action=action
    ) as operation:
        operation.note(executionId=run.execution_id)
        with operation.phase("invoke"):
            execution, problem = _invoke(
                services, heartbeat, run, params, config, declared.get("returnsSchema")
            )
        operation.note(ended=execution.outcome, coldLoad=execution.cold_load, pluginMs=execution.duration_ms)
        _measure(execution)
        if execution.cold_load:
            telemetry.event("plugin.cached", pluginId=plugin_id, version=found.version, key=found.s3_path)
        if problem is not None:
            problem.extensions.update(
                executionId=execution.execution_id, version=execution.version, logs=execution.logs
            )
            services.database.run(lambda session: store(session, execution))
            raise problem
    return execution


def _settled(
    services: Services,
    caller: Caller,
    plugin_id: str,
    action: str,
    params: Any,
    config_id: str | None,
    subject: str | None,
) -> tuple[Registration, dict[str, Any], dict[str, Any]]:
    """Return (registration, declared action, configuration in force), all of one state of the plugin."""
    for last in (False, False, True):
        found = catalog.find(services.cache, caller, plugin_id)
        _check_runs(found)
        declared = _action(found, action)
        schema = declared.get("paramsSchema", found.resource["paramsSchema"])
        _refuse(schema, params, "/params", Invalid("The params do not fit.", code="plugin.params_invalid"))
        try:
            config = resolution.resolve(
                services.database,
                services.cache,
                found,
                app_id=caller.app_id,
                subject=subject,
                config_id=config_id,
            )
        except Conflict as error:
            # It changed between the two reads; the cache has followed, so the next look sees the new state.
            if last or error.code != "plugin.changed":
                raise
            continue
        return found, declared, config
    raise AssertionError("unreachable")


def _check_runs(found: Registration) -> None:
    if not found.resource["executable"]:
        raise Conflict(
            "The plugin is distributed, but nothing here can execute it.", code="plugin.not_executable"
        )
    if found.resource["status"] == "error":
        raise Conflict("The plugin did not load when it was enabled.", code="plugin.broken")
    if not found.enabled:
        raise Conflict("The plugin is disabled.", code="plugin.disabled")


def _action(found: Registration, action: str) -> dict[str, Any]:
    """Return what the manifest declares of an action. A manifest without actions leaves their names to the plugin."""
    actions: dict[str, dict[str, Any]] = found.resource["actions"]
    if not actions:
        return {}
    if action not in actions:
        raise Invalid(
            f"The plugin has no action {action}.",
            code="plugin.unknown_action",
            errors=[
                Violation(
                    "/action", "plugin.unknown_action", f"is none of {', '.join(sorted(actions))}"[:500]
                )
            ],
            extensions={"actions": sorted(actions)},
        )
    return actions[action]


def _refuse(schema: Any, value: Any, pointer: str, refusal: HotplugError) -> None:
    if schema is None:
        return
    # 126 ms of import that a plugin without schemas does not need.
    from chalicelib.core.json_schema.schemas import violations

    refusal.errors = tuple(violations(schema, value, pointer))
    if refusal.errors:
        raise refusal


def _invoke(
    services: Services,
    heartbeat: Heartbeat,
    run: _Run,
    params: Any,
    config: dict[str, Any],
    returns_schema: Any,
) -> tuple[Execution, HotplugError | None]:
    found, caller = run.found, run.caller
    event = loading.payload(
        services.storage, found, operation="execute", config=config, timeout_ms=run.timeout_ms
    ) | {
        "action": run.action,
        "params": params,
        "context": {
            "requestId": caller.request_id,
            "appId": caller.alias_id,
            "subject": run.subject,
            "pluginId": found.plugin_id,
            "version": found.version,
            "action": run.action,
            "idempotencyKey": run.idempotency_key,
        },
        "cache": loading.cache_state(services.cache),
    }
    function = loading.runtime_function(found)
    event["loadTimeoutMs"] = min(event["loadTimeoutMs"], run.within_ms)
    budget_ms = min(run.timeout_ms + event["loadTimeoutMs"], run.within_ms)
    began = time.perf_counter()
    try:
        answer = services.functions.invoke(function, event, tenant=caller.alias_id, timeout_ms=budget_ms)
    except HotplugError as error:
        waited_ms = round((time.perf_counter() - began) * 1000, 3)
        return _unanswered(run, error, waited_ms)
    problem = _problem(answer)
    _beat(heartbeat, run, function, answer, problem)
    if problem is None:
        problem = _check_result(answer["result"], returns_schema)
    return _ended(run, answer, problem), problem


def _unanswered(run: _Run, error: HotplugError, waited_ms: float) -> tuple[Execution, HotplugError]:
    problem = error
    if isinstance(error, UpstreamTimeout):
        problem = UpstreamTimeout("The plugin did not answer within its time limit.", code="plugin.timeout")
    answer = {"durationMs": waited_ms}
    return _ended(run, answer, problem), problem


def _problem(answer: dict[str, Any]) -> HotplugError | None:
    """Return what the runtime's answer means to the caller, None for a result."""
    if answer["ok"]:
        return None
    error = answer["error"]
    kind, code, message = error["kind"], str(error["code"]), str(error["message"])[:MAX_MESSAGE]
    if kind == "plugin":
        own = {"code": code, "message": message, "data": error.get("data")}
        return UpstreamFailed(
            "The plugin answered with an error.", code="plugin.failed", extensions={"error": own}
        )
    if kind == "timeout":
        return UpstreamTimeout(message, code=code)
    if kind in ("memory", "output"):
        return UpstreamFailed(message, code=code)
    if kind in ("load", "refused"):
        own = {"code": code, "message": message, "data": error.get("data")}
        return Unavailable(
            "The plugin does not load.", code="plugin.load_failed", extensions={"error": own}, retry_after=5
        )
    return UpstreamFailed("The runtime failed.", code="runtime.failed")


def _check_result(result: Any, schema: Any) -> HotplugError | None:
    """A result that breaks the plugin's own promise is the plugin's failure: whoever called it relies on the schema."""
    try:
        _refuse(
            schema,
            result,
            "/result",
            UpstreamFailed(
                "The plugin's result does not fit its returnsSchema.", code="plugin.result_invalid"
            ),
        )
    except UpstreamFailed as error:
        return error
    return None


def _outcome(problem: HotplugError | None) -> str:
    if problem is None:
        return "success"
    if isinstance(problem, UpstreamTimeout):
        return "timeout"
    known = {
        "plugin.failed": "failed",
        "plugin.result_invalid": "failed",
        "plugin.out_of_memory": "limit",
        "plugin.result_too_large": "limit",
        "plugin.load_failed": "load_failed",
    }
    return known.get(problem.code, "internal")


def _ended(run: _Run, answer: dict[str, Any], problem: HotplugError | None) -> Execution:
    # The plugin's own code says more than that it failed.
    code = None if problem is None else str(problem.extensions.get("error", {}).get("code") or problem.code)
    return Execution(
        execution_id=run.execution_id,
        plugin_id=run.found.plugin_id,
        app_id=run.caller.app_id,
        version=run.found.version,
        action=run.action,
        subject=run.subject or "",
        request_id=run.caller.request_id,
        started_at=run.started_at,
        outcome=_outcome(problem),
        error_code=None if code is None else code[:MAX_ERROR_CODE],
        result=answer.get("result") if problem is None else None,
        logs=str(answer.get("logs", "")),
        duration_ms=float(answer.get("durationMs", 0)),
        cold_load=bool(answer.get("coldLoad")),
        load_ms=float(answer.get("loadMs", 0)),
        memory_bytes=int(answer.get("memoryBytes", 0)),
        instance_id=str(answer.get("instanceId", "")),
    )


def _beat(
    heartbeat: Heartbeat, run: _Run, function: str, answer: dict[str, Any], problem: HotplugError | None
) -> None:
    """Write which environment ran what: the runtime has no database, so it is its caller who tells."""
    load_error = None
    if problem is not None and problem.code == "plugin.load_failed":
        load_error = f"{run.found.plugin_id} {run.found.version}: {problem.extensions['error']['message']}"
    known = answer.get("scopeVersion")
    heartbeat.beat(
        answer["instanceId"],
        function,
        tenant=run.caller.alias_id,
        versions={} if known is None else {"plugins": known},
        loaded=answer["loaded"],
        load_error=load_error,
        memory_bytes=answer["memoryBytes"],
        seen_at=run.started_at,
    )


def _measure(execution: Execution) -> None:
    telemetry.metric("plugin.executions", 1)
    telemetry.metric("plugin.errors", 0 if execution.error_code is None else 1)
    telemetry.metric("plugin.duration", execution.duration_ms, "Milliseconds")
    if execution.cold_load:
        telemetry.metric("plugin.reloads", 1)
        telemetry.metric("plugin.load", execution.load_ms, "Milliseconds")
