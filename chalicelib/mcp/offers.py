"""What can be offered as a tool, and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

from chalicelib.core.caller import Caller

Key = tuple[str, ...]
"""Names one thing that can be called, for its provider: (plugin id, action)."""


class _Absent(Enum):
    ABSENT = 0


ABSENT: Final = _Absent.ABSENT
"""No structured result; None is the JSON value null."""


@dataclass(frozen=True)
class Offer:
    """One tool as a client's model sees it.

    Parameters
    ----------
    name
        Unique among the tools of this caller; `[A-Za-z0-9_-]`, at most 64.
    input_schema
        JSON Schema 2020-12 of the arguments; its root has type object.
    output_schema
        JSON Schema of the structured result, None where nothing is promised.
    annotations
        MCP's hints, `openWorldHint` for instance.
    """

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolResult:
    """What a call gave.

    Parameters
    ----------
    content
        MCP content blocks for the model.
    structured
        The same as a JSON value, or `ABSENT`.
    is_error
        The tool failed, and `content` says why in words that a model can act on.
    meta
        For programs, under keys with a prefix.
    """

    content: Sequence[Mapping[str, Any]]
    structured: Any = ABSENT
    is_error: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """The names that a provider offers to one caller, in order, and what each of them stands for."""

    names: tuple[str, ...]
    keys: Mapping[str, Key]


class Provider(Protocol):
    """One kind of things that can be called: plugin actions, tool operations, flows.

    Its names begin with `{kind}_`, so names of two providers never clash.
    """

    @property
    def kind(self) -> str:
        """`plugin`, `tool`, `flow`."""

    def index(self, caller: Caller) -> Index:
        """Return what the caller may call now; from the hot cache, of the state that this request has read."""

    def describe(self, caller: Caller, named: Sequence[tuple[str, Key]]) -> list[Offer]:
        """Return the offers of at most a page of names, in their order, without those that are gone meanwhile."""

    def call(
        self, caller: Caller, key: Key, arguments: dict[str, Any], meta: Mapping[str, Any]
    ) -> ToolResult:
        """Run one. Not inside a unit of work.

        Parameters
        ----------
        arguments
            What the model gives.
        meta
            The request's `_meta`: what the program around the model adds.

        Raises
        ------
        errors.HotplugError
            It was refused, or failed; the pointers of violations begin with `/arguments`.
        """
