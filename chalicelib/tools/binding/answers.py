"""From the bytes that a server answered to a value that was checked against the document."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chalicelib.core import strict_json
from chalicelib.core.errors import Invalid, UpstreamFailed, Violation
from chalicelib.core.settings import ONE_MIB
from chalicelib.tools.binding import media_types
from chalicelib.tools.binding.binary import described
from chalicelib.tools.binding.findings import Findings
from chalicelib.tools.binding.media_types import MediaType
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.repair import Repairs, pruned, repaired
from chalicelib.tools.openapi.operation import Content, Operation, ResponseSpec

MAX_ANSWER_BYTES = 5 * ONE_MIB
_BODILESS = frozenset({204, 205, 304})
_OCTETS = MediaType("application/octet-stream")


@dataclass(frozen=True)
class CheckedAnswer:
    """An answer as it may be passed on.

    Parameters
    ----------
    body
        JSON as its value, a text as a string (or as the scalar that its schema declares and it spells), octets as
        `{"base64": …, "contentType": …}`, None where there is none.
    media_type
        Of the answer, without parameters; None where it has no body.
    violations
        What differs from the document, at most 100. `answer.status` and `answer.media_type` say that the document does
        not describe such an answer, and that it was therefore not checked.
    repaired, pruned
        Pointers of nulls that were replaced, and of hidden members that were taken out; the first 100 of each.
    """

    status: int
    body: Any
    media_type: str | None
    violations: tuple[Violation, ...] = ()
    repaired: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()


def read_answer(
    plan: CallPlan,
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    strict: bool = True,
    repair_nulls: bool = False,
) -> CheckedAnswer:
    """Read an answer by what the operation describes for that status (OpenAPI 3.1, 4.8.16).

    The exact status counts before a range (`2XX`), a range before `default`. JSON must have one meaning
    (`core.strict_json`: no duplicate name, no NaN, 64 levels); what is not, is given as text unless the document hides
    members of it. Members that the document hides are taken out whatever else is found.

    Parameters
    ----------
    strict
        Refuse a successful answer (2xx) that differs from the document, instead of reporting it. An answer of another
        status is never refused: it is an error already, and the caller needs to see which.
    repair_nulls
        Replace a null where a simple type is declared by the type's empty value, before it is checked.

    Raises
    ------
    errors.UpstreamFailed
        `tool.invalid_answer` with all violations, at most 100, at `/body/…`.
    errors.Invalid
        `tool.schema_too_complex`.
    """
    reading = _Reading(plan, Findings(), Repairs(), Repairs(), repair_nulls)
    found = reading.found
    value, media_type = None, None
    if len(body) > MAX_ANSWER_BYTES:
        found.add("/body", "answer.too_large", f"is larger than {MAX_ANSWER_BYTES} bytes")
    elif plan.operation.method != "HEAD" and status not in _BODILESS:
        value, media_type = reading.read(status, _first(headers, "content-type"), body)
    if strict and found and 200 <= status < 300:
        detail = "The tool's answer is not what its document says."
        raise UpstreamFailed(detail, code="tool.invalid_answer", errors=found.as_tuple())
    return CheckedAnswer(
        status,
        value,
        media_type,
        found.as_tuple(),
        tuple(reading.repairs.pointers),
        tuple(reading.prunings.pointers),
    )


def response_spec(operation: Operation, status: int) -> ResponseSpec | None:
    """Return what the document says of a status: itself, its range, or `default`."""
    described_as = {response.status.upper(): response for response in operation.responses}
    for name in (str(status), f"{status // 100}XX", "DEFAULT"):
        if name in described_as:
            return described_as[name]
    return None


@dataclass(frozen=True)
class _Reading:
    """One answer being read; what is found collects in it."""

    plan: CallPlan
    found: Findings
    repairs: Repairs
    prunings: Repairs
    repair_nulls: bool

    def read(self, status: int, header: str | None, body: bytes) -> tuple[Any, str | None]:
        spec = response_spec(self.plan.operation, status)
        if spec is None:
            self.found.add("/status", "answer.status", f"is {status}, which the document does not describe")
        contents = spec.contents if spec is not None else ()
        if not body:
            if contents and not any(media_types.is_text(content.media_type) for content in contents):
                self.found.add("/body", "answer.empty", "is empty, although the document describes a body")
            return None, None
        media_type = self._media_type(header, contents)
        content = media_types.matching(contents, media_type.essence)
        if contents and content is None:
            self.found.add(
                "/body", "answer.media_type", "has a media type that the document does not describe"
            )
        if media_types.is_json(media_type.essence):
            return self._json(body, media_type, content), media_type.essence
        if media_types.is_text(media_type.essence):
            return self._text(body, media_type, content), media_type.essence
        return described(body, media_type.essence), media_type.essence

    def _media_type(self, header: str | None, contents: tuple[Content, ...]) -> MediaType:
        if header is None:
            # RFC 9110, 8.3: the recipient may assume octets, or look. The document is a better guess than looking.
            only = contents[0].media_type if len(contents) == 1 else ""
            return _OCTETS if media_types.is_range(only) or not only else MediaType(only)
        return media_types.parse_media_type(header) or _OCTETS

    def _json(self, body: bytes, media_type: MediaType, content: Content | None) -> Any:
        text = self._decoded(body, media_type)
        try:
            value = strict_json.parse(text.encode("utf-8"), max_bytes=2 * MAX_ANSWER_BYTES)
        except Invalid as error:
            self.found.extend(Violation(f"/body{one.pointer}", one.rule, one.message) for one in error.errors)
            hides = content is not None and self.plan.says(content.schema, "x-display")
            return None if hides else text
        return value if content is None else self._checked(value, content)

    def _checked(self, value: Any, content: Content) -> Any:
        schema = content.schema
        if self.repair_nulls:
            value = repaired(value, self.plan.certain(schema), self.repairs)
        self.found.extend(self.plan.answer_validator(schema).violations(value, "/body"))
        if self.plan.says(schema, "x-display"):
            value = pruned(value, self.plan.possible(schema), self.prunings)
        return value

    def _text(self, body: bytes, media_type: MediaType, content: Content | None) -> Any:
        """A text is judged where its schema speaks of texts, or of a scalar that the text spells (appendix B); XML that
        stands for an object is not."""
        text = self._decoded(body, media_type)
        types = self.plan.certain(content.schema).types if content is not None else None
        if content is None or types is None or "string" in types:
            judged: Any = text
        elif types and not {"object", "array"} & set(types):
            judged = _spelt(text)
        else:
            return text
        if content is not None:
            self.found.extend(self.plan.answer_validator(content.schema).violations(judged, "/body"))
        return judged

    def _decoded(self, body: bytes, media_type: MediaType) -> str:
        if media_type.unknown_charset:
            self.found.add("/body", "answer.charset", "has a charset that is not known; it is read as UTF-8")
        codec = media_type.charset or "utf-8"
        try:
            text = body.decode(codec)
        except UnicodeError:
            self.found.add("/body", "answer.encoding", f"is not {codec}")
            text = body.decode(codec, "replace")
        # RFC 8259, 8.1 lets a reader ignore a byte order mark; many servers send one.
        return text.removeprefix("\ufeff")


def _spelt(text: str) -> Any:
    """Return the number, boolean or null that a text spells, or the text."""
    try:
        value = strict_json.parse(text.strip().encode("utf-8"), max_bytes=strict_json.MAX_NUMBER_LENGTH)
    except Invalid:
        return text
    return text if isinstance(value, dict | list | str) else value


def _first(headers: Iterable[tuple[str, str]], lower_name: str) -> str | None:
    return next((value for name, value in headers if name.lower() == lower_name), None)
