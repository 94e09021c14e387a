"""YAML as JSON: the events of the parser, put together within limits.

The loaders of the library build the whole document first. Nine lines whose aliases repeat each other nine times are a
thousand million values ("billion laughs"), a list may contain itself, and YAML 1.1 makes `no` a boolean and `12:30` the
number 750. Here every event is counted as it comes, an alias with all that it repeats, and scalars follow YAML 1.2.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.errors import Violation
from chalicelib.core.strict_json import MAX_INTEGER, MAX_NUMBER_LENGTH, escape
from chalicelib.tools.openapi.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_REPORTED, too_large

_STANDARD = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset({f"{_STANDARD}{name}" for name in ("int", "float", "bool", "null")})

# The core schema, 10.3.2 of YAML 1.2.2.
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_STARTS = frozenset("+-.0123456789")


@dataclass(slots=True)
class _Node:
    """A value and what it weighs with all that aliases repeat in it."""

    value: Any
    count: int = 1
    size: int = 0
    height: int = 1


@dataclass(slots=True)
class _Open:
    """A collection that has begun; `key` is the name of the member that comes next, None before a name."""

    node: _Node
    anchor: str | None
    key: str | None = None


@dataclass(slots=True)
class _Refused(Exception):
    """Reading on makes no sense."""

    violation: Violation


@dataclass(slots=True)
class _Reader:
    found: list[Violation] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, _Node | None] = field(default_factory=dict)
    names: dict[str, str] = field(
        default_factory=dict
    )  # each kept once: a document repeats a few thousand times
    root: _Node | None = None
    count: int = 0
    size: int = 0

    def pointer(self) -> str:
        steps = []
        for one in self.open:
            if isinstance(one.node.value, list):
                steps.append(str(len(one.node.value)))
            elif one.key is not None:
                steps.append(escape(one.key))
        return "".join(f"/{step}" for step in steps)

    def violate(self, rule: str, message: str, mark: Any) -> None:
        self.found.append(_violation(self.pointer(), rule, message, mark))
        if len(self.found) >= MAX_REPORTED:
            raise _Refused(self.found.pop())

    def weigh(self, count: int, size: int, height: int, mark: Any) -> None:
        self.count += count
        self.size += size
        if self.count > MAX_NODES or self.size > MAX_BYTES:
            raise _Refused(too_large(self.pointer(), self.count))
        if len(self.open) + height > MAX_DEPTH + 1:
            message = f"is nested deeper than {MAX_DEPTH} levels"
            raise _Refused(_violation(self.pointer(), "document.depth", message, mark))

    def begin(self, value: Any, event: Any) -> None:
        if event.tag not in (None, "!", f"{_STANDARD}map", f"{_STANDARD}seq"):
            self.violate("document.tag", f"has the tag {event.tag[:100]}", event.start_mark)
        if self.awaits_name():
            raise _Refused(
                _violation(
                    self.pointer(), "document.key", "has a member whose name is no text", event.start_mark
                )
            )
        self.weigh(1, 0, 2, event.start_mark)
        if event.anchor is not None:
            self.anchors[event.anchor] = None  # not to be named before it ends
        self.open.append(_Open(_Node(value, height=2), event.anchor))

    def end(self) -> None:
        closed = self.open.pop()
        if closed.anchor is not None:
            self.anchors[closed.anchor] = closed.node
        self.place(closed.node)

    def scalar(self, event: Any) -> None:
        text: str = event.value
        self.weigh(1, len(text), 1, event.start_mark)
        if self.awaits_name():
            if event.anchor is not None:
                self.anchors[event.anchor] = _Node(text, 1, len(text))
            self.name(text, event.start_mark)
            return
        node = _Node(self.resolve(event), 1, len(text))
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self.place(node)

    def alias(self, event: Any) -> None:
        node = self.anchors.get(event.anchor)
        if node is None:
            known = event.anchor in self.anchors
            message = "repeats what it is part of" if known else "repeats an anchor that is not there"
            raise _Refused(_violation(self.pointer(), "document.alias", message, event.start_mark))
        self.weigh(node.count, node.size, node.height, event.start_mark)
        if not self.awaits_name():
            self.place(node)
        elif isinstance(node.value, str):
            self.name(node.value, event.start_mark)
        else:
            message = "has a member whose name is no text"
            raise _Refused(_violation(self.pointer(), "document.key", message, event.start_mark))

    def awaits_name(self) -> bool:
        return bool(self.open) and self.open[-1].key is None and isinstance(self.open[-1].node.value, dict)

    def name(self, text: str, mark: Any) -> None:
        parent = self.open[-1]
        parent.key = self.names.setdefault(text, text)
        parent.node.size += len(text)
        if text == "<<":
            # Merging is YAML 1.1; two readers of one document would see different members.
            self.violate("document.key", "is a merge key, which YAML 1.2 does not have", mark)
        elif text in parent.node.value:
            self.violate("document.duplicate_key", "is given twice", mark)

    def place(self, node: _Node) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        parent.node.count += node.count
        parent.node.size += node.size
        parent.node.height = max(parent.node.height, node.height + 1)
        if isinstance(parent.node.value, list):
            parent.node.value.append(node.value)
        else:
            parent.node.value[parent.key] = node.value
            parent.key = None

    def resolve(self, event: Any) -> Any:
        tag, text = event.tag, event.value
        if tag is None:
            return self.plain(text, event.start_mark) if event.implicit[0] else text
        if tag in ("!", f"{_STANDARD}str"):
            return text
        if tag not in _PLAIN_TAGS:
            self.violate("document.tag", f"has the tag {tag[:100]}", event.start_mark)
            return None
        return self.plain(text, event.start_mark)

    def plain(self, text: str, mark: Any) -> Any:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in _NUMBER_STARTS:
            return text
        if _NOT_FINITE.fullmatch(text):
            self.violate("document.number", "is not a finite number", mark)
            return None
        if _INTEGER.fullmatch(text):
            return self.number(_integer, text, mark)
        if _REAL.fullmatch(text):
            return self.number(float, text, mark)
        return text

    def number(self, read: Any, text: str, mark: Any) -> Any:
        if len(text) > MAX_NUMBER_LENGTH:
            self.violate("document.number", f"has more than {MAX_NUMBER_LENGTH} characters", mark)
            return None
        value = read(text)
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            # 2^64 as JavaScript rounds it stands in public documents, as a `maximum`.
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            self.violate("document.number", "is beyond the range of a double", mark)
        return value


def read(text: str) -> tuple[Any, list[Violation]]:
    """The value of a YAML text, or every reason why it has none; the rules are those of `document.parse_document`.

    Parameters
    ----------
    text
        Its size is already bounded.
    """
    import yaml

    # The events of libyaml where the wheel has it: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader()
    try:
        documents = 0
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.ScalarEvent):
                reader.scalar(event)
            elif isinstance(event, yaml.MappingStartEvent):
                reader.begin({}, event)
            elif isinstance(event, yaml.SequenceStartEvent):
                reader.begin([], event)
            elif isinstance(event, yaml.CollectionEndEvent):
                reader.end()
            elif isinstance(event, yaml.AliasEvent):
                reader.alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    reader.violate("document.syntax", "holds more than one document", event.start_mark)
                    break
    except yaml.MarkedYAMLError as error:
        message = error.problem or "is not YAML"
        syntax = _violation(reader.pointer(), "document.syntax", message[:300], error.problem_mark)
        return None, [*reader.found, syntax]
    except yaml.YAMLError as error:  # a character that YAML does not allow
        return None, [*reader.found, Violation("", "document.syntax", str(error).splitlines()[0][:300])]
    except _Refused as error:
        return None, [*reader.found, error.violation]
    return (reader.root.value if reader.root else None), reader.found


def _integer(text: str) -> int:
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    return int(text)


def _violation(pointer: str, rule: str, message: str, mark: Any) -> Violation:
    where = f" (line {mark.line + 1} column {mark.column + 1})" if mark is not None else ""
    return Violation(pointer, rule, message + where)
