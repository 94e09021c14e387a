"""Which function serves which endpoint and event: one table for the local stack and for AWS packaging.

The table is read from the application itself: its Chalice registrations, and
`chalicelib.api.endpoint.ENDPOINTS` for what each endpoint needs. The application is imported in a process of
its own (this file, run as a script), so that neither its imports nor its settings leak into the stack or into
packaging.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
Kind = Literal["api", "sqs", "schedule", "direct"]

# API Gateway ends an integration after 29 s: an endpoint that ran longer would answer nobody.
GATEWAY_TIMEOUT_S = 29

# One tenant never shares a process, /tmp or Runtime API with another: these functions run what tenants
# uploaded.
PER_TENANT = frozenset({"runtime", "runtime_network"})

# Their handlers are AWS Lambda durable executions: every step is checkpointed, and a wait costs nothing. An execution
# that has not ended after DURABLE_TIMEOUT_S is ended by Lambda; one that has is known for DURABLE_RETENTION_DAYS, and
# as long is its name taken.
DURABLE = frozenset({"run"})
DURABLE_TIMEOUT_S = 31 * 24 * 3600
DURABLE_RETENTION_DAYS = 14


@dataclass(frozen=True)
class Limits:
    """Time (seconds) and memory (MB) of a function."""

    timeout_s: int
    memory_mb: int


# What an event function may use; Chalice has no place beside the handler to say it.
EVENT_LIMITS: Mapping[str, Limits] = {
    "register": Limits(120, 1024),
    "register_dead_letter": Limits(60, 512),
    "runtime": Limits(28, 1024),
    "runtime_network": Limits(28, 1024),
    # One invocation, not one run: a run that waits is invoked again. 1,769 MB is one whole CPU.
    "run": Limits(300, 1769),
    "migrate": Limits(600, 512),
}
DEFAULT_EVENT_LIMITS = Limits(120, 512)

# What an event function may do, as endpoints declare it themselves. infra/aws/rights.py says what each right means.
EVENT_RIGHTS: Mapping[str, tuple[str, ...]] = {
    "register": ("database", "register_artifacts", "open_secrets", "presign", "invoke_runtime"),
    # It sends the callbacks of runs, too.
    "sweep": (
        "database",
        "check_uploads",
        "remove_artifacts",
        "announce",
        "start_runs",
        "answer_runs",
        "watch_runs",
        "open_secrets",
        "internet",
    ),
    "lost_events": ("database", "remove_uploads", "announce"),
    "expired_uploads": ("database", "find_uploads", "remove_uploads", "announce"),
    "daily": ("database", "remove_artifacts", "remove_run_values"),
    # It answers itself where a run is cancelled in the moment in which it begins to wait.
    "run": (
        "database",
        "keep_run_values",
        "answer_runs",
        "open_secrets",
        "presign",
        "invoke_runtime",
        "internet",
        "ask_model",
    ),
    "runtime": (),
    "runtime_network": (),
    "migrate": ("administer_database",),
}
DEFAULT_EVENT_RIGHTS = ("database",)


@dataclass(frozen=True)
class Function:
    """One Lambda function.

    Parameters
    ----------
    name
        Its name, in the alphabet that Lambda admits.
    handler
        `module.attribute`.
    environment
        What this function needs beside the settings that all share.
    per_tenant
        Its environments belong to one tenant each, and it has no rights: no database, no credentials.
    rights
        What an endpoint declared, or EVENT_RIGHTS; packaging makes the role from it.
    queue
        For kind `sqs`: the queue's name.
    concurrency
        For kind `sqs`: how many messages at once (an event source's MaximumConcurrency).
    schedule
        For kind `schedule`: the expression, `rate(1 minute)`.
    durable
        Its invocations are durable executions.
    """

    name: str
    handler: str
    kind: Kind
    timeout_s: int
    memory_mb: int
    environment: Mapping[str, str] = field(default_factory=dict)
    per_tenant: bool = False
    rights: tuple[str, ...] = ()
    queue: str | None = None
    concurrency: int | None = None
    schedule: str | None = None
    durable: bool = False


@dataclass(frozen=True)
class Route:
    """A method on a resource path (`/api/v1/plugins/{pluginId}`) and the function that serves it."""

    method: str
    path: str
    function: Function


class RouteNotFound(LookupError):
    """No resource has this path."""


class MethodNotRouted(LookupError):
    """The resource exists without this method."""

    def __init__(self, path: str, allowed: Iterable[str]) -> None:
        super().__init__(path)
        self.allowed = tuple(sorted(allowed))


class _Resource:
    """A node of the path tree: fixed children, at most one variable child, and the routes that end here."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Resource] = {}
        self.variable: tuple[str, _Resource] | None = None
        self.routes: dict[str, Route] = {}

    def child(self, segment: str, path: str) -> _Resource:
        if not segment.startswith("{"):
            return self.fixed.setdefault(segment, _Resource())
        name = segment[1:-1]
        if name.endswith("+"):
            raise ValueError(f"{path}: greedy path variables are not supported")
        if self.variable is None:
            self.variable = (name, _Resource())
        if self.variable[0] != name:
            # API Gateway refuses this at deployment; Chalice's own development server would not notice.
            raise ValueError(f"{path}: sibling routes name this variable {{{self.variable[0]}}}")
        return self.variable[1]

    def find(self, segments: list[str], position: int, captured: dict[str, str]) -> _Resource | None:
        if position == len(segments):
            return self if self.routes else None
        segment = segments[position]
        if (fixed := self.fixed.get(segment)) and (found := fixed.find(segments, position + 1, captured)):
            return found
        if self.variable and segment:
            name, resource = self.variable
            if found := resource.find(segments, position + 1, captured):
                captured[name] = segment
                return found
        return None


class FunctionTable:
    """All functions, and API Gateway's way from a request to one of them."""

    def __init__(
        self, functions: Iterable[Function], routes: Iterable[Route], binary_types: Iterable[str]
    ) -> None:
        self.functions = tuple(functions)
        self.routes = tuple(routes)
        self.binary_types = frozenset(binary_types)
        self.by_name = {function.name: function for function in self.functions}
        if len(self.by_name) != len(self.functions):
            raise ValueError("two functions have the same name")
        self._root = _Resource()
        for route in self.routes:
            resource = self._root
            for segment in _segments(route.path):
                resource = resource.child(segment, route.path)
            if route.method in resource.routes:
                raise ValueError(f"{route.method} {route.path} is declared twice")
            resource.routes[route.method] = route

    def route(self, method: str, path: str) -> tuple[Function, str, dict[str, str]]:
        """Find who serves a request.

        Fixed segments win over variables; a final slash is ignored; parameters stay percent-encoded, as API
        Gateway hands them over.

        Returns
        -------
        The function, the resource path as declared, the path parameters.

        Raises
        ------
        RouteNotFound, MethodNotRouted
        """
        captured: dict[str, str] = {}
        resource = self._root.find(_segments(path), 0, captured)
        if resource is None:
            raise RouteNotFound(path)
        route = resource.routes.get(method)
        if route is None:
            raise MethodNotRouted(path, resource.routes)
        return route.function, route.path, captured


def _segments(path: str) -> list[str]:
    return path.removesuffix("/").split("/")[1:]


def function_table(*, per_endpoint: bool, task_root: Path = ROOT, timeout_s: float = 60) -> FunctionTable:
    """Read the table from the application in `task_root`.

    Parameters
    ----------
    per_endpoint
        False: one `api` function serves every route. True: each endpoint is a function, as deployed.
    timeout_s
        How long the application may take to import.

    Raises
    ------
    ValueError
        The application does not import, or its declarations contradict each other; the message says how.
    """
    declared = _declarations(task_root, timeout_s)
    api = _endpoint_functions(declared) if per_endpoint else _single_function(declared)
    functions = list({function.name: function for function in api.values()}.values())
    functions += [_event_function(event) for event in declared["events"]]
    routes = [Route(method, path, function) for (method, path), function in api.items()]
    return FunctionTable(functions, routes, declared["binaryTypes"])


def _declarations(task_root: Path, timeout_s: float) -> dict[str, Any]:
    # -P: this file's folder must not come before the application's on the import path.
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    env = {key: value for key, value in os.environ.items() if key != "HOTPLUG_ENDPOINT"}
    env["PYTHONPATH"] = str(task_root)
    done = subprocess.run(
        command, cwd=task_root, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise ValueError(f"the application in {task_root} does not import:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    routes = {(method, path) for method, path in result["routes"]}
    declared = {(endpoint["method"], endpoint["path"]) for endpoint in result["endpoints"]}
    if odd := sorted(routes ^ declared):
        raise ValueError(f"routes and ENDPOINTS differ: {odd}")
    return result


def _single_function(declared: Mapping[str, Any]) -> dict[tuple[str, str], Function]:
    endpoints = declared["endpoints"]
    function = Function(
        name="api",
        handler="app.app",
        kind="api",
        timeout_s=max((endpoint["timeoutS"] for endpoint in endpoints), default=GATEWAY_TIMEOUT_S),
        memory_mb=max((endpoint["memoryMb"] for endpoint in endpoints), default=512),
        rights=tuple(sorted({right for endpoint in endpoints for right in endpoint["rights"]})),
    )
    return {(endpoint["method"], endpoint["path"]): function for endpoint in endpoints}


def _endpoint_functions(declared: Mapping[str, Any]) -> dict[tuple[str, str], Function]:
    return {
        (endpoint["method"], endpoint["path"]): Function(
            name=endpoint["name"].replace(".", "-"),
            handler="app.app",
            kind="api",
            timeout_s=endpoint["timeoutS"],
            memory_mb=endpoint["memoryMb"],
            environment={"HOTPLUG_ENDPOINT": endpoint["name"]},
            rights=tuple(endpoint["rights"]),
        )
        for endpoint in declared["endpoints"]
    }


def _event_function(event: Mapping[str, Any]) -> Function:
    name = event["name"]
    limits = EVENT_LIMITS.get(name, DEFAULT_EVENT_LIMITS)
    environment = {"HOTPLUG_ENDPOINT": "none"}
    if name == "runtime_network":
        environment["HOTPLUG_RUNTIME_NETWORK"] = "1"
    return Function(
        name=name,
        handler=event["handler"],
        kind=event["kind"],
        timeout_s=limits.timeout_s,
        memory_mb=limits.memory_mb,
        environment=environment,
        per_tenant=name in PER_TENANT,
        durable=name in DURABLE,
        rights=EVENT_RIGHTS.get(name, DEFAULT_EVENT_RIGHTS),
        queue=event.get("queue"),
        concurrency=event.get("concurrency"),
        schedule=event.get("schedule"),
    )


def _describe_application() -> dict[str, Any]:
    """Import `app` and `chalicelib.api.endpoint` from the import path and return what they declare."""
    import importlib

    from chalice.app import ScheduledEventConfig, ScheduleExpression, SQSEventConfig

    app = importlib.import_module("app").app
    endpoints = importlib.import_module("chalicelib.api.endpoint").ENDPOINTS
    events: list[dict[str, Any]] = [
        {"kind": "direct", "name": function.name, "handler": function.handler_string}
        for function in app.pure_lambda_functions
    ]
    for source in app.event_sources:
        event: dict[str, Any] = {"name": source.name, "handler": source.handler_string}
        if isinstance(source, SQSEventConfig):
            queue = source.queue or str(source.queue_arn).rpartition(":")[2]
            event |= {"kind": "sqs", "queue": queue, "concurrency": source.maximum_concurrency}
        elif isinstance(source, ScheduledEventConfig):
            expression = source.schedule_expression
            text = expression.to_string() if isinstance(expression, ScheduleExpression) else expression
            event |= {"kind": "schedule", "schedule": text}
        else:
            raise ValueError(
                f"{source.name}: {type(source).__name__} has no counterpart in the function table"
            )
        events.append(event)
    return {
        "routes": [[method, path] for path, methods in app.routes.items() for method in methods],
        "endpoints": [
            {
                "name": endpoint.name,
                "method": endpoint.method,
                "path": endpoint.path,
                "timeoutS": endpoint.timeout_s,
                "memoryMb": endpoint.memory_mb,
                "rights": sorted(endpoint.rights),
            }
            for endpoint in endpoints
        ],
        "events": events,
        "binaryTypes": list(app.api.binary_types),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_describe_application()))
