"""The one configuration that is in force for a plugin, merged from those that are stored per scope.

Scopes: `global` (the owner's admins, for everyone who runs the plugin), `app`, `user` (a subject within an app). At
each scope at most one config is the default; the others apply only when they are named. What writes them is
`store`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, Invalid
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.keys.app_box import box_of
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.configs import secrets
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.configs.scopes import APP, GLOBAL, SCOPES, USER, find, not_found, scope_id
from chalicelib.plugins.configs.validation import schema_of, violations_of
from chalicelib.plugins.models import Plugin


@dataclass(frozen=True)
class _Layer:
    """One stored config, as the hot cache keeps it: its secrets are ciphertext."""

    app_id: int
    config_id: str
    items: dict[str, Any]


@dataclass(frozen=True)
class _Stored:
    """The configs that apply, the widest scope first, and the plugin's generation right after they were read (None:
    it was gone)."""

    layers: tuple[_Layer, ...]
    generation: str | None


def resolve(
    database: DatabaseService,
    cache: HotCache,
    found: Registration,
    *,
    app_id: int,
    subject: str | None,
    config_id: str | None,
    kept: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the configuration in force, secrets in the clear: for the runtime, not to be kept. Not inside a unit.

    The plugin's defaultConfig, under the defaults of global, app and user scope, merged by top-level key. A named
    config stands in its scope in place of the default, and narrower scopes do not apply.

    Parameters
    ----------
    subject
        On whose behalf the plugin runs, None for nobody.
    config_id
        The config to use, None for the defaults.
    kept
        A snapshot whose values count instead of the stored ones, as they will once it is restored.

    Raises
    ------
    errors.NotFound
        `config.not_found`: no such config of this app, nor a global one.
    errors.Invalid
        `config.incomplete`: what is in force does not satisfy the configSchema.
    errors.Conflict
        `plugin.changed`: `found` is over, and the configs are of a later state. The cache is refreshed by then.
    """
    config: dict[str, Any] = copy.deepcopy(found.resource["defaultConfig"] or {})
    then = {one["configId"]: one["items"] for one in kept or ()}
    for layer in _layers_of(cache, found, app_id, subject, config_id):
        place = (found.plugin_id, layer.config_id)
        items = then.get(layer.config_id, layer.items)
        config.update(secrets.revealed(items, place, box_of(database, cache, layer.app_id)))
    _check_complete(cache, found, config, (app_id, subject, config_id))
    return config


def _check_complete(
    cache: HotCache, found: Registration, config: dict[str, Any], who: tuple[Any, ...]
) -> None:
    # Checked once per state of the plugin and its configs; every change of either drops the mark.
    name = ("plugin_config_complete", found.plugin_id, found.version, found.checksum, *who)
    if cache.get(name):
        return
    stamp = cache.stamp()
    problems = violations_of(schema_of(found), config, "/config")
    if problems:
        raise Invalid("The plugin's configuration is incomplete.", code="config.incomplete", errors=problems)
    cache.put(name, True, [("plugins", found.plugin_id)], stamp)


def _layers_of(
    cache: HotCache, found: Registration, app_id: int, subject: str | None, config_id: str | None
) -> tuple[_Layer, ...]:
    """Return the configs that apply to this very state of the plugin: a new config was made for the version that is
    active now, and must not reach the one before it."""
    stored = _stored(cache, found.plugin_id, app_id, subject, config_id)
    if stored.generation != found.resource["generation"]:
        cache.refresh()
        stored = _stored(cache, found.plugin_id, app_id, subject, config_id)
    if stored.generation != found.resource["generation"]:
        raise Conflict("The plugin was changed meanwhile; try again.", code="plugin.changed", retry_after=1)
    return stored.layers


def _stored(
    cache: HotCache, plugin_id: str, app_id: int, subject: str | None, config_id: str | None
) -> _Stored:
    def read(session: Session) -> tuple[_Stored | None, list[Dependency]]:
        named = None
        if config_id is not None:
            named = find(session, app_id, plugin_id, config_id)
            if named is None:
                return None, [("plugins", plugin_id)]
        rows = session.scalars(
            select(PluginConfig).where(
                PluginConfig.plugin_id == plugin_id,
                PluginConfig.is_default == 1,
                _applying(app_id, subject, named),
            )
        ).all()
        chosen = {row.scope: row for row in rows}
        if named is not None:
            chosen[named.scope] = named
        ordered = [chosen[scope] for scope in SCOPES if scope in chosen]
        layers = tuple(_Layer(row.app_id, row.config_id, row.config_items) for row in ordered)
        generation = session.scalar(select(Plugin.generation).where(Plugin.plugin_id == plugin_id))
        return _Stored(layers, None if generation is None else str(generation)), [("plugins", plugin_id)]

    stored = cache.load(("plugin_configs", plugin_id, app_id, subject, config_id), read)
    if stored is None:
        raise not_found()
    return stored


def _applying(app_id: int, subject: str | None, named: PluginConfig | None) -> ColumnElement[bool]:
    """Return the condition for default configs that apply: beneath a named one, wider scopes alone."""
    of_app = and_(PluginConfig.scope == APP, PluginConfig.scope_id == str(app_id))
    of_user = and_(PluginConfig.scope == USER, PluginConfig.scope_id == scope_id(USER, app_id, subject))
    conditions = [PluginConfig.scope == GLOBAL, of_app, of_user if subject is not None else None]
    depth = SCOPES.index(named.scope) if named is not None else len(SCOPES)
    return or_(*(condition for condition in conditions[: depth + 1] if condition is not None))
