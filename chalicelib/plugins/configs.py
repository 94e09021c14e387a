"""The one configuration that is in force for a plugin, merged from those that are stored per scope.

Scopes: `global` (the owner's admins, for everyone who runs the plugin), `app`, `user` (a subject within an app). At
each scope at most one config is the default; the others apply only when they are named. What writes them is
`config_store`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from chalicelib.core import secret_box
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, Invalid, NotFound, Violation
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.plugins import config_crypto
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.models import Plugin, PluginConfig

GLOBAL, APP, USER = "global", "app", "user"
# From the widest to the narrowest.
SCOPES = (GLOBAL, APP, USER)
# At most 100 characters (scope_id, of 128, holds the app as well), and no blank at either end: MariaDB's collations
# call 'u1' and 'u1 ' equal, and one subject would get the other's secrets.
SUBJECT_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,98}[^\s\x00-\x1f\x7f])?$"
# Violations of stored configs against a new schema that one answer names.
MAX_REPORTED = 100


# -- what is in force ----------------------------------------------------------------------------------------------


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
        A `snapshot` whose values count instead of the stored ones, as they will after its `restore`.

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
        config.update(config_crypto.revealed(items, place, box_of(database, cache, layer.app_id)))
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
            named = one(session, app_id, plugin_id, config_id)
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


def scope_id(scope: str, app_id: int, subject: str | None) -> str:
    """Return what a scope's configs are filed under. A subject is named by an app, so the app comes with it: two
    tenants of a shared plugin may both have a user "1"."""
    return {GLOBAL: "", APP: str(app_id), USER: f"{app_id}:{subject}"}[scope]


def box_of(database: DatabaseService, cache: HotCache, app_id: int) -> Callable[[], secret_box.SecretBox]:
    """Return what opens the app's box when it is needed: a config without secrets needs no key."""

    def read(session: Session) -> tuple[tuple[secret_box.WrappedKey, ...], list[Dependency]]:
        return secret_box.stored_keys(session, app_id), [("apps", str(app_id))]

    def box() -> secret_box.SecretBox:
        keys = cache.load(("data_keys", app_id), read)
        return secret_box.box_of(app_id, keys or secret_box.load_or_create_data_key(database, app_id))

    return box


def schema_of(found: Registration) -> Any:
    """Return a plugin's configSchema; one that declares none takes any values."""
    return found.resource["configSchema"]


def violations_of(schema: Any, values: Any, pointer: str, *, partial: bool = False) -> list[Violation]:
    """Return what is wrong with values. jsonschema costs 126 ms of import, too much for a plugin that has
    no schema."""
    if schema is None:
        return []
    from chalicelib.core.schemas import violations

    return violations(schema, values, pointer, partial=partial)


# -- rows ------------------------------------------------------------------------------------------------------------


def not_found() -> NotFound:
    """Return the 404 for a config."""
    return NotFound("There is no such config.", code="config.not_found")


def seen_by(app_id: int) -> ColumnElement[bool]:
    return or_(PluginConfig.app_id == app_id, PluginConfig.scope == GLOBAL)


def one(
    session: Session, app_id: int, plugin_id: str, config_id: str, *, lock: bool = False
) -> PluginConfig | None:
    query = select(PluginConfig).where(
        PluginConfig.config_id == config_id, PluginConfig.plugin_id == plugin_id, seen_by(app_id)
    )
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


# -- when the plugin's version changes -------------------------------------------------------------------------------


def violations_against(session: Session, plugin_id: str, schema: Any) -> list[Violation]:
    """Return what stored configs break of a new configSchema, at most 100; pointers begin with /configs/{configId}.

    Nothing is decrypted: of a secret only its JSON type is judged, and alternatives that hang on one are left to the
    check before an execution.
    """
    found: list[Violation] = []
    rows = session.scalars(
        select(PluginConfig).where(PluginConfig.plugin_id == plugin_id).order_by(PluginConfig.id)
    )
    for row in rows:
        prefix = f"/configs/{row.config_id}"
        places = [prefix + pointer for pointer in row.config_items["secrets"]]
        broken = violations_of(schema, config_crypto.opaque(row.config_items), prefix, partial=True)
        found += [problem for problem in broken if not _hangs_on_secret(problem, places)]
        if len(found) >= MAX_REPORTED:
            break
    return found[:MAX_REPORTED]


def _hangs_on_secret(problem: Violation, places: list[str]) -> bool:
    for place in places:
        if problem.pointer == place:
            return problem.rule != "schema.type"
        if problem.pointer.startswith(f"{place}/"):
            return True
        if place.startswith(f"{problem.pointer}/") and problem.rule in (
            "schema.anyOf",
            "schema.oneOf",
            "schema.not",
        ):
            return True
    return False


def snapshot(session: Session, plugin_id: str) -> list[dict[str, Any]]:
    """Return the values of a plugin's configs as they are stored, secrets sealed, to be kept with a version."""
    rows = session.scalars(
        select(PluginConfig).where(PluginConfig.plugin_id == plugin_id).order_by(PluginConfig.id)
    )
    return [{"configId": row.config_id, "items": row.config_items} for row in rows]


def restore(session: Session, plugin_id: str, kept: list[dict[str, Any]]) -> None:
    """Give a plugin's configs the values of a snapshot.

    Configs that were deleted since stay deleted (a withdrawn secret must not come back), those that were added since
    stay as they are.
    """
    values = {one["configId"]: one["items"] for one in kept}
    for row in session.scalars(select(PluginConfig).where(PluginConfig.plugin_id == plugin_id)):
        if row.config_id in values:
            row.config_items = values[row.config_id]
