"""What of an operation is worth keeping between calls: validators, the shapes of values, what its schemas ask for."""

from __future__ import annotations

from chalicelib.core.json_schema.schemas import Validator, compile_schema
from chalicelib.tools.binding.shapes import Shape, Shapes
from chalicelib.tools.binding.views import View, subschemas
from chalicelib.tools.openapi.operation import LOCATIONS, Location, Operation, Parameter, Schema

# They frame the message or steer the connection, and belong to `core/outbound`; a cookie goes where cookies go.
CONNECTION_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
    }
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
# OpenAPI 3.1, 4.8.12: a header parameter of this name shall be ignored. The contents and credentials decide them.
IGNORED_HEADERS = frozenset({"accept", "authorization", "content-type"})


class CallPlan:
    """An operation and what was found out about it; belongs into the hot cache beside it. Threads may share it.

    A validator is compiled when a value first meets its schema, and kept: the digest by which `core.schemas` finds a
    compiled schema again takes longer than most calls where the definitions are large.
    """

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.parameters: dict[Location, dict[str, Parameter]] = {location: {} for location in LOCATIONS}
        for parameter in operation.parameters:
            if parameter.location != "header" or not is_ours(parameter.name):
                self.parameters[parameter.location][parameter.name] = parameter
        self.header_names = {name.lower(): name for name in self.parameters["header"]}
        self._validators: dict[tuple[int, str], Validator] = {}
        self._marks: dict[int, frozenset[str]] = {}
        self._certain = Shapes(operation.definitions, branches=False)
        self._possible = Shapes(operation.definitions, branches=True)

    def certain(self, schema: Schema) -> Shape:
        """Return what certainly applies to a value of this schema (`$ref`, `allOf`)."""
        if self._certain.worn:
            self._certain = Shapes(self.operation.definitions, branches=False)
        return self._certain.of(schema)

    def possible(self, schema: Schema) -> Shape:
        """Return what may apply to a value of this schema (also `anyOf`, `oneOf`, `then`, `else`)."""
        if self._possible.worn:
            self._possible = Shapes(self.operation.definitions, branches=True)
        return self._possible.of(schema)

    def request_validator(self, schema: Schema) -> Validator:
        """Return the validator of what is sent: a member that is `readOnly` is not required (OpenAPI 3.1, 4.8.24)."""
        return self._validator(schema, "readOnly")

    def answer_validator(self, schema: Schema) -> Validator:
        """Return the validator of what is received: a member that is `writeOnly` is not required."""
        return self._validator(schema, "writeOnly")

    def says(self, schema: Schema, mark: str) -> bool:
        """Return whether a schema, or one that it reaches, has `default`, `readOnly`, `x-from`, or hides something
        (`x-display`)."""
        key = id(schema)
        if key not in self._marks:
            view = View(self._fresh_shapes(), self.operation.definitions, _never)
            reached = (schema, *view.reached((schema,)).values())
            self._marks[key] = frozenset(mark for each in reached for mark in _marks(each))
        return mark in self._marks[key]

    def _validator(self, schema: Schema, absent: str) -> Validator:
        key = (id(schema), absent)
        if key not in self._validators:
            view = View(self._fresh_shapes(), self.operation.definitions, _is_read_only)
            if absent == "writeOnly":
                view = View(self._fresh_shapes(), self.operation.definitions, _is_write_only)
            self._validators[key] = compile_schema(view.closed(schema))
        return self._validators[key]

    def _fresh_shapes(self) -> Shapes:
        return Shapes(self.operation.definitions, branches=True)


def is_ours(header: str) -> bool:
    """Return whether a header belongs to the connection, the contents or the credentials, and to no argument."""
    return header.lower() in IGNORED_HEADERS or is_connection_header(header)


def is_connection_header(header: str) -> bool:
    """Return whether a header frames the message or steers the connection: nobody but the client sets it."""
    return header.lower() in CONNECTION_HEADERS or header.lower().startswith("proxy-")


def _marks(schema: Schema) -> set[str]:
    found = set[str]()
    for each in subschemas(schema):
        found.update(mark for mark in ("default", "readOnly", "x-from") if mark in each)
        if each.get("x-display") is False:
            found.add("x-display")
    return found


def _never(shape: Shape) -> bool:
    return False


def _is_read_only(shape: Shape) -> bool:
    return shape.read_only


def _is_write_only(shape: Shape) -> bool:
    return shape.write_only
