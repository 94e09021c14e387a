"""Values against JSON Schemas (Draft 2020-12) that strangers wrote.

`check_schema` decides whether a schema may be stored, `violations` what is wrong with a value. Both are
bounded: patterns match in linear time, references stay in the schema, and every validation has a budget of
steps. What remains: a schema may use its whole budget (about two seconds) on each value, and a value is held
in memory.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from chalicelib.core import strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.json_schema.check import MAX_REPORTED, Schema, check_schema
from chalicelib.core.json_schema.formats import FORMATS
from chalicelib.core.json_schema.patterns import compile_pattern
from chalicelib.core.strict_json import escape

if TYPE_CHECKING:
    from jsonschema import ValidationError

__all__ = ["Schema", "Validator", "check_schema", "compile_schema", "phrase", "violations"]

BUDGET = 300_000
"""Keywords evaluated for one value (patterns and long messages count as several); about 5 µs each."""

# Those that cost more than the rest: a look-up, or a validator of its own for each alternative.
_COSTS = {"$ref": 6, "anyOf": 3, "oneOf": 3}
# These look through their whole argument for each value; so many members take the time of one step.
_LOOKED_THROUGH = frozenset({"dependentRequired", "dependentSchemas", "properties", "required"})
_MEMBERS_PER_STEP = 200

_MAX_COMPILED = 256
_compiled: OrderedDict[bytes, Validator] = OrderedDict()
_compiled_lock = threading.Lock()


class _Exhausted(Exception):
    """The budget is used up; never leaves this module."""


@dataclass
class _Budget:
    left: int

    def spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise _Exhausted


_budget: ContextVar[_Budget] = ContextVar("schema_budget")


@dataclass(frozen=True)
class Validator:
    """A compiled schema, safe to share between threads."""

    _inner: Any

    def violations(self, value: Any, pointer: str = "", *, partial: bool = False) -> list[Violation]:
        """What is wrong with `value`; see `violations`."""
        token = _budget.set(_Budget(BUDGET))
        try:
            found = (
                error for error in self._inner.iter_errors(value) if not (partial and _is_absence(error))
            )
            return [_violation(error, pointer) for error in islice(found, MAX_REPORTED)]
        except _Exhausted:
            # Branches that multiply with the depth of the value: 2^64 of them fit into a small schema.
            return [Violation(pointer, "schema.budget", "takes too long to check against its schema")]
        except RecursionError:
            # The value's depth times the schema's is more than the stack holds.
            return [Violation(pointer, "schema.depth", "is nested too deep to be checked against its schema")]
        finally:
            _budget.reset(token)


def compile_schema(schema: Schema) -> Validator:
    """The validator of a schema that `check_schema` found good (or that is our own).

    The 256 used last are kept. Nothing is ever fetched: a reference out of the schema raises when it is met.
    """
    digest = hashlib.sha256(strict_json.canonical(schema)).digest()
    with _compiled_lock:
        if digest in _compiled:
            _compiled.move_to_end(digest)
            return _compiled[digest]
    validator = Validator(_build(schema))
    with _compiled_lock:
        _compiled[digest] = validator
        if len(_compiled) > _MAX_COMPILED:
            _compiled.popitem(last=False)
    return validator


def violations(schema: Schema, value: Any, pointer: str = "", *, partial: bool = False) -> list[Violation]:
    """Everything that is wrong with `value`, at most 100.

    Parameters
    ----------
    schema
        One that `check_schema` found good.
    value
        As parsed by `strict_json`.
    pointer
        RFC 6901 pointer of the value in its document.
    partial
        The value will be merged over others: what is absent is no violation, at any depth.

    Returns
    -------
    list
        With rule `schema.<keyword>`, and messages that never repeat the value (it may be a secret).
    """
    return compile_schema(schema).violations(value, pointer, partial=partial)


class _Enum(list[Any]):
    """The values of an `enum`, and their stand-ins to look one up in."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__(values)
        token = _budget.set(_Budget(BUDGET))
        try:
            self.frozen = {_frozen(value) for value in values}
        finally:
            _budget.reset(token)


def _prepared(value: Any) -> Any:
    """A copy of a schema whose `enum`s are `_Enum`s. In data (`default`) it makes no difference."""
    if isinstance(value, dict):
        return {
            name: _Enum(item) if name == "enum" and isinstance(item, list) else _prepared(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_prepared(item) for item in value]
    return value


def _build(schema: Schema) -> Any:
    from referencing import Registry

    if isinstance(schema, dict):
        # The library would change to its own class, without our checks, where it meets `$schema`.
        schema = {name: value for name, value in schema.items() if name != "$schema"}
    validator_class, format_checker = _validator_class()
    # An explicit registry: the default one fetches remote references.
    return validator_class(_prepared(schema), registry=Registry(), format_checker=format_checker)


@functools.cache
def _validator_class() -> tuple[Any, Any]:
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.validators import extend

    formats = FormatChecker(formats=())
    for name, check in FORMATS.items():
        formats.checks(name)(functools.partial(_check_format, check))
    ours = {
        "additionalProperties": _additional_properties,
        "const": _const,
        "enum": _enum,
        "multipleOf": _multiple_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "propertyNames": _property_names,
        "unevaluatedItems": _unevaluated(Draft202012Validator.VALIDATORS["unevaluatedItems"]),
        "unevaluatedProperties": _unevaluated(Draft202012Validator.VALIDATORS["unevaluatedProperties"]),
        "uniqueItems": _unique_items,
    }
    checks = {**Draft202012Validator.VALIDATORS, **ours}
    counted = {name: _counted(name, check) for name, check in checks.items()}
    return extend(Draft202012Validator, counted), formats  # type: ignore[no-untyped-call]


_Check = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


def _counted(name: str, check: _Check) -> _Check:
    """`check`, paid from the budget. Its messages repeat the value, which may be large or secret: they are
    cut."""

    def counted(validator: Any, argument: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        budget = _budget.get()
        members = len(argument) if name in _LOOKED_THROUGH else 0
        budget.spend(_COSTS.get(name, 1) + members // _MEMBERS_PER_STEP)
        for error in check(validator, argument, instance, schema) or ():
            budget.spend(len(error.message) // 100)
            error.message = error.message[:200]
            yield error

    return counted


def _check_format(check: Callable[[str], bool], value: object) -> bool:
    return not isinstance(value, str) or check(value)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not compile_pattern(pattern).search(value, _budget.get().spend):
        yield _error("")


def _pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    for pattern, subschema in patterns.items():
        compiled = compile_pattern(pattern)
        for name, item in value.items():
            if compiled.search(name, _budget.get().spend):
                yield from validator.descend(item, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, allowed: Any, value: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    patterns = [compile_pattern(pattern) for pattern in schema.get("patternProperties", {})]
    for name, item in value.items():
        if name in known or any(pattern.search(name, _budget.get().spend) for pattern in patterns):
            continue
        if allowed is False:
            yield _error("", path=(name,))
        else:
            yield from validator.descend(item, allowed, path=name)


def _property_names(validator: Any, subschema: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    # The library reports the object; here the pointer says which of its members.
    if isinstance(value, dict):
        for name in value:
            yield from validator.descend(name, subschema, path=name)


def _enum(validator: Any, allowed: _Enum, value: Any, schema: Any) -> Iterator[ValidationError]:
    # The library compares the value with one after the other: 4,000 lists, for each item of a list.
    if _frozen(value) not in allowed.frozen:
        yield _error("")


def _const(validator: Any, expected: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if _frozen(value) != _frozen(expected):
        yield _error("")


def _unevaluated(check: _Check) -> _Check:
    """`check`, whose time grows with the square of what the value holds, for values that hold few."""

    def counted(validator: Any, argument: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(value, dict | list):
            _budget.get().spend(len(value) // 5 + len(value) ** 2 // 1_000)
        yield from check(validator, argument, value, schema) or ()

    return counted


def _unique_items(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    # The library compares every item with every other if they cannot be sorted.
    # `_frozen` of the whole pays for its length.
    if wanted and isinstance(value, list) and len(set(_frozen(value)[1])) < len(value):
        yield _error("")


def _multiple_of(validator: Any, divisor: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    # By the decimal text: in binary 19.99 is no multiple of 0.01.
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(divisor)):
        yield _error("")


def _frozen(value: Any) -> Any:
    """A hashable stand-in that is equal where JSON Schema calls values equal: 1 and 1.0, not 1 and true. It is paid
    for by the size of the value, which may be large and looked at a thousand times."""
    if isinstance(value, dict | list):
        _budget.get().spend(1 + len(value) // 10)
    if isinstance(value, dict):
        return "object", frozenset((name, _frozen(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(_frozen(item) for item in value)
    return isinstance(value, bool), value


def _error(message: str, path: tuple[str, ...] = ()) -> ValidationError:
    from jsonschema import ValidationError

    return ValidationError(message, path=path)


def _is_absence(error: ValidationError) -> bool:
    """Whether filling in what is absent could mend this error."""
    if error.validator in ("required", "dependentRequired", "minProperties"):
        return True
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        return False
    branches: dict[Any, bool] = {}
    for inner in error.context:
        branch = inner.schema_path[0]
        branches[branch] = branches.get(branch, True) and _is_absence(inner)
    return any(branches.values())


_PHRASES = {
    "type": "is not of type {}",
    "enum": "is none of {}",
    "const": "is not {}",
    "pattern": "does not match {}",
    "format": "is no {}",
    "minimum": "is less than {}",
    "maximum": "is more than {}",
    "exclusiveMinimum": "is not more than {}",
    "exclusiveMaximum": "is not less than {}",
    "multipleOf": "is no multiple of {}",
    "minLength": "has fewer than {} characters",
    "maxLength": "has more than {} characters",
    "minItems": "has fewer than {} items",
    "maxItems": "has more than {} items",
    "minProperties": "has fewer than {} members",
    "maxProperties": "has more than {} members",
}
_SENTENCES = {
    "additionalProperties": "is not allowed here",
    "unevaluatedProperties": "has members that are not allowed",
    "unevaluatedItems": "has items that are not allowed",
    "uniqueItems": "has equal items",
    "anyOf": "matches none of the alternatives",
    "oneOf": "does not match exactly one of the alternatives",
    "not": "matches what it must not match",
    "contains": "does not contain what it must",
}


def phrase(keyword: str, argument: Any) -> str:
    """Return what is told of a value that breaks a keyword with an argument, such as `minimum` 1."""
    text = strict_json.canonical(argument).decode()
    return _PHRASES[keyword].format(text if len(text) <= 200 else text[:200] + "…")


def _violation(error: ValidationError, pointer: str) -> Violation:
    place = pointer + "".join(f"/{escape(step)}" for step in error.absolute_path)
    keyword = error.validator
    if not isinstance(keyword, str):  # the schema `false` has no keyword
        return Violation(place, "schema.false", "is not allowed here")
    if keyword in _PHRASES:
        message = phrase(keyword, error.validator_value)
    elif keyword in ("required", "dependentRequired"):
        message = error.message  # names members of the schema, nothing of the value
    else:
        message = _SENTENCES.get(keyword, f"breaks {keyword}")
    return Violation(place, f"schema.{keyword}", message)
