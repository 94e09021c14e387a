"""The compiled form of one operation of an OpenAPI document: everything that a call needs, and nothing to look up.

Pure data. `openapi/compile.py` makes it from a checked document; `binding/` turns arguments into a request by it.
Every schema in it is Draft 2020-12, whatever the document's version; its references are all `#/$defs/NAME`, and
`Operation.definitions` holds each NAME that any of them reaches, so that a cycle is a reference like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Schema = dict[str, Any] | bool
Location = Literal["path", "query", "header", "cookie"]
Style = Literal["simple", "label", "matrix", "form", "spaceDelimited", "pipeDelimited", "deepObject"]

# Who gives a value (`x-from`): the model that calls the tool, the business that calls on its behalf, or the
# document itself, by its default.
FROM_MODEL, FROM_BUSINESS, FIXED = 0, 1, 2
LOCATIONS: tuple[Location, ...] = ("path", "query", "header", "cookie")


@dataclass(frozen=True)
class Parameter:
    """One parameter, those of its path included.

    Parameters
    ----------
    style, explode, allow_reserved
        How a value becomes text (OpenAPI 3.1, 4.8.12), the defaults of its location applied.
    media_type
        Set where the document says `content` instead of `schema`: the value is one text of that type.
    origin
        `x-from`: FROM_MODEL, FROM_BUSINESS or FIXED.
    displayed
        `x-display`: False hides it from the model.
    """

    name: str
    location: Location
    required: bool
    schema: Schema
    style: Style
    explode: bool
    allow_reserved: bool = False
    media_type: str | None = None
    origin: int = FROM_MODEL
    displayed: bool = True
    description: str = ""
    deprecated: bool = False


@dataclass(frozen=True)
class PropertyEncoding:
    """How one property of a form or multipart body is written (OpenAPI 3.1, 4.8.15).

    `content_type` is None where the document leaves it to the property's schema; `style` is None where the property is
    written by its content type and not like a query parameter. `headers` are the parameters (location `header`) of the
    part.
    """

    content_type: str | None = None
    style: Style | None = None
    explode: bool = True
    allow_reserved: bool = False
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Content:
    """One media type of a body or an answer; lower case, parameters dropped, possibly a range (`image/*`)."""

    media_type: str
    schema: Schema
    encoding: Mapping[str, PropertyEncoding] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestBody:
    """What an operation takes; `contents` in the document's order."""

    required: bool
    contents: tuple[Content, ...]
    description: str = ""


@dataclass(frozen=True)
class ResponseSpec:
    """What an operation answers with one status: `200`, a range `2XX`, or `default`."""

    status: str
    contents: tuple[Content, ...]
    description: str = ""


@dataclass(frozen=True)
class SecurityScheme:
    """One way to authenticate, as `components.securitySchemes` names it.

    Parameters
    ----------
    kind
        `apiKey`, `http_basic`, `http_bearer`, `oauth2_client_credentials`, or `unsupported`.
    location, parameter
        For `apiKey`: where it goes, under which name.
    token_url
        For `oauth2_client_credentials`; absolute.
    scopes
        Those that the flow offers.
    """

    name: str
    kind: Literal["apiKey", "http_basic", "http_bearer", "oauth2_client_credentials", "unsupported"]
    location: Literal["header", "query", "cookie", ""] = ""
    parameter: str = ""
    token_url: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirement:
    """One alternative of `security`: all of these schemes together, each with the scopes that it needs. An empty one
    means that the operation may be called without credentials."""

    schemes: tuple[tuple[SecurityScheme, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Operation:
    """One operation.

    Parameters
    ----------
    method
        Upper case.
    path
        The template, placeholders in braces.
    server_url
        Absolute, variables replaced by their defaults, no final slash; no argument changes it.
    security
        Alternatives in the document's order; empty where the document asks for no credential.
    definitions
        Name → schema, closed under reference.
    warnings
        What of the document is not enforced, and why ("a pattern with a look-ahead").
    """

    operation_id: str
    method: str
    path: str
    server_url: str
    parameters: tuple[Parameter, ...]
    body: RequestBody | None
    responses: tuple[ResponseSpec, ...]
    security: tuple[Requirement, ...]
    definitions: Mapping[str, Schema]
    summary: str = ""
    description: str = ""
    deprecated: bool = False
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def closed(self, schema: Schema) -> Schema:
        """Return a schema of this operation that stands on its own."""
        if isinstance(schema, bool) or not self.definitions:
            return schema
        return {**schema, "$defs": dict(self.definitions)}
