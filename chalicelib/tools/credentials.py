"""What an app calls a tool or an MCP server with: stored sealed, by scheme, and never returned.

A shared tool is called with the *caller's* credentials: its owner's belong to the owner's calls. And a credential goes
only where the tool led when it was stored: an owner who later points the tool at another host must not collect what
others keep for the first one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.tenants import hold_owner
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Conflict, Invalid, NotFound, Violation
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.keys.app_box import box_of
from chalicelib.core.keys.secret_box import SecretBox
from chalicelib.core.outbound.addresses import origin_of
from chalicelib.core.representation import check_if_match
from chalicelib.core.strict_json import escape
from chalicelib.tools import catalog, rendering
from chalicelib.tools.catalog import Registration
from chalicelib.tools.models import SHARED, ToolCredential, ToolDocument, ToolMeta
from chalicelib.tools.names import MOST_CREDENTIALS, SCHEME_PATTERN

API_KEY: Final = "apiKey"
BASIC: Final = "http_basic"
BEARER: Final = "http_bearer"
OAUTH2: Final = "oauth2_client_credentials"
SERVER_API_KEY, SERVER_OAUTH2 = "server_apiKey", "server_oauth2"
# An MCP server declares no schemes: these are its, by name.
SERVER_SCHEMES = {"bearer": BEARER, "basic": BASIC, "apiKey": SERVER_API_KEY, "oauth2": SERVER_OAUTH2}

# A header carries visible ASCII; a control character in one would begin a header of the caller's own making.
_VALUE = {"type": "string", "maxLength": 8192, "pattern": "^[!-~]([ -~]*[!-~])?$"}
_TEXT = {"type": "string", "minLength": 1, "maxLength": 4096}
_SCOPES = {
    "type": "array",
    "maxItems": 50,
    "items": {"type": "string", "pattern": "^[!#-\\[\\]-~]{1,256}$"},
}
_CLIENT = {"clientId": _TEXT, "clientSecret": _TEXT, "scopes": _SCOPES}


def _shape(properties: Mapping[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": dict(properties),
    }


_SHAPES: dict[str, dict[str, Any]] = {
    API_KEY: _shape({"value": _VALUE}),
    # RFC 7617: a colon ends the user's name.
    BASIC: _shape({"username": {**_TEXT, "pattern": "^[^:]*$"}, "password": {**_TEXT, "minLength": 0}}),
    BEARER: _shape({"token": {"type": "string", "maxLength": 8192, "pattern": "^[A-Za-z0-9._~+/-]+=*$"}}),
    OAUTH2: _shape(_CLIENT, ("scopes",)),
    SERVER_API_KEY: _shape(
        {"header": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}, "value": _VALUE}
    ),
    SERVER_OAUTH2: _shape({"tokenUrl": {"type": "string", "maxLength": 2048}, **_CLIENT}, ("scopes",)),
}


@dataclass(frozen=True)
class Credential:
    """One credential as it is stored; it may be kept in memory, because without the app's key it opens nothing."""

    scheme: str
    kind: str
    ciphertext: str


def check_values(kinds: Mapping[str, str], values: Mapping[str, Any], pointer: str = "") -> None:
    """Refuse credentials that no scheme asks for, or that do not have their scheme's form.

    Parameters
    ----------
    kinds
        The kind of each scheme that may have one, by name.
    values
        Scheme → value, as a client gave them.

    Raises
    ------
    errors.Invalid
        `tool.invalid_credentials` with every violation.
    """
    from chalicelib.core.json_schema.schemas import violations

    found: list[Violation] = []
    for scheme, value in values.items():
        place = f"{pointer}/{escape(scheme)}"
        kind = kinds.get(scheme)
        if kind not in _SHAPES:
            known = ", ".join(sorted(name for name, one in kinds.items() if one in _SHAPES)) or "none"
            found.append(Violation(place, "tool.unknown_scheme", f"is none of the schemes: {known}"[:500]))
        else:
            found += violations(_SHAPES[kind], value, place)
    if found:
        raise Invalid("The credentials do not hold.", code="tool.invalid_credentials", errors=found)


def schemes_of(session: Session, found: Registration) -> tuple[dict[str, str], list[str]]:
    """Return (the kind of each scheme by name, where calls go) of a tool's live versions; of two versions the newer
    says what a scheme is."""
    query = select(ToolDocument.schema_id, ToolDocument.security_schemes, ToolDocument.origins).where(
        ToolDocument.schema_id.in_(found.versions.values())
    )
    declared = {row.schema_id: row for row in session.execute(query)}
    oldest_first = [declared[row_id] for row_id in reversed(found.versions.values()) if row_id in declared]
    kinds = {
        one["name"]: one["kind"]
        for row in oldest_first
        for one in row.security_schemes
        if re.fullmatch(SCHEME_PATTERN[1:-1], one["name"])
    }
    return kinds, sorted({origin for row in oldest_first for origin in row.origins})


def seal_for_tool(
    database: DatabaseService, cache: HotCache, caller: Caller, found: Registration, values: Mapping[str, Any]
) -> list[Credential]:
    """Return credentials for a tool as they will be stored. Not inside a unit of work: the key may come from KMS.

    Raises
    ------
    errors.Invalid, errors.Unavailable
    """
    with database.reads() as session:
        kinds, origins = schemes_of(session, found)
    check_values(kinds, values)
    return seal(box_of(database, cache, caller.app_id)(), found.tool_id, kinds, values, origins)


def seal(
    box: SecretBox, tool_id: str, kinds: Mapping[str, str], values: Mapping[str, Any], origins: list[str]
) -> list[Credential]:
    """Return checked credentials, each sealed together with the origins that it may be sent to."""
    return [
        Credential(
            scheme,
            kinds[scheme],
            box.encrypt(json.dumps({"value": value, "origins": origins}), _place(tool_id, scheme)),
        )
        for scheme, value in sorted(values.items())
    ]


def put(
    session: Unit,
    caller: Caller,
    found: Registration,
    sealed: list[Credential],
    if_match: str | None = None,
) -> dict[str, Any]:
    """Store credentials, each in place of the one before, and return the names of all.

    Raises
    ------
    errors.NotFound
        The tool was deleted meanwhile.
    errors.PreconditionFailed
        `if_match` names another list of them.
    errors.Conflict
        `tool.too_many_credentials`
    """
    hold_owner(session, caller)
    _lock(session, caller, found)
    check_if_match(if_match, list_credentials(session, caller, found.tool_id))
    store(session, caller, found.tool_id, sealed)
    session.flush()
    names = [one.scheme for one in sealed]
    audit.record(session, caller, "tool.credentials", "tool", found.tool_id, after={"put": names})
    return list_credentials(session, caller, found.tool_id)


def store(session: Unit, caller: Caller, tool_id: str, sealed: Sequence[Credential]) -> None:
    """Store the caller's credentials for a tool that this unit holds, each in place of the one before.

    Raises
    ------
    errors.Conflict
        `tool.too_many_credentials`
    """
    rows = {row.scheme: row for row in session.scalars(_of(caller.app_id, tool_id))}
    for one in sealed:
        row = rows.get(one.scheme)
        if row is None:
            row = rows[one.scheme] = ToolCredential(app_id=caller.app_id, tool_id=tool_id, scheme=one.scheme)
            session.add(row)
        row.kind, row.ciphertext, row.updated_by = one.kind, one.ciphertext, caller.credential_id
    if len(rows) > MOST_CREDENTIALS:
        raise Conflict(
            f"An app has at most {MOST_CREDENTIALS} credentials for a tool.", code="tool.too_many_credentials"
        )


def list_credentials(session: Session, caller: Caller, tool_id: str) -> dict[str, Any]:
    """Return the names of the caller's credentials for a tool, one page."""
    rows = session.scalars(_of(caller.app_id, tool_id))
    return {"items": [rendering.credential(row) for row in rows], "nextCursor": None}


def delete(
    session: Unit, caller: Caller, found: Registration, scheme: str | None, if_match: str | None = None
) -> None:
    """Delete the caller's credential of one scheme, or with None all of them.

    Raises
    ------
    errors.PreconditionFailed
        `if_match` names another list of them.
    errors.NotFound
        `tool.credential_not_found`
    """
    _lock(session, caller, found)
    check_if_match(if_match, list_credentials(session, caller, found.tool_id))
    query = _of(caller.app_id, found.tool_id)
    rows = session.scalars(query if scheme is None else query.where(ToolCredential.scheme == scheme)).all()
    if not rows and scheme is not None:
        raise NotFound("There is no such credential.", code="tool.credential_not_found")
    for row in rows:
        session.delete(row)
    names = sorted(row.scheme for row in rows)
    audit.record(session, caller, "tool.credentials", "tool", found.tool_id, before={"deleted": names})


def stored(cache: HotCache, caller: Caller, tool_id: str) -> dict[str, Credential]:
    """Return the caller's credentials for a tool by scheme, still sealed, from memory where it is warm."""

    def read(session: Session) -> tuple[dict[str, Credential], list[Dependency]]:
        rows = session.scalars(_of(caller.app_id, tool_id))
        return {row.scheme: Credential(row.scheme, row.kind, row.ciphertext) for row in rows}, [
            ("tools", tool_id)
        ]

    return cache.load(("tool_credentials", caller.app_id, tool_id), read)


def reveal(
    database: DatabaseService, cache: HotCache, caller: Caller, tool_id: str, one: Credential, url: str
) -> dict[str, Any] | None:
    """Return a credential in the clear, for a call that is about to be made; None where it was not given for the place
    that the call goes to. Not inside a unit of work."""
    box = box_of(database, cache, caller.app_id)()
    found = json.loads(box.decrypt(one.ciphertext, _place(tool_id, one.scheme)))
    if origin_of(url) not in found["origins"]:
        return None
    value: dict[str, Any] = found["value"]
    return value


def _lock(session: Unit, caller: Caller, found: Registration) -> None:
    """Hold the tool: nobody deletes it, with all its credentials, before this unit has stored one."""
    query = select(ToolMeta).where(ToolMeta.tool_id == found.tool_id).with_for_update()
    meta = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    seen = meta is not None and (meta.app_id == caller.app_id or meta.visibility == SHARED)
    if meta is None or meta.is_deleted or not seen:
        raise catalog.not_found(found.kind)


def _of(app_id: int, tool_id: str) -> Any:
    return (
        select(ToolCredential)
        .where(ToolCredential.app_id == app_id, ToolCredential.tool_id == tool_id)
        .order_by(ToolCredential.scheme)
    )


def _place(tool_id: str, scheme: str) -> tuple[str, ...]:
    return ("tool_credential", tool_id, scheme)
