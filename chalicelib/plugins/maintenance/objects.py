"""Objects of the bucket that no row names: what a killed or refused registration left behind.

An object is placed before the row that names it is committed. So only one that is older than any function runs may be
called an orphan, and each is looked up once more right before it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.jobs import Action, Plan
from chalicelib.core.steps import step
from chalicelib.core.storage import ObjectVersion, Storage
from chalicelib.plugins.maintenance.context import Context
from chalicelib.plugins.models import PluginVersion

PLUGINS, COMPILED = "plugins/", "compiled/"
# Ids of one look-up: a statement of more than 15 KB would pin a proxied session.
LOOKED_UP = 100
# A key may have any number of versions; a window ends inside one rather than grow without bound.
MOST_OF_A_KEY = 4

Name = tuple[str, str]


@dataclass(frozen=True)
class Window:
    """A piece of a listing, and the key after which the next one begins; None where the listing ended."""

    versions: tuple[ObjectVersion, ...]
    cursor: str | None


def window(storage: Storage, prefix: str, after: str | None, limit: int) -> Window:
    """Return about `limit` object versions under `prefix`, complete keys where that is possible."""
    found: list[ObjectVersion] = []
    for version in storage.list_versions(prefix, start_after=after):
        full = len(found) >= limit and version.key != found[-1].key
        if full or len(found) >= MOST_OF_A_KEY * limit:
            return Window(tuple(found), found[-1].key)
        found.append(version)
    return Window(tuple(found), None)


def in_turns(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Yield `items` in pieces of `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def named(session: Session, names: Iterable[Name]) -> set[Name]:
    """Return those (key, version id) under plugins/ and compiled/ that a version row names."""
    asked = list(names)
    plugin_ids = sorted({_owner(key) for key, _ in asked if key.startswith(PLUGINS)})
    digests = sorted({_owner(key) for key, _ in asked if key.startswith(COMPILED)})
    found: set[Name] = set()
    for some in in_turns(plugin_ids, LOOKED_UP):
        packages = select(PluginVersion.s3_path, PluginVersion.s3_version)
        found |= {
            (path, version)
            for path, version in session.execute(packages.where(PluginVersion.plugin_id.in_(some)))
        }
    for some in in_turns(digests, LOOKED_UP):
        modules = select(PluginVersion.compiled_path, PluginVersion.compiled_version)
        rows = session.execute(modules.where(PluginVersion.wasm_sha256.in_(some)))
        found |= {(path, version) for path, version in rows if path is not None and version is not None}
    return found & set(asked)


def _owner(key: str) -> str:
    """Return what indexes the rows that may name a key: its plugin id, or the digest of its module."""
    return key.split("/")[1]


def plan_orphans(context: Context, operation: str, state: Mapping[str, Any], limit: int) -> Plan:
    """Plan the deletion of orphans in the next window of each of the two listings.

    Parameters
    ----------
    operation
        Whose step `delete_orphan` is reached before each deletion.
    state
        The listings' cursors; the new ones are the plan's state.
    limit
        Object versions of each listing.
    """
    old = context.now() - context.orphan_age
    actions: list[Action] = []
    cursors: dict[str, Any] = {}
    for prefix in (PLUGINS, COMPILED):
        seen = window(context.storage, prefix, state.get(prefix), limit)
        cursors[prefix] = seen.cursor
        aged = [one for one in seen.versions if one.last_modified < old]
        with context.database.reads() as session:
            kept = named(session, [(one.key, one.version_id) for one in aged])
        actions += [
            Action("delete_orphan", f"{one.key}@{one.version_id}", _delete_orphan(context, operation, one))
            for one in aged
            if (one.key, one.version_id) not in kept
        ]
    return Plan(tuple(actions), cursors, more=any(cursors.values()))


def _delete_orphan(context: Context, operation: str, found: ObjectVersion) -> Callable[[], bool]:
    def work() -> bool:
        delete_unnamed(context, operation, "delete_orphan", [(found.key, found.version_id)])
        return False

    return work


def delete_unnamed(context: Context, operation: str, name: str, objects: Iterable[Name]) -> None:
    """Delete the object versions that no row names any more."""
    asked = list(objects)
    with context.database.reads() as session:
        kept = named(session, asked)
    for key, version_id in asked:
        if (key, version_id) not in kept:
            step(operation, name)
            context.storage.delete(key, version_id)
