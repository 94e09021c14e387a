"""What the tool domain works with: the services of one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.core import process
from chalicelib.core.breaker import Breaker
from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.http_out import HttpOut, OutResponse
from chalicelib.tools.authorization import Tokens


@dataclass(frozen=True)
class AppHttp:
    """The outbound client as one app uses it: a host that keeps failing this app is left alone for a while."""

    http: HttpOut
    breaker: Breaker
    app_id: int

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
    ) -> OutResponse:
        """Send one request; see `HttpOut.request` and `Breaker.call` for what it takes and raises."""
        return self.breaker.call(
            self.app_id,
            url,
            lambda: self.http.request(
                method, url, headers=headers, body=body, timeout_s=timeout_s, retries=retries
            ),
        )


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
