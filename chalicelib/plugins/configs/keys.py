"""The box that an app's config secrets are sealed in."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from chalicelib.core import secret_box
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import Dependency, HotCache


def box_of(database: DatabaseService, cache: HotCache, app_id: int) -> Callable[[], secret_box.SecretBox]:
    """Return what opens the app's box when it is needed: a config without secrets needs no key."""

    def read(session: Session) -> tuple[tuple[secret_box.WrappedKey, ...], list[Dependency]]:
        return secret_box.stored_keys(session, app_id), [("apps", str(app_id))]

    def box() -> secret_box.SecretBox:
        keys = cache.load(("data_keys", app_id), read)
        return secret_box.box_of(app_id, keys or secret_box.load_or_create_data_key(database, app_id))

    return box
