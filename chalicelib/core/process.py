"""The one place that wires things: what a warm process keeps from one invocation to the next, made on first
use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from chalicelib.core.database import DatabaseService
from chalicelib.core.hotcache import HotCache
from chalicelib.core.instances import Heartbeat
from chalicelib.core.rate_limit import RateLimit
from chalicelib.core.settings import settings

if TYPE_CHECKING:
    from chalicelib.core.keys.deployment_secrets import DeploymentSecrets
    from chalicelib.core.llm.model import Llm
    from chalicelib.core.outbound.breaker import Breaker
    from chalicelib.core.outbound.client import HttpOut
    from chalicelib.core.settings import LlmSettings

# Names this execution environment in GET /api/v1/instances; a new process is a new instance.
INSTANCE_ID = uuid4().hex
FUNCTION_NAME = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")


@lru_cache(maxsize=1)
def database() -> DatabaseService:
    """Return this process's database service; nothing connects before the first statement."""
    return DatabaseService(
        settings().database_url, ca_file=settings().database_ca, iam=settings().database_iam
    )


@lru_cache(maxsize=1)
def cache() -> HotCache:
    """Return this process's hot cache."""
    return HotCache(database(), max_staleness_ms=settings().max_staleness_ms)


@lru_cache(maxsize=1)
def rate_limit() -> RateLimit:
    """Return the token buckets of this process."""
    return RateLimit(settings().rate_per_s, settings().burst)


_http: HttpOut | None = None


def http() -> HttpOut:
    """Return this process's outbound client; its import is for those that call out."""
    global _http
    if _http is None:
        from chalicelib.core.outbound.client import HttpOut

        _http = HttpOut.from_environment(os.environ)
    return _http


def use_http(replacement: HttpOut | None) -> None:
    """Let `http()` return `replacement`; None goes back to the environment's."""
    global _http
    _http = replacement


@lru_cache(maxsize=1)
def breaker() -> Breaker:
    """Return the circuit breaker of this process's calls to tools, MCP servers and whatever else apps name."""
    from chalicelib.core.outbound.breaker import Breaker
    from chalicelib.core.outbound.circuit import Policy
    from chalicelib.core.outbound.circuit_record import StoredCircuits

    policy = Policy(settings().breaker_failures, settings().breaker_cool_down_s)
    return Breaker(StoredCircuits(database(), cache()), INSTANCE_ID, policy)


_llm: Llm | None = None


def llm(app_id: int) -> Llm:
    """Return the deployment's language model as one app uses it; `NoLlm` where there is none."""
    from chalicelib.core.llm.model import NoLlm

    if _llm is not None:
        return _llm
    chosen = settings().llm
    if chosen is None:
        return NoLlm()
    if chosen.url is not None:
        return llm_at(app_id, chosen.url, chosen.model, _key_of(chosen))
    from chalicelib.core.llm.bedrock import BedrockLlm
    from chalicelib.core.llm.report import ReportedLlm

    return ReportedLlm(BedrockLlm(_bedrock, chosen.model), app_id, chosen.model)


def _key_of(chosen: LlmSettings) -> Callable[[], str | None]:
    secret = chosen.key_secret
    return (lambda: chosen.key) if secret is None else (lambda: deployment_secrets().value(secret))


@lru_cache(maxsize=1)
def deployment_secrets() -> DeploymentSecrets:
    """Return the deployment's own secrets, as this process has read them."""
    from chalicelib.core.keys.deployment_secrets import DeploymentSecrets

    return DeploymentSecrets()


def llm_at(app_id: int, url: str, model: str | None, key: Callable[[], str | None]) -> Llm:
    """Return the language model at an endpoint that an app names; see `llm.openai.OpenAiLlm`.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`
    """
    from chalicelib.core.llm.openai import OpenAiLlm
    from chalicelib.core.llm.report import ReportedLlm
    from chalicelib.core.llm.request import MAX_TIMEOUT_S
    from chalicelib.core.outbound.app_client import AppHttp

    out = AppHttp(http().patient(MAX_TIMEOUT_S), breaker(), app_id)
    return ReportedLlm(OpenAiLlm(out, url, model, key), app_id, model)


@lru_cache(maxsize=8)
def _bedrock(read_timeout_s: int) -> Any:
    # A client has one read timeout, and takes 5 ms to make.
    from chalicelib.core.llm.bedrock import bedrock_client

    return bedrock_client(read_timeout_s)


def use_llm(replacement: Llm | None) -> None:
    """Let `llm()` return `replacement` for every app; None goes back to the settings'."""
    global _llm
    _llm = replacement


@lru_cache(maxsize=1)
def heartbeat() -> Heartbeat:
    """Return the writer of this process's instance rows."""
    return Heartbeat(database())


_also_forgotten: list[Callable[[], None]] = []


def on_forget(forget_own: Callable[[], None]) -> None:
    """Let `forget` also call this, for what a domain keeps in the process."""
    _also_forgotten.append(forget_own)


def forget() -> None:
    """Close the connection and forget all of the above, so that the next use starts from the environment again:
    for a process that goes on under other settings, such as a restored snapshot or a test."""
    if database.cache_info().currsize:
        database().close()
    for made in (database, cache, rate_limit, breaker, heartbeat, _bedrock, deployment_secrets, settings):
        made.cache_clear()
    use_http(None)
    use_llm(None)
    for forget_own in _also_forgotten:
        forget_own()
