"""Every setting, read once from the environment. docs/operations.md lists them with their defaults."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

VERSION = "0.1.0"
ONE_MIB = 1024 * 1024

# An API call ends after 29 s at the gateway: a load must leave time for the answer.
LOAD_TIMEOUT_CEILING_S = 25
_ORIGIN = r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


LLM_PROVIDERS = ("openai", "bedrock")


@dataclass(frozen=True)
class LlmSettings:
    """The deployment's own language model.

    Parameters
    ----------
    url
        Base of the chat completions; None with Bedrock, whose endpoint is the region's.
    key_secret
        Instead of the key: the name or ARN of the secret that is the key.
    """

    provider: str
    model: str
    url: str | None
    key: str | None = field(repr=False)
    key_secret: str | None = None


@dataclass(frozen=True)
class Settings:
    """What a deployment decides. Sizes are bytes and times seconds unless the name says otherwise.

    Raises
    ------
    ValueError
        From `from_environment`, naming every setting that does not hold: a function with a bad setting must
        not start, rather than run with a guess.
    """

    # Holds a password: a log line that prints the settings must not show it.
    database_url: str = field(repr=False)
    database_ca: str | None
    # Sign in with tokens of the function's role.
    database_iam: bool
    bucket: str
    install_queue_url: str | None
    runtime_function: str
    runtime_network_function: str
    key_file: str | None
    kms_key_id: str | None
    local_cache_dir: str
    max_staleness_ms: int
    rate_per_s: float
    burst: int
    # Consecutive failures of a host that open its circuit, and seconds in which it then is left alone.
    breaker_failures: int
    breaker_cool_down_s: float
    max_plugin_size: int
    load_timeout_s: int
    # How old an object that no row names must be before it is deleted: longer than any function runs.
    orphan_age_s: int
    signature_policy: str
    enable_market: bool
    # Web origins whose pages may speak MCP to this deployment.
    allowed_origins: frozenset[str]
    llm: LlmSettings | None
    # Runs of one app at the same time.
    max_runs: int
    # Of the function that durable runs are executed by, with the alias that it is invoked through.
    run_function: str
    log_level: str

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        problems: list[str] = []

        def number(name: str, default: float, low: float, high: float) -> float:
            text = env.get(name, "")
            try:
                value = float(text) if text else default
            except ValueError:
                problems.append(f"{name} is not a number")
                return default
            if not low <= value <= high:
                problems.append(f"{name} must lie between {low:g} and {high:g}")
                return default
            return value

        def whole(name: str, default: int, low: int, high: int) -> int:
            value = number(name, default, low, high)
            if value != int(value):
                problems.append(f"{name} must be a whole number")
            return int(value)

        log_level = env.get("HOTPLUG_LOG_LEVEL") or "INFO"
        if log_level not in LOG_LEVELS:
            problems.append(f"HOTPLUG_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
        policy = env.get("HOTPLUG_SIGNATURE_POLICY") or "none"
        if policy != "none":
            problems.append(
                "HOTPLUG_SIGNATURE_POLICY: this release verifies no signatures yet; only `none` is accepted"
            )
        if env.get("HOTPLUG_ENABLE_MARKET", "0") not in ("", "0"):
            problems.append("HOTPLUG_ENABLE_MARKET: this release has no market yet; only `0` is accepted")
        settings = cls(
            database_url=_database_url(env, problems),
            database_ca=env.get("HOTPLUG_DATABASE_CA") or None,
            database_iam=_database_iam(env, problems),
            bucket=env.get("HOTPLUG_BUCKET") or "hotplug",
            install_queue_url=env.get("HOTPLUG_INSTALL_QUEUE_URL") or None,
            runtime_function=env.get("HOTPLUG_RUNTIME_FUNCTION") or "runtime",
            runtime_network_function=env.get("HOTPLUG_RUNTIME_NETWORK_FUNCTION") or "runtime_network",
            key_file=env.get("HOTPLUG_KEY_FILE") or None,
            kms_key_id=env.get("HOTPLUG_KMS_KEY_ID") or None,
            local_cache_dir=env.get("HOTPLUG_LOCAL_CACHE_DIR")
            or os.path.join(tempfile.gettempdir(), "hotplug"),
            max_staleness_ms=whole("HOTPLUG_MAX_STALENESS_MS", 0, 0, 3_600_000),
            rate_per_s=number("HOTPLUG_RATE", 50, 0.1, 1_000_000),
            burst=whole("HOTPLUG_BURST", 100, 1, 1_000_000),
            breaker_failures=whole("HOTPLUG_BREAKER_FAILURES", 5, 1, 1000),
            breaker_cool_down_s=number("HOTPLUG_BREAKER_COOL_DOWN", 30, 0.1, 3600),
            max_plugin_size=int(number("HOTPLUG_MAX_PLUGIN_SIZE", 100, 1, 2048) * ONE_MIB),
            load_timeout_s=whole("HOTPLUG_LOAD_TIMEOUT", 20, 1, LOAD_TIMEOUT_CEILING_S),
            orphan_age_s=whole("HOTPLUG_ORPHAN_AGE", 600, 0, 86_400),
            signature_policy=policy,
            enable_market=False,
            max_runs=whole("HOTPLUG_MAX_RUNS", 20, 1, 10_000),
            run_function=env.get("HOTPLUG_RUN_FUNCTION") or "run",
            allowed_origins=_origins(env.get("HOTPLUG_ALLOWED_ORIGINS") or "", problems),
            llm=_llm(env, problems),
            log_level=log_level,
        )
        if problems:
            raise ValueError("; ".join(problems))
        return settings


def _origins(text: str, problems: list[str]) -> frozenset[str]:
    """Read a list of origins as browsers write them (RFC 6454 §6.2): scheme, host, port, nothing else."""
    origins = text.replace(",", " ").split()
    if any(not re.fullmatch(_ORIGIN, origin) for origin in origins):
        problems.append("HOTPLUG_ALLOWED_ORIGINS must list origins such as https://app.example.com")
    return frozenset(origins)


def _llm(env: Mapping[str, str], problems: list[str]) -> LlmSettings | None:
    provider, model = env.get("HOTPLUG_LLM_PROVIDER") or "openai", env.get("HOTPLUG_LLM_MODEL") or ""
    url, key = env.get("HOTPLUG_LLM_URL") or None, env.get("HOTPLUG_LLM_KEY") or None
    key_secret = env.get("HOTPLUG_LLM_KEY_SECRET") or None
    if not (env.get("HOTPLUG_LLM_PROVIDER") or model or url or key or key_secret):
        return None
    from chalicelib.core.llm.request import is_key, is_model

    if provider not in LLM_PROVIDERS:
        problems.append(f"HOTPLUG_LLM_PROVIDER must be one of {', '.join(LLM_PROVIDERS)}")
    if not is_model(model):
        problems.append("HOTPLUG_LLM_MODEL must name a model in 1 to 256 printable characters")
    if provider == "bedrock" and (url or key or key_secret):
        problems.append(
            "HOTPLUG_LLM_URL, HOTPLUG_LLM_KEY and HOTPLUG_LLM_KEY_SECRET are not for Bedrock, which is called with "
            "the role"
        )
    if key and key_secret:
        problems.append("HOTPLUG_LLM_KEY and HOTPLUG_LLM_KEY_SECRET exclude each other")
    if provider == "openai" and not _is_base_url(url or ""):
        problems.append("HOTPLUG_LLM_URL must be a URL such as https://api.openai.com/v1")
    if key and not is_key(key):
        problems.append("HOTPLUG_LLM_KEY must be 1 to 4096 visible ASCII characters")
    return LlmSettings(provider, model, url, key, key_secret)


def _is_base_url(text: str) -> bool:
    # The runtime functions, which have no model, start without these parsers.
    from chalicelib.core.errors import Invalid
    from chalicelib.core.outbound.addresses import parse_url

    try:
        parse_url(text)
    except Invalid:
        return False
    return True


def _database_iam(env: Mapping[str, str], problems: list[str]) -> bool:
    auth = env.get("HOTPLUG_DATABASE_AUTH") or "password"
    if auth not in ("password", "iam"):
        problems.append("HOTPLUG_DATABASE_AUTH must be password or iam")
    if auth == "iam" and not env.get("HOTPLUG_DATABASE_URL", "mysql").startswith("mysql"):
        problems.append("HOTPLUG_DATABASE_AUTH=iam is for MySQL on RDS")
    return auth == "iam"


def _database_url(env: Mapping[str, str], problems: list[str]) -> str:
    if url := env.get("HOTPLUG_DATABASE_URL"):
        if not url.startswith(("sqlite:///", "mysql+pymysql://")):
            problems.append("HOTPLUG_DATABASE_URL must begin with mysql+pymysql:// or sqlite:///")
        return url
    if host := env.get("MYSQL_HOST"):
        from sqlalchemy import URL

        port_text = env.get("MYSQL_PORT") or "3306"
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
        if not 1 <= port <= 65535:
            problems.append("MYSQL_PORT must be a port number")
        url_object = URL.create(
            "mysql+pymysql",
            env.get("MYSQL_USER", "hotplug"),
            env.get("MYSQL_PASSWORD"),
            host,
            port,
            env.get("MYSQL_DB", "hotplug"),
        )
        return url_object.render_as_string(hide_password=False)
    problems.append("HOTPLUG_DATABASE_URL (or MYSQL_HOST) is not set")
    return ""


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return this process's settings, read on first use."""
    return Settings.from_environment(os.environ)
