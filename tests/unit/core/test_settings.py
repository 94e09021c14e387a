from __future__ import annotations

import pytest
from sqlalchemy.engine import make_url

from chalicelib.core.settings import LlmSettings, Settings

URL = {"HOTPLUG_DATABASE_URL": "sqlite:////tmp/hotplug.db"}


def test_defaults_need_nothing_but_a_database() -> None:
    settings = Settings.from_environment(URL)
    assert settings.max_staleness_ms == 0
    assert settings.max_plugin_size == 100 * 1024 * 1024
    assert (settings.rate_per_s, settings.burst) == (50, 100)
    assert settings.signature_policy == "none"
    assert settings.load_timeout_s == 20


def test_allowed_origins_are_a_list() -> None:
    assert Settings.from_environment(URL).allowed_origins == frozenset()
    text = " https://app.example.com,http://localhost:3000  http://[::1]:80,"
    found = Settings.from_environment(URL | {"HOTPLUG_ALLOWED_ORIGINS": text}).allowed_origins
    assert found == {"https://app.example.com", "http://localhost:3000", "http://[::1]:80"}


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://APP.example.com",
        "ftp://a",
        "https://",
    ],
)
def test_what_no_browser_sends_as_its_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOTPLUG_ALLOWED_ORIGINS must list origins"):
        Settings.from_environment(URL | {"HOTPLUG_ALLOWED_ORIGINS": f"https://a.example {text}"})


def test_empty_values_are_the_defaults() -> None:
    names = (
        "HOTPLUG_BUCKET",
        "HOTPLUG_BURST",
        "HOTPLUG_LOG_LEVEL",
        "HOTPLUG_ENABLE_MARKET",
        "HOTPLUG_DATABASE_CA",
    )
    assert Settings.from_environment(URL | dict.fromkeys(names, "")) == Settings.from_environment(URL)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HOTPLUG_BURST", "many", "HOTPLUG_BURST is not a number"),
        ("HOTPLUG_BURST", "1.5", "HOTPLUG_BURST must be a whole number"),
        ("HOTPLUG_BURST", "0", "HOTPLUG_BURST must lie between 1 and 1e+06"),
        ("HOTPLUG_RATE", "nan", "HOTPLUG_RATE must lie between 0.1 and 1e+06"),
        ("HOTPLUG_MAX_PLUGIN_SIZE", "inf", "HOTPLUG_MAX_PLUGIN_SIZE must lie between 1 and 2048"),
        ("HOTPLUG_MAX_STALENESS_MS", "nan", "HOTPLUG_MAX_STALENESS_MS must lie between 0 and 3.6e+06"),
        ("HOTPLUG_LOAD_TIMEOUT", "26", "HOTPLUG_LOAD_TIMEOUT must lie between 1 and 25"),
        (
            "HOTPLUG_SIGNATURE_POLICY",
            "all",
            "HOTPLUG_SIGNATURE_POLICY: this release verifies no signatures yet; only `none` is accepted",
        ),
        (
            "HOTPLUG_ENABLE_MARKET",
            "1",
            "HOTPLUG_ENABLE_MARKET: this release has no market yet; only `0` is accepted",
        ),
        (
            "HOTPLUG_LOG_LEVEL",
            "LOUD",
            "HOTPLUG_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        ),
        (
            "HOTPLUG_DATABASE_URL",
            "postgresql://x/y",
            "HOTPLUG_DATABASE_URL must begin with mysql+pymysql:// or sqlite:///",
        ),
        ("HOTPLUG_DATABASE_URL", "", "HOTPLUG_DATABASE_URL (or MYSQL_HOST) is not set"),
        ("HOTPLUG_DATABASE_AUTH", "kerberos", "HOTPLUG_DATABASE_AUTH must be password or iam"),
        ("HOTPLUG_DATABASE_AUTH", "iam", "HOTPLUG_DATABASE_AUTH=iam is for MySQL on RDS"),
    ],
)
def test_a_bad_setting_stops_the_start(name: str, value: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        Settings.from_environment(URL | {name: value})
    assert str(caught.value) == problem


def test_every_bad_setting_is_named() -> None:
    bad = {"HOTPLUG_BURST": "x", "HOTPLUG_RATE": "y", "MYSQL_HOST": "db", "MYSQL_PORT": "99999"}
    with pytest.raises(ValueError) as caught:
        Settings.from_environment(bad)
    assert str(caught.value).count(";") == 2


def test_the_inherited_variables_make_a_url() -> None:
    env = {
        "MYSQL_HOST": "db",
        "MYSQL_USER": "me",
        "MYSQL_PASSWORD": "p@ss/w:rd",
        "MYSQL_DB": "plat",
        "MYSQL_PORT": "1",
    }
    url = make_url(Settings.from_environment(env).database_url)
    assert (url.host, url.port, url.username, url.password, url.database) == (
        "db",
        1,
        "me",
        "p@ss/w:rd",
        "plat",
    )


def test_our_own_variable_wins_over_the_inherited_ones() -> None:
    assert Settings.from_environment(URL | {"MYSQL_HOST": "db"}).database_url == URL["HOTPLUG_DATABASE_URL"]


def test_printed_settings_show_no_password() -> None:
    settings = Settings.from_environment({"HOTPLUG_DATABASE_URL": "mysql+pymysql://me:hush@db/plat"})
    assert "hush" not in repr(settings)


LLM = {"HOTPLUG_LLM_URL": "https://llm.example/v1", "HOTPLUG_LLM_MODEL": "m"}


def test_a_language_model_is_optional() -> None:
    assert Settings.from_environment(URL).llm is None
    found = Settings.from_environment(URL | LLM | {"HOTPLUG_LLM_KEY": "sk-hush"})
    assert found.llm == LlmSettings("openai", "m", "https://llm.example/v1", "sk-hush")
    assert "hush" not in repr(found)
    bedrock = {"HOTPLUG_LLM_PROVIDER": "bedrock", "HOTPLUG_LLM_MODEL": "eu.x-v1:0"}
    assert Settings.from_environment(URL | bedrock).llm == LlmSettings("bedrock", "eu.x-v1:0", None, None)


def test_a_model_names_the_secret_that_is_its_key() -> None:
    found = Settings.from_environment(URL | LLM | {"HOTPLUG_LLM_KEY_SECRET": "arn:llm"}).llm
    assert found is not None
    assert (found.key, found.key_secret) == (None, "arn:llm")


def test_a_function_signs_in_with_its_role_where_it_is_told_to() -> None:
    there = {"MYSQL_HOST": "db.example", "HOTPLUG_DATABASE_AUTH": "iam"}
    assert Settings.from_environment(there).database_iam
    assert not Settings.from_environment(URL).database_iam


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"HOTPLUG_LLM_URL": "https://llm.example/v1"}, "HOTPLUG_LLM_MODEL"),
        ({"HOTPLUG_LLM_MODEL": "m"}, "HOTPLUG_LLM_URL"),
        (LLM | {"HOTPLUG_LLM_URL": "llm.example"}, "HOTPLUG_LLM_URL"),
        (LLM | {"HOTPLUG_LLM_PROVIDER": "other"}, "HOTPLUG_LLM_PROVIDER"),
        (LLM | {"HOTPLUG_LLM_PROVIDER": "bedrock"}, "HOTPLUG_LLM_URL"),
        ({"HOTPLUG_LLM_PROVIDER": "bedrock"}, "HOTPLUG_LLM_MODEL"),
        (LLM | {"HOTPLUG_LLM_KEY": "hush hush"}, "HOTPLUG_LLM_KEY"),
        (LLM | {"HOTPLUG_LLM_KEY": "hush", "HOTPLUG_LLM_KEY_SECRET": "name"}, "HOTPLUG_LLM_KEY and"),
        (
            {
                "HOTPLUG_LLM_PROVIDER": "bedrock",
                "HOTPLUG_LLM_MODEL": "m",
                "HOTPLUG_LLM_KEY_SECRET": "name",
            },
            "HOTPLUG_LLM_URL",
        ),
        (LLM | {"HOTPLUG_LLM_MODEL": "a\nb"}, "HOTPLUG_LLM_MODEL"),
    ],
)
def test_a_bad_setting_of_the_model_stops_the_start(values: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError) as caught:
        Settings.from_environment(URL | values)
    assert str(caught.value).startswith(named)
    assert "hush" not in str(caught.value) and ";" not in str(caught.value)
