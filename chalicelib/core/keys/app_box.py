"""The box of an app by way of the hot cache: what a warm function opens secrets with, without a statement."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.core.keys import data_keys
from chalicelib.core.keys.master_keys import WrappedKey
from chalicelib.core.keys.secret_box import SecretBox


def box_of(database: DatabaseService, cache: HotCache, app_id: int) -> Callable[[], SecretBox]:
    """Return what opens the app's box when it is needed: what holds no secret needs no key."""

    def read(session: Session) -> tuple[tuple[WrappedKey, ...], list[Dependency]]:
        return data_keys.stored_keys(session, app_id), [("apps", str(app_id))]

    def box() -> SecretBox:
        keys = cache.load(("data_keys", app_id), read)
        return data_keys.box_of(app_id, keys or data_keys.load_or_create_data_key(database, app_id))

    return box
