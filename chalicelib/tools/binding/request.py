"""From checked arguments to the request that is sent.

Every argument becomes text within its own place: in the path one or several segments that do not climb, in the query
its own parameters, in a header one line. Host and scheme come from the document alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.outbound.addresses import MAX_URL_LENGTH
from chalicelib.core.outbound.request import MAX_REQUEST_BYTES, MAX_REQUEST_HEADER_BYTES
from chalicelib.core.strict_json import escape
from chalicelib.tools.binding import media_types
from chalicelib.tools.binding.arguments import Arguments, Resolved, resolve_into
from chalicelib.tools.binding.bodies import body_bytes, json_text
from chalicelib.tools.binding.field_values import checked_cookie, checked_header, is_token, parameter_header
from chalicelib.tools.binding.findings import Findings
from chalicelib.tools.binding.multipart import DrawBoundary, draw_boundary
from chalicelib.tools.binding.plan import CallPlan, is_connection_header
from chalicelib.tools.binding.serialization import CannotSerialize, Escaping, Pair, path_text, query_pairs
from chalicelib.tools.binding.text import climbs, encode, encode_path_literal
from chalicelib.tools.openapi.operation import Location, Operation, Parameter

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MAX_ACCEPTED = 20


@dataclass(frozen=True)
class BoundRequest:
    """A request; its `repr` shows nothing that may be secret.

    Parameters
    ----------
    base_url
        Scheme, host and path, encoded.
    query
        Names as they are, values percent-encoded.
    fields
        Headers but Cookie; no name twice in any case.
    cookies
        Names and values as they are sent.
    """

    method: str
    base_url: str = field(repr=False)
    query: tuple[Pair, ...] = field(default=(), repr=False)
    fields: tuple[Pair, ...] = field(default=(), repr=False)
    cookies: tuple[Pair, ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The URL with its query."""
        text = "&".join(f"{encode(name)}={value}" for name, value in self.query)
        return f"{self.base_url}?{text}" if text else self.base_url

    @property
    def headers(self) -> tuple[Pair, ...]:
        """All headers; the cookies are one of them (RFC 6265, 5.4)."""
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies)
        return (*self.fields, ("Cookie", cookie)) if cookie else self.fields

    def with_header(self, name: str, value: str) -> BoundRequest:
        """Return the request with a header, in place of any of that name: an argument does not shadow a credential.

        Raises
        ------
        errors.Invalid
            `tool.invalid_credential`: it cannot be sent like this. The value is never repeated.
        """
        if not is_token(name) or is_connection_header(name):
            raise _bad_credential(f"/header/{escape(name)}", "is no name of a header that may be set")
        _check_credential(f"/header/{escape(name)}", checked_header, value)
        kept = tuple(pair for pair in self.fields if pair[0].lower() != name.lower())
        return replace(self, fields=(*kept, (name, value)))

    def with_query(self, name: str, value: str) -> BoundRequest:
        """Return the request with a query parameter, in place of any of that name."""
        kept = tuple(pair for pair in self.query if pair[0] != name)
        return replace(self, query=(*kept, (name, encode(value))))

    def with_cookie(self, name: str, value: str) -> BoundRequest:
        """Return the request with a cookie, in place of any of that name; the value is sent as it is.

        Raises
        ------
        errors.Invalid
            `tool.invalid_credential`: it cannot be sent like this.
        """
        if not is_token(name):
            raise _bad_credential(f"/cookie/{escape(name)}", "is no name of a cookie")
        _check_credential(f"/cookie/{escape(name)}", checked_cookie, value)
        kept = tuple(pair for pair in self.cookies if pair[0] != name)
        return replace(self, cookies=(*kept, (name, value)))


def bind(plan: CallPlan, arguments: Arguments, *, draw: DrawBoundary = draw_boundary) -> BoundRequest:
    """Check arguments and return the request that they mean.

    Parameters
    ----------
    draw
        Where the boundary of a multipart body comes from.

    Raises
    ------
    errors.Invalid
        `tool.invalid_arguments` with all violations, at most 100: those of `arguments.resolve`, and of what cannot be
        written (`argument.nested`, `argument.path`, `argument.header_value`, …); `tool.schema_too_complex`.
    """
    found = Findings()
    request = _bound(plan, resolve_into(plan, arguments, found), draw, found)
    found.refuse()
    return request


def _bound(plan: CallPlan, resolved: Resolved, draw: DrawBoundary, found: Findings) -> BoundRequest:
    operation = plan.operation
    # What is missing was said already: the path is not judged with a hole in it.
    complete = all(name in resolved.parameters["path"] for name in plan.parameters["path"])
    path = _path(plan, resolved, found) if complete else ""
    query = tuple(_pairs(plan, resolved, "query", found))
    cookies = tuple(
        (name if is_token(name) else encode(name), value)
        for name, value in _pairs(plan, resolved, "cookie", found)
    )
    fields = [("Accept", accepted(operation)), *_headers(plan, resolved, found)]
    body = None
    if resolved.body is not None:
        try:
            body, content_type = body_bytes(plan, resolved.body, draw)
            fields.append(("Content-Type", checked_header(content_type)))
        except CannotSerialize as error:
            found.add(f"/body{error.pointer}", error.rule, error.message)
    request = BoundRequest(operation.method, operation.server_url + path, query, tuple(fields), cookies, body)
    if body is not None and len(body) > MAX_REQUEST_BYTES:
        found.add("/body", "argument.too_large", f"takes more than {MAX_REQUEST_BYTES} bytes")
    if not found and len(request.url) > MAX_URL_LENGTH:
        found.add("", "argument.too_large", f"makes a URL of more than {MAX_URL_LENGTH} characters")
    return request


def accepted(operation: Operation) -> str:
    """Return the Accept header: what the document says of success, JSON first."""
    types = dict.fromkeys(
        content.media_type
        for response in operation.responses
        if response.status.startswith("2") or response.status.lower() == "default"
        for content in response.contents
        if media_types.parse_media_type(content.media_type)
    )
    ordered = sorted(types, key=lambda each: not media_types.is_json(each))
    return ", ".join(ordered[:_MAX_ACCEPTED]) or "*/*"


def _path(plan: CallPlan, resolved: Resolved, found: Findings) -> str:
    """Return the path; a segment with an argument in it must not be empty, nor climb."""
    texts: dict[str, str] = {}
    for name, value in resolved.parameters["path"].items():
        parameter = plan.parameters["path"][name]
        try:
            text = _path_text(parameter, value)
        except CannotSerialize as error:
            found.add(f"/path/{escape(name)}{error.pointer}", error.rule, error.message)
            continue
        texts[name] = text
        if not text:
            found.add(f"/path/{escape(name)}", "argument.path", "is empty, which a path cannot say")
    segments = []
    for segment in plan.operation.path.split("/"):
        literals = _PLACEHOLDER.split(segment)
        names = literals[1::2]
        written = "".join(
            texts.get(piece, "") if index % 2 else encode_path_literal(piece)
            for index, piece in enumerate(literals)
        )
        segments.append(written)
        if names and climbs(written):
            for name in dict.fromkeys(names):
                found.add(f"/path/{escape(name)}", "argument.path", "leads to another path by . or ..")
    return "/".join(segments)


def _path_text(parameter: Parameter, value: Any) -> str:
    if parameter.media_type is not None:
        return encode(_content_text(parameter, value))
    return path_text(parameter.name, value, parameter.style, parameter.explode)


def _pairs(plan: CallPlan, resolved: Resolved, location: Location, found: Findings) -> Iterator[Pair]:
    """Yield the pairs of the query or of the cookies."""
    taken: set[str] = set()
    for name, value in resolved.parameters[location].items():
        parameter = plan.parameters[location][name]
        pointer = f"/{location}/{escape(name)}"
        try:
            pairs = list(_named_pairs(parameter, value))
        except CannotSerialize as error:
            found.add(pointer + error.pointer, error.rule, error.message)
            continue
        keys = {key for key, _ in pairs}
        if any(key != name and (key in taken or key in plan.parameters[location]) for key in keys):
            # A member of an exploded object would speak for another parameter, perhaps one that is fixed.
            found.add(pointer, "argument.name_taken", "has a member named like another parameter")
        taken |= keys
        yield from pairs


def _named_pairs(parameter: Parameter, value: Any) -> Iterable[Pair]:
    in_query = parameter.location == "query"
    if parameter.media_type is None:
        escaping: Escaping = "reserved" if parameter.allow_reserved and in_query else "unreserved"
        limit = MAX_URL_LENGTH if in_query else MAX_REQUEST_HEADER_BYTES
        return query_pairs(parameter.name, value, parameter.style, parameter.explode, escaping, limit)
    text = _content_text(parameter, value)
    if parameter.location == "cookie" and not media_types.is_json(parameter.media_type):
        return [(parameter.name, checked_cookie(text))]  # OpenAPI 3.1, appendix D: as it is
    return [(parameter.name, encode(text))]


def _content_text(parameter: Parameter, value: Any) -> str:
    if isinstance(value, str) and not media_types.is_json(parameter.media_type or ""):
        return value
    return json_text(value)


def _headers(plan: CallPlan, resolved: Resolved, found: Findings) -> Iterator[Pair]:
    for name, value in resolved.parameters["header"].items():
        try:
            text = parameter_header(plan.parameters["header"][name], value)
            if not is_token(name):
                raise CannotSerialize("argument.header_name", "has a name that is no HTTP token")
        except CannotSerialize as error:
            found.add(f"/header/{escape(name)}{error.pointer}", error.rule, error.message)
        else:
            if value not in ([], {}):
                yield name, text


def _check_credential(pointer: str, check: Any, value: str) -> None:
    try:
        check(value)
    except CannotSerialize as error:
        raise _bad_credential(pointer, error.message) from None


def _bad_credential(pointer: str, message: str) -> Invalid:
    violation = Violation(pointer, "credential.unsendable", message)
    return Invalid("The credential cannot be sent.", code="tool.invalid_credential", errors=[violation])
