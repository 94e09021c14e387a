"""The outbound client as one app uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chalicelib.core.outbound.breaker import Breaker
    from chalicelib.core.outbound.client import HttpOut, OutResponse
    from chalicelib.core.outbound.retry import Repeat


@dataclass(frozen=True)
class AppHttp:
    """Calls on behalf of an app: a host that keeps failing this app is left alone for a while."""

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
        repeat: Repeat | None = None,
    ) -> OutResponse:
        """Send one request; see `HttpOut.request` and `Breaker.call` for what it takes and raises."""
        return self.breaker.call(
            self.app_id,
            url,
            lambda: self.http.request(
                method,
                url,
                headers=headers,
                body=body,
                timeout_s=timeout_s,
                retries=retries,
                repeat=repeat,
            ),
        )
