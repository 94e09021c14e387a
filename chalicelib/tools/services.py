"""What the tool domain works with: the services of one process."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.outbound.app_client import AppHttp
from chalicelib.core.outbound.breaker import Breaker
from chalicelib.core.outbound.client import HttpOut
from chalicelib.tools.tokens import Tokens


@dataclass(frozen=True)
class Services:
    """Handed in, so that a test hands in others that keep the same protocols."""

    database: DatabaseService
    cache: HotCache
    http: HttpOut
    breaker: Breaker
    tokens: Tokens

    def http_of(self, app_id: int) -> AppHttp:
        """Return the outbound client for calls on behalf of an app."""
        return AppHttp(self.http, self.breaker, app_id)


_TOKENS = Tokens()


def tool_services() -> Services:
    """Return the services of this process; what `process.forget` forgets is forgotten here too."""
    return Services(process.database(), process.cache(), process.http(), process.breaker(), _TOKENS)
