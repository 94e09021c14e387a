"""Put on the PYTHONPATH of functions: notes every AWS call that they make, and every URL that they sign.

A line of JSON for each, appended to the file that HOTPLUG_RECORD names. Where one function serves all endpoints, the
line says which of them was asked, as API Gateway names it; a thread knows it by the context that it was started in.
botocore is imported only by who calls.

The jobs' clock can be moved here, too: what they do after weeks is done in a test that takes a minute.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from contextvars import ContextVar
from typing import Any

NAMES = (
    "Bucket",
    "Key",
    "VersionId",
    "CopySource",
    "FunctionName",
    "QueueUrl",
    "KeyId",
    "EncryptionContext",
    "SecretId",
    "modelId",
)
_route: ContextVar[tuple[str, str] | None] = ContextVar("recorded_route", default=None)


def _note(service: str, operation: str, parameters: dict[str, Any]) -> None:
    line = {
        "function": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
        "route": _route.get(),
        "service": service,
        "operation": operation,
        **{name: parameters[name] for name in NAMES if name in parameters},
    }
    with open(os.environ["HOTPLUG_RECORD"], "a") as file:
        file.write(json.dumps(line) + "\n")


def _watch_calls(module: Any) -> None:
    call = module.BaseClient._make_api_call

    def noted(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        _note(self.meta.service_model.service_name, operation, parameters)
        return call(self, operation, parameters)

    module.BaseClient._make_api_call = noted


def _watch_signatures(module: Any) -> None:
    sign_url, sign_form = module.generate_presigned_url, module.generate_presigned_post

    def noted_url(self: Any, ClientMethod: str, Params: Any = None, **options: Any) -> Any:
        _note("s3", self.meta.method_to_api_mapping[ClientMethod], Params or {})
        return sign_url(self, ClientMethod, Params=Params, **options)

    def noted_form(self: Any, Bucket: str, Key: str, **options: Any) -> Any:
        _note("s3", "PutObject", {"Bucket": Bucket, "Key": Key})
        return sign_form(self, Bucket, Key, **options)

    module.generate_presigned_url, module.generate_presigned_post = noted_url, noted_form


def _move_clock(module: Any) -> None:
    """Let the clock of the scheduled jobs be ahead by the seconds that stand in HOTPLUG_RECORD_CLOCK."""
    from datetime import timedelta

    true = module.utc_now

    def moved() -> Any:
        with open(os.environ["HOTPLUG_RECORD_CLOCK"]) as file:
            return true() + timedelta(seconds=float(file.read()))

    if "HOTPLUG_RECORD_CLOCK" in os.environ:
        module.utc_now = moved


def _watch_routes(module: Any) -> None:
    serve = module.Chalice.__call__

    def noted(self: Any, event: Any, context: Any) -> Any:
        token = _route.set((event["httpMethod"], event["requestContext"]["resourcePath"]))
        try:
            return serve(self, event, context)
        finally:
            _route.reset(token)

    module.Chalice.__call__ = noted


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes a module once it has been imported."""

    def __init__(self) -> None:
        self.changes = {
            "botocore.client": _watch_calls,
            "botocore.signers": _watch_signatures,
            "chalice.app": _watch_routes,
            "chalicelib.core.jobs": _move_clock,
        }

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        change = self.changes.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: Any) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


if os.environ.get("HOTPLUG_RECORD"):
    sys.meta_path.insert(0, _AfterImport())
