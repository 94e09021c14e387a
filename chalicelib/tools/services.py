"""What the tool domain works with: the services of one process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.http_out import HttpOut, OutResponse
from chalicelib.tools.authorization import Tokens


class Http(Protocol):
    """The outbound client as one app uses it; see `core.http_out.HttpOut.request`."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
    ) -> OutResponse: ...


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols."""

    database: DatabaseService
    cache: HotCache
    http: HttpOut
    tokens: Tokens

    def http_of(self, app_id: int) -> Http:
        """Return the outbound client for calls on behalf of an app."""
        return self.http


@lru_cache(maxsize=1)
def _http() -> HttpOut:
    return HttpOut.from_environment(os.environ)


_TOKENS = Tokens()


def tool_services() -> Services:
    """Return the services of this process; what `process.forget` forgets is forgotten here too."""
    return Services(process.database(), process.cache(), _http(), _TOKENS)
