"""Reading and writing a plugin's configs.

Encrypting and decrypting may ask the key service, so both happen outside units of work: a write is first drafted
(checked and sealed), then committed under the lock of the plugin's row, which refuses a draft that the plugin or the
row has moved away from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService, Unit
from chalicelib.core.errors import Conflict, Forbidden, Invalid, Violation
from chalicelib.core.hotcache import HotCache
from chalicelib.core.ids import new_ulid
from chalicelib.core.keys import app_box
from chalicelib.core.paging import Page, list_page, through
from chalicelib.core.representation import check_if_match, timestamp
from chalicelib.plugins import catalog
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.configs import scopes, secrets, validation
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.configs.scopes import GLOBAL, USER, not_found, scope_id
from chalicelib.plugins.configs.validation import schema_of
from chalicelib.plugins.models import Plugin, PluginHistory


@dataclass(frozen=True)
class Draft:
    """A config ready to be written, sealed, and the state of the plugin and of the row that it was made for."""

    plugin_id: str
    config_id: str
    scope: str
    scope_id: str
    name: str | None
    is_default: bool | None
    items: dict[str, Any]
    schema: Any
    before: Any = None


def rendered(row: PluginConfig, schema: Any, reader: Caller) -> dict[str, Any]:
    """Return a config as it leaves the service; `schema` is the plugin's present configSchema.

    A global config of a shared plugin is read by other tenants, who are not shown whose credential wrote it.
    """
    author = row.created_by if row.app_id == reader.app_id else None
    return {
        "configId": row.config_id,
        "pluginId": row.plugin_id,
        "name": row.name,
        "scope": row.scope,
        "subject": row.scope_id.partition(":")[2] if row.scope == USER else None,
        "isDefault": bool(row.is_default),
        "configItems": secrets.masked(row.config_items, schema),
        "createdBy": None if author is None else str(author),
        "createTime": timestamp(row.create_time),
        "updateTime": timestamp(row.update_time),
    }


def read(session: Session, caller: Caller, found: Registration, config_id: str) -> dict[str, Any]:
    """Return one config that the caller sees: one of its app, or a global one.

    Raises
    ------
    errors.NotFound
    """
    row = scopes.find(session, caller.app_id, found.plugin_id, config_id)
    if row is None:
        raise not_found()
    return rendered(row, schema_of(found), caller)


def list_configs(
    session: Session,
    caller: Caller,
    found: Registration,
    page: Page,
    *,
    scope: str | None = None,
    subject: str | None = None,
) -> dict[str, Any]:
    """Return a page of the plugin's configs that the caller sees, newest first."""
    query = select(PluginConfig).where(
        PluginConfig.plugin_id == found.plugin_id, scopes.seen_by(caller.app_id)
    )
    if scope is None and subject is None:
        query = through(query, PluginConfig, "ix_t_plugin_config_plugin")
    if scope is not None:
        query = query.where(PluginConfig.scope == scope)
    if subject is not None:
        query = query.where(
            PluginConfig.scope == USER, PluginConfig.scope_id == scope_id(USER, caller.app_id, subject)
        )
    schema = schema_of(found)
    return list_page(
        session, query, page, [PluginConfig.id], lambda row: rendered(row, schema, caller), large=True
    )


# -- writing: a draft, then a unit of work --------------------------------------------------------------------------


def draft_new(
    database: DatabaseService,
    cache: HotCache,
    caller: Caller,
    found: Registration,
    *,
    scope: str,
    subject: str | None,
    name: str,
    values: dict[str, Any],
    is_default: bool | None,
) -> Draft:
    """Check and seal a new config.

    Parameters
    ----------
    is_default
        None: it becomes the default where its scope has none.

    Raises
    ------
    errors.Forbidden
        A global config by anyone but an admin of the plugin's owner.
    errors.Invalid
        With every violation of the configSchema, but for what is absent: another scope may supply it.
    """
    _check_may_write(caller, found, scope)
    if (subject is not None) != (scope == USER):
        message = "is needed for scope user" if scope == USER else "goes with scope user alone"
        raise Invalid("The config does not hold.", errors=[Violation("/subject", "config.subject", message)])
    config_id = new_ulid()
    items = _seal(database, cache, found, caller.app_id, config_id, values, None)
    where = scope_id(scope, caller.app_id, subject)
    schema = schema_of(found)
    return Draft(found.plugin_id, config_id, scope, where, name, is_default, items, schema)


def draft_change(
    database: DatabaseService,
    cache: HotCache,
    caller: Caller,
    found: Registration,
    config_id: str,
    *,
    name: str | None,
    values: dict[str, Any],
    is_default: bool | None,
) -> Draft:
    """Check and seal new values for a config; `***` keeps what is stored at the same place.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.Invalid
    """
    with database.reads() as session:
        row = scopes.find(session, caller.app_id, found.plugin_id, config_id)
    if row is None:
        raise not_found()
    _check_may_write(caller, found, row.scope)
    items = _seal(database, cache, found, row.app_id, config_id, values, row.config_items)
    return Draft(
        found.plugin_id, config_id, row.scope, row.scope_id, name, is_default, items,
        schema_of(found), row.config_items,
    )  # fmt: skip


def _check_may_write(caller: Caller, found: Registration, scope: str) -> None:
    if scope != GLOBAL:
        return
    if found.app_id != caller.app_id:
        raise Forbidden("Only the app that owns a plugin may set its global config.", code="plugin.not_owner")
    if not caller.may("admin"):
        raise Forbidden("A global config needs the role admin.", code="auth.role")


def _seal(
    database: DatabaseService,
    cache: HotCache,
    found: Registration,
    app_id: int,
    config_id: str,
    values: dict[str, Any],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    schema, place = schema_of(found), (found.plugin_id, config_id)
    box = app_box.box_of(database, cache, app_id)
    items, problems = secrets.sealed(schema, values, place, box, before)
    if not problems:
        plain = secrets.revealed(items, place, box)
        problems = validation.violations_of(schema, plain, "/configItems", partial=True)
    if problems:
        raise Invalid("The values do not fit the configSchema.", code="config.invalid", errors=problems)
    return items


def create(session: Unit, caller: Caller, draft: Draft) -> dict[str, Any]:
    """Write a new config and return it.

    Raises
    ------
    errors.NotFound, errors.Conflict
        The plugin went or changed its schema meanwhile; `config.name_taken`.
    """
    plugin = _locked(session, caller, draft)
    row = PluginConfig(
        config_id=draft.config_id,
        plugin_id=draft.plugin_id,
        app_id=caller.app_id,
        name=draft.name,
        config_items=draft.items,
        scope=draft.scope,
        scope_id=draft.scope_id,
        is_default=0,
        created_by=caller.credential_id,
    )
    _check_name(session, row)
    others = _siblings(session, row)
    session.add(row)
    wanted = (
        draft.is_default if draft.is_default is not None else not any(other.is_default for other in others)
    )
    _set_default(row, others, wanted)
    session.flush()
    return _recorded(session, caller, plugin, row, "create", None)


def replace(session: Unit, caller: Caller, draft: Draft, if_match: str | None) -> dict[str, Any]:
    """Write new values for a config and return it.

    Raises
    ------
    errors.NotFound, errors.PreconditionFailed, errors.Conflict
        `config.changed`: a secret that `***` was to keep is another by now.
    """
    plugin = _locked(session, caller, draft)
    row = scopes.find(session, caller.app_id, draft.plugin_id, draft.config_id, lock=True)
    if row is None:
        raise not_found()
    before = rendered(row, plugin.config_schema, caller)
    check_if_match(if_match, before)
    if row.config_items["secrets"] != draft.before["secrets"]:
        raise Conflict("The config was changed meanwhile; try again.", code="config.changed", retry_after=1)
    if draft.name is not None and draft.name != row.name:
        row.name = draft.name
        _check_name(session, row)
    row.config_items = draft.items
    if draft.is_default is not None:
        _set_default(row, _siblings(session, row), draft.is_default)
    session.flush()
    return _recorded(session, caller, plugin, row, "update", before)


def delete(session: Unit, caller: Caller, found: Registration, config_id: str, if_match: str | None) -> None:
    """Delete a config. Deleting a default leaves its scope without one.

    Raises
    ------
    errors.NotFound, errors.Forbidden, errors.PreconditionFailed
    """
    plugin = _lock(session, caller, found.plugin_id)
    row = scopes.find(session, caller.app_id, found.plugin_id, config_id, lock=True)
    if row is None:
        raise not_found()
    _check_may_write(caller, found, row.scope)
    before = rendered(row, plugin.config_schema, caller)
    check_if_match(if_match, before)
    session.delete(row)
    _recorded(session, caller, plugin, row, "delete", before)


def _lock(session: Unit, caller: Caller, plugin_id: str) -> Plugin:
    """Lock the plugin's row: config writes of a plugin queue up behind each other and behind its updates."""
    plugin = session.scalars(
        select(Plugin).where(Plugin.plugin_id == plugin_id, catalog.visible(caller)).with_for_update()
    ).one_or_none()
    if plugin is None:
        raise catalog.not_found()
    return plugin


def _locked(session: Unit, caller: Caller, draft: Draft) -> Plugin:
    plugin = _lock(session, caller, draft.plugin_id)
    if plugin.config_schema != draft.schema:
        # Validated, and sealed, by a schema that is no longer the plugin's.
        raise Conflict("The plugin was changed meanwhile; try again.", code="plugin.changed", retry_after=1)
    return plugin


def _siblings(session: Unit, row: PluginConfig) -> list[PluginConfig]:
    return list(
        session.scalars(
            select(PluginConfig).where(
                PluginConfig.plugin_id == row.plugin_id,
                PluginConfig.scope == row.scope,
                PluginConfig.scope_id == row.scope_id,
                PluginConfig.config_id != row.config_id,
            )
        )
    )


def _check_name(session: Unit, row: PluginConfig) -> None:
    with session.no_autoflush:
        taken = [other.config_id for other in _siblings(session, row) if other.name == row.name]
    if taken:
        raise Conflict(
            "This scope has a config of that name.",
            code="config.name_taken",
            extensions={"configId": taken[0]},
        )


def _set_default(row: PluginConfig, others: Iterable[PluginConfig], wanted: bool) -> None:
    row.is_default = int(wanted)
    if wanted:
        for other in others:
            other.is_default = 0


def _recorded(
    session: Unit, caller: Caller, plugin: Plugin, row: PluginConfig, verb: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    after = rendered(row, plugin.config_schema, caller)
    shown = None if verb == "delete" else after
    audit.record(
        session, caller, f"config.{verb}", "plugin_config", row.config_id, before=before, after=shown
    )
    if plugin.app_id == caller.app_id:
        # What other tenants of a shared plugin configure is in their audit log; the history is its owner's.
        session.add(
            PluginHistory(
                plugin_id=plugin.plugin_id,
                app_id=plugin.app_id,
                action="config",
                version=plugin.version,
                outcome="done",
                detail=f"{verb} {row.config_id} ({row.scope})",
                credential_id=caller.credential_id,
                request_id=caller.request_id,
            )
        )
    return after
