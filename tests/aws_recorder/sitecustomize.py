"""Put on the PYTHONPATH of functions: notes every AWS call that they make, and every URL that they sign.

A line of JSON for each, appended to the file that HOTPLUG_RECORD names. botocore is imported only by who calls.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from typing import Any

NAMES = (
    "Bucket",
    "Key",
    "VersionId",
    "CopySource",
    "FunctionName",
    "QueueUrl",
    "KeyId",
    "SecretId",
    "ModelId",
)


def _note(service: str, operation: str, parameters: dict[str, Any]) -> None:
    line = {
        "function": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
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


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes a module once it has been imported."""

    def __init__(self) -> None:
        self.changes = {"botocore.client": _watch_calls, "botocore.signers": _watch_signatures}

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
