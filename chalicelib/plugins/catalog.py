"""Finding plugins: one by id on the hot cache, and the paged lists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, ColumnElement, Select, Table, func, or_, select
from sqlalchemy.orm import Session

from chalicelib.core.caller import Caller
from chalicelib.core.errors import Forbidden, NotFound
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.paging import Page, list_page
from chalicelib.core.representation import entity_tag
from chalicelib.core.rows import part_of
from chalicelib.plugins import rendering
from chalicelib.plugins.models import ENABLED, Plugin, PluginHistory, PluginVersion

SHARED = "shared"
# Tables where the models would do: the first use of any model configures all of them, which a cold read need not wait
# for.
_PLUGIN, _VERSION = cast(Table, Plugin.__table__), cast(Table, PluginVersion.__table__)


@dataclass(frozen=True)
class Registration:
    """A plugin's active registration as warm functions keep it; shared between requests, so never changed."""

    plugin_id: str
    app_id: int
    visibility: str
    enabled: bool
    version: str
    checksum: str
    size: int
    runtime: str
    entry_point: str
    s3_path: str
    s3_version: str
    compiled_engine: str | None
    compiled_path: str | None
    compiled_version: str | None
    compiled_sha256: str | None
    compiled_size: int | None
    granted_hosts: tuple[str, ...]
    resource: dict[str, Any]

    @cached_property
    def etag(self) -> str:
        """The resource's entity tag, taken once: it is a third of what a warm read adds to its round trip."""
        return entity_tag(self.resource)

    def visible_to(self, caller: Caller) -> bool:
        """True for the owner, and for everyone where the plugin is shared."""
        return self.app_id == caller.app_id or self.visibility == SHARED


def find(cache: HotCache, caller: Caller, plugin_id: str) -> Registration:
    """Return a plugin that the caller may see, from memory where it is warm.

    Raises
    ------
    errors.NotFound
        Also for another tenant's private plugin: its existence is nobody else's business.
    """
    found = cache.load(("plugin", plugin_id), lambda session: _read(session, plugin_id))
    if found is None or not found.visible_to(caller):
        raise not_found()
    return found


def not_found() -> NotFound:
    """Return the 404 for a plugin."""
    return NotFound("There is no such plugin.", code="plugin.not_found")


def _read(session: Session, plugin_id: str) -> tuple[Registration | None, list[Dependency]]:
    row = session.execute(
        select(_PLUGIN, _VERSION)
        .join(
            _VERSION,
            (_VERSION.c.plugin_id == _PLUGIN.c.plugin_id) & (_VERSION.c.version == _PLUGIN.c.version),
        )
        .where(_PLUGIN.c.plugin_id == plugin_id)
        .set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
    ).one_or_none()
    if row is None:
        return None, [("plugins", "*")]
    plugin, version = cast(Plugin, part_of(row, _PLUGIN)), cast(PluginVersion, part_of(row, _VERSION))
    return registration(plugin, version), [("plugins", plugin_id)]


def registration(plugin: Plugin, version: PluginVersion) -> Registration:
    """Return what warm functions keep of a plugin and one of its versions, the active one or a candidate."""
    resource = rendering.detail(plugin)
    if version.version != plugin.version:
        manifest = version.manifest
        resource |= {
            "manifest": manifest,
            "configSchema": manifest.get("configSchema"),
            "defaultConfig": manifest.get("defaultConfig"),
        }
    return Registration(
        plugin_id=plugin.plugin_id,
        app_id=plugin.app_id,
        visibility=plugin.visibility,
        enabled=plugin.is_enabled == ENABLED,
        version=version.version,
        checksum=version.checksum,
        size=version.size,
        runtime=version.runtime,
        entry_point=version.manifest["entryPoint"],
        s3_path=version.s3_path,
        s3_version=version.s3_version,
        compiled_engine=version.compiled_engine,
        compiled_path=version.compiled_path,
        compiled_version=version.compiled_version,
        compiled_sha256=version.compiled_sha256,
        compiled_size=version.compiled_size,
        granted_hosts=_hosts(plugin, version),
        resource=resource,
    )


def _hosts(plugin: Plugin, version: PluginVersion) -> tuple[str, ...]:
    """Return what this version asks for and an admin granted: a grant that stands ready for a later version gives an
    earlier one nothing."""
    granted = plugin.grants.get("network", [])
    return tuple(host for host in rendering.requested_hosts(version.manifest) if host in granted)


def owned(session: Session, caller: Caller, plugin_id: str, *, lock: bool = False) -> Plugin:
    """Return a plugin of the caller's own app, its row locked on demand.

    Raises
    ------
    errors.NotFound, errors.Forbidden
        403 for a shared plugin of another app, which the caller can see but must not change.
    """
    query = select(Plugin).where(Plugin.plugin_id == plugin_id)
    plugin = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if plugin is None or (plugin.app_id != caller.app_id and plugin.visibility != SHARED):
        raise not_found()
    if plugin.app_id != caller.app_id:
        raise Forbidden("Only the app that owns a plugin may change it.", code="plugin.not_owner")
    return plugin


def visible(caller: Caller) -> ColumnElement[bool]:
    """Return the condition for plugins that a caller may see."""
    return or_(*_own_or_shared(caller))


def _own_or_shared(caller: Caller) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Plugin.app_id == caller.app_id, Plugin.visibility == SHARED


def list_plugins(
    session: Session,
    caller: Caller,
    page: Page,
    *,
    plugin_type: str | None = None,
    status: int | None = None,
    source: str | None = None,
    q: str | None = None,
    updated_since: datetime | None = None,
) -> dict[str, Any]:
    """Return a page of the plugins that the caller sees, newest first."""
    query: Select[Any] = select(Plugin)
    if plugin_type is not None:
        query = query.where(Plugin.plugin_type == plugin_type)
    if status is not None:
        query = query.where(Plugin.is_enabled == status)
    if source is not None:
        query = query.where(Plugin.source == source)
    if updated_since is not None:
        query = query.where(Plugin.update_time >= updated_since)
    if q is not None:
        needle = q.lower()
        query = query.where(
            or_(
                func.lower(Plugin.name).contains(needle, autoescape=True),
                func.lower(Plugin.description).contains(needle, autoescape=True),
            )
        )
    own, shared = _own_or_shared(caller)
    ways = [(own, _index(plugin_type, status, source)), (shared, "ix_t_plugin_visibility")]
    return list_page(session, query, page, [Plugin.id], rendering.summary, any_of=ways)


def _index(plugin_type: str | None, status: int | None, source: str | None) -> str:
    """Return the index that leads to an app's own plugins by one of the filters, in the order of the listing."""
    if plugin_type is not None:
        return "ix_t_plugin_type"
    if status is not None:
        return "idx_plugin_status"
    return "idx_plugin_source" if source is not None else "ix_t_plugin_app"


def list_versions(session: Session, caller: Caller, found: Registration, page: Page) -> dict[str, Any]:
    """Return a page of a plugin's versions, newest first."""
    own = found.app_id == caller.app_id
    query = select(PluginVersion).where(PluginVersion.plugin_id == found.plugin_id)
    return list_page(
        session,
        query,
        page,
        [PluginVersion.id],
        lambda row: rendering.version(row, found.version, own=own),
        large=True,
    )


def version_row(session: Session, plugin_id: str, version: str) -> PluginVersion | None:
    """Return the row of one version, None where there is none."""
    return session.scalars(
        select(PluginVersion).where(PluginVersion.plugin_id == plugin_id, PluginVersion.version == version)
    ).one_or_none()


def read_version(session: Session, found: Registration, version: str) -> PluginVersion:
    """Return one version of a plugin.

    Raises
    ------
    errors.NotFound
    """
    row = version_row(session, found.plugin_id, version)
    if row is None:
        raise NotFound("The plugin has no such version.", code="plugin.version_not_found")
    return row


def get_version(session: Session, caller: Caller, found: Registration, version: str) -> dict[str, Any]:
    """Return the resource of one version of a plugin."""
    own = found.app_id == caller.app_id
    return rendering.version(read_version(session, found, version), found.version, own=own)


def list_history(session: Session, caller: Caller, found: Registration, page: Page) -> dict[str, Any]:
    """Return a page of what was done to a plugin, newest first.

    Other tenants of a shared plugin see what became of it, not by whom, nor how its owner configures it.
    """
    own = found.app_id == caller.app_id
    query = select(PluginHistory).where(PluginHistory.plugin_id == found.plugin_id)
    if not own:
        query = query.where(PluginHistory.action != "config")
    return list_page(session, query, page, [PluginHistory.id], lambda row: rendering.history(row, own=own))
