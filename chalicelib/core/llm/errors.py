"""How a call of a language model fails. None of these repeats what an endpoint said: it may echo the prompt."""

from __future__ import annotations

from typing import Any

from chalicelib.core.errors import Conflict, Unavailable, UpstreamFailed, UpstreamTimeout

# Where the endpoint does not say when to come back.
RETRY_AFTER_S = 2
MAX_RETRY_AFTER_S = 3600


def not_configured(detail: str) -> Conflict:
    return Conflict(detail, code="llm.not_configured")


def failed(detail: str, status: int | None = None, reason: str | None = None) -> UpstreamFailed:
    """Return the error of an endpoint that will fail again.

    Parameters
    ----------
    status
        Of its answer, where there was one.
    reason
        Its code of the failure, if it is one of those that are known.
    """
    return UpstreamFailed(detail, code="llm.failed", extensions=_upstream(status, reason))


def unavailable(
    detail: str, retry_after_s: float | None = None, status: int | None = None, reason: str | None = None
) -> Unavailable:
    """Return the error of an endpoint that may answer later; the parameters as in `failed`."""
    wait_s = RETRY_AFTER_S if retry_after_s is None else min(int(retry_after_s), MAX_RETRY_AFTER_S)
    return Unavailable(
        detail, code="llm.unavailable", extensions=_upstream(status, reason), retry_after=max(1, wait_s)
    )


def timed_out() -> UpstreamTimeout:
    return UpstreamTimeout("The language model did not answer in time.", code="llm.timeout")


def refused() -> UpstreamFailed:
    return UpstreamFailed("The language model declined to answer.", code="llm.refused")


def invalid_answer(reason: str) -> UpstreamFailed:
    return UpstreamFailed(f"The language model's answer cannot be used: {reason}.", code="llm.invalid_answer")


def _upstream(status: int | None, reason: str | None) -> dict[str, Any]:
    if status is None:
        return {}
    return {"upstream": {"status": status} | ({"reason": reason} if reason else {})}
