"""Calls of single nodes, as the engine makes them: what they are given, and how they fail."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import select

from chalicelib.apps.models import App
from chalicelib.core import process
from chalicelib.core.caller import Caller
from chalicelib.flows.dsl.model import Input, Node, Output, RetryConfig
from chalicelib.flows.engine.call import Call, Execute, Scope
from chalicelib.flows.engine.errors import NodeError

AUTHOR = Caller(11, "owner", 12, "caller", "request-1")
USER = Caller(22, "other", 23, "caller", "request-1")
TYPES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array",
}  # fmt: skip


def caller_of(alias_id: str, role: str = "caller") -> Caller:
    """An app of the running deployment, as a caller."""
    with process.database().reads() as session:
        app_id = session.scalars(select(App.id).where(App.alias_id == alias_id)).one()
    return Caller(app_id, alias_id, 1, role, "request-1")


def outputs(*names: str, **schemas: Any) -> tuple[Output, ...]:
    """Outputs: texts, or of a type or schema; a name that ends in `_` is required, and without it."""
    declared = {**dict.fromkeys(names, "string"), **schemas}
    return tuple(
        Output("", name.rstrip("_"), {"type": kind} if isinstance(kind, str) else kind, name.endswith("_"))
        for name, kind in declared.items()
    )


def call(
    kind: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    declared: tuple[Output, ...] = (),
    *,
    seconds: float = 20.0,
    attempt: int = 1,
    key: str = "",
    author: Caller = AUTHOR,
    user: Caller = USER,
    **scope: Any,
) -> Call:
    """One attempt of the node `{kind}::1`; an input's declared type is that of its value."""
    given = inputs or {}
    described = tuple(Input("", name, {"type": TYPES[type(value)]}, None) for name, value in given.items())
    retry = RetryConfig(timeout_s=seconds)
    node = Node(f"{kind}::1", kind, "", described, declared, params, retry)
    held = Scope(**{"run_id": "run-1", "caller": user, "author": author, "flow_id": 7, **scope})
    return Call(held, node, key or node.id, given, attempt, time.monotonic() + seconds)


def failing(execute: Execute, one: Call) -> NodeError:
    """The error that a node ends with."""
    with pytest.raises(NodeError) as caught:
        execute(one)
    return caught.value
