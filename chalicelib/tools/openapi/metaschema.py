"""An OpenAPI document against the schema of its version: the verdict from one validator, the reasons from another.

The official schemas, as `openapi-spec-validator` ships them, are used without its own checks: those fetch remote
references, follow recursive schemas without end, look up every schema in a list of all others and match strangers'
patterns by backtracking. `jsonschema-rs` says in a fraction of a second whether 5 MB are valid, but computes all errors
before it shows the first (5 GB of them for a document made for it), so `jsonschema`, which is lazy and thirty times
slower, names the reasons, only for those parts that are not valid, and only as many as are reported.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chalicelib.core.errors import Violation
from chalicelib.core.json_schema.check import count_objects
from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.structure import members

if TYPE_CHECKING:
    from jsonschema import ValidationError

MAX_REPORTED = 100
MAX_MEMBERS = 5_000
"""Members of an object whose fields are fixed; looking for the unknown among them takes the square of their number."""

MAX_EXPLAINED = 20_000
"""Objects of the parts that are not valid whose errors are looked for; about 0.2 ms each."""

_PACKAGE = "openapi_spec_validator"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MAX_MESSAGE = 300


def check_structure(document: dict[str, Any]) -> list[Violation]:
    """What of the document is not as the schema of its version (3.0 or 3.1) demands, schemas in it included.

    Returns
    -------
    list
        At most 100, with rule `openapi.structure` and the pointer of the innermost cause; of alternatives (`anyOf`,
        `oneOf`) the causes of each.
    """
    version = str(document["openapi"])[:3]
    verdict = _verdict(version)
    if verdict.is_valid(document):
        return []
    found: dict[Violation, None] = {}  # an ordered set
    explained = False
    budget = MAX_EXPLAINED
    for pointer, part in _parts(document):
        if len(found) >= MAX_REPORTED:
            break
        if verdict.is_valid(part):
            continue
        budget -= count_objects(part)
        if budget < 0:
            message = "is not as the specification has it; it is too large to say what is wrong"
            found[Violation(pointer, "openapi.structure", message)] = None
            continue
        for error in islice(_causes(version, part), MAX_REPORTED):
            explained = True
            if not _is_tolerable(error):
                found[_violation(error)] = None
    if not found and not explained:
        # Should the two validators ever disagree, the document is still refused.
        return [Violation("", "openapi.structure", "is not an OpenAPI document")]
    return list(found)[:MAX_REPORTED]


def _parts(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document in pieces, each a document: without paths and components, then with one of these alone; and the
    pointer of what it is about."""
    skeleton = dict(document)
    for name in ("paths", "webhooks"):
        if isinstance(document.get(name), dict):
            skeleton[name] = {}
    sections = [
        name
        for name, section in members(document.get("components")).items()
        if isinstance(section, dict) and not name.startswith("x-")
    ]
    if sections:
        skeleton["components"] = {**document["components"], **{name: {} for name in sections}}
    yield "", skeleton
    base = {"openapi": document["openapi"], "info": {"title": "", "version": ""}, "paths": {}}
    for name in ("paths", "webhooks"):
        for key, item in members(document.get(name)).items():
            yield f"/{name}/{escape(key)}", {**base, name: {key: item}}
    for name in sections:
        for key, item in document["components"][name].items():
            yield f"/components/{name}/{escape(key)}", {**base, "components": {name: {key: item}}}


def _causes(version: str, part: dict[str, Any]) -> Iterator[ValidationError]:
    for error in _explainer(version).iter_errors(part):
        yield from _leaves(error)


def _leaves(error: ValidationError) -> Iterator[ValidationError]:
    if error.context:
        for inner in error.context:
            yield from _leaves(inner)
    else:
        yield error


def _violation(error: ValidationError) -> Violation:
    pointer = "".join(f"/{escape(step)}" for step in error.absolute_path)
    return Violation(pointer, "openapi.structure", error.message[:_MAX_MESSAGE])


def _is_tolerable(error: ValidationError) -> bool:
    """Whether it is one of the slips in schemas that large public documents have and whose meaning is plain, so that
    `dialect` converts or drops them: names required twice, alternatives of none, the other version's way to write an
    exclusive bound or null, the recursion of an older draft."""
    path = error.absolute_path
    keyword = path[-1] if path else ""
    if error.validator == "uniqueItems":
        return keyword in ("enum", "required", "type")
    if error.validator == "minItems":
        return keyword in ("allOf", "anyOf", "oneOf", "enum", "required")
    if error.validator == "type":
        return keyword == "$recursiveAnchor" or (
            keyword in ("exclusiveMaximum", "exclusiveMinimum") and isinstance(error.instance, bool)
        )
    return error.validator == "enum" and keyword == "type" and error.instance == "null"


def _schema(version: str) -> dict[str, Any]:
    """The official schema of a version; for 3.1 with that of its schema objects, as its `schema-base` has it."""
    # Found without being imported, which takes 0.4 s.
    package = find_spec(_PACKAGE)
    folder = Path(next(iter((package.submodule_search_locations if package else None) or [""])))
    text = (folder / "resources" / "schemas" / f"v{version}" / "schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    if version == "3.1":
        schema["$defs"]["schema"] = {"$dynamicAnchor": "meta", "$ref": _DIALECT}
    return schema


@functools.cache
def _verdict(version: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(_schema(version), validate_formats=False, offline=True)


@functools.cache
def _explainer(version: str) -> Any:
    from jsonschema import Draft4Validator, Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry

    base = Draft202012Validator if version == "3.1" else Draft4Validator
    checks = {"oneOf": functools.partial(_one_of, base.VALIDATORS["oneOf"])}
    if version == "3.1":
        checks["unevaluatedProperties"] = functools.partial(
            _unevaluated, base.VALIDATORS["unevaluatedProperties"]
        )
    # Of an explicit registry the metaschemas are a part; the default one fetches what it does not have.
    return extend(base, checks)(_schema(version), registry=Registry())  # type: ignore[no-untyped-call]


def _one_of(check: Any, validator: Any, options: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Of "an object or a reference to one", the branch that the value means. Both would be gone through at each level
    of a nested schema, and an error of one would hide in a repetition of the whole value."""
    reference = [option for option in options if str(option.get("$ref", "")).endswith("/Reference")]
    if reference and isinstance(value, dict):
        others = [o for o in options if o not in reference and o.get("type") != "boolean"]
        wanted = reference if "$ref" in value else others
        if len(wanted) == 1:
            yield from validator.descend(value, wanted[0])
            return
    yield from check(validator, options, value, schema)


def _unevaluated(
    check: Any, validator: Any, wanted: Any, value: Any, schema: Any
) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(value, dict) and len(value) > MAX_MEMBERS:
        yield ValidationError(f"has more than {MAX_MEMBERS} members")
    else:
        yield from check(validator, wanted, value, schema)
