"""The environment variables that functions get from the stack, beside those that Lambda itself sets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.functions import Function
from infra.local.storage import Storage


@dataclass(frozen=True)
class Shared:
    """What the functions of one stack share.

    Parameters
    ----------
    extra
        Further variables of trusted functions; its HOTPLUG_PRIVATE_ENDPOINTS reaches the runtime functions too.
    runtime_extra
        Further variables of the runtime functions.
    """

    database_url: str
    storage: Storage
    invoke_url: str
    key_file: Path
    install_queue: str | None
    extra: Mapping[str, str]
    runtime_extra: Mapping[str, str]


def function_variables(function: Function, folder: Path, shared: Shared) -> dict[str, str]:
    """Return the variables of one environment of a function; `folder` is that environment's own."""
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "HOTPLUG_LOCAL_CACHE_DIR": str(folder / "cache"),
    }
    # Functions that run what tenants uploaded hold nothing that is worth stealing.
    variables |= shared.runtime_extra if function.per_tenant else _trusted(shared)
    variables |= function.environment
    # The stack's own S3 is not among them: packages are fetched past the client that plugins use, and no grant should
    # lead there.
    private = shared.extra.get("HOTPLUG_PRIVATE_ENDPOINTS")
    return variables if private is None else variables | {"HOTPLUG_PRIVATE_ENDPOINTS": private}


def _trusted(shared: Shared) -> dict[str, str]:
    variables = {
        **shared.storage.environment(),
        "AWS_ENDPOINT_URL_LAMBDA": shared.invoke_url,
        "HOTPLUG_DATABASE_URL": shared.database_url,
        "HOTPLUG_BUCKET": shared.storage.bucket,
        "HOTPLUG_KEY_FILE": str(shared.key_file),
        "HOTPLUG_RUNTIME_FUNCTION": "runtime",
        "HOTPLUG_RUNTIME_NETWORK_FUNCTION": "runtime_network",
    }
    if shared.install_queue is not None:
        variables["HOTPLUG_INSTALL_QUEUE_URL"] = shared.storage.queue_url(shared.install_queue)
    return variables | dict(shared.extra)
