"""Tokens instead of passwords: what boto3 signs, signed without boto3."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from sqlalchemy import create_engine

from chalicelib.core.database_token import NoCredentials, auth_token, sign_in_with_tokens

HOST = "hotplug-prod.proxy-abc.eu-central-1.rds.amazonaws.com"
ROLE = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "a/secret+of=the role",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzE+/=&tail",
    "AWS_REGION": "eu-central-1",
}
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize("session", [True, False], ids=["role", "user"])
@pytest.mark.parametrize("user", ["hotplug", "with space&more"])
def test_a_token_is_the_one_that_boto3_signs(
    session: bool, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = ROLE if session else {k: v for k, v in ROLE.items() if k != "AWS_SESSION_TOKEN"}
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))
    client = boto3.client(
        "rds",
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
    )
    theirs = client.generate_db_auth_token(HOST, 3306, user)
    ours = auth_token(HOST, 3306, user, environment=environment, now=NOW)
    assert parse_qs(urlsplit(f"//{ours}").query) == parse_qs(urlsplit(f"//{theirs}").query)
    assert ours.partition("?")[0] == theirs.partition("?")[0]


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"])
def test_without_a_role_there_is_no_token(missing: str) -> None:
    environment = {key: value for key, value in ROLE.items() if key != missing}
    with pytest.raises(NoCredentials, match=missing):
        auth_token(HOST, 3306, "hotplug", environment=environment)


def test_each_connection_gets_a_token_of_its_own_and_never_the_same_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ROLE.items():
        monkeypatch.setenv(name, value)
    engine, given = create_engine(f"mysql+pymysql://hotplug@{HOST}:3307/hotplug"), []

    class Reached(Exception):
        """The server was asked for."""

    def connect(**options: Any) -> None:
        given.append(options["password"])
        raise Reached

    monkeypatch.setattr(engine.dialect, "connect", lambda *_, **options: connect(**options))
    sign_in_with_tokens(engine)
    for _ in range(2):
        with pytest.raises(Reached):
            engine.connect()
    assert all(f"{HOST}:3307/?Action=connect&DBUser=hotplug" in password for password in given)
    assert len(given) == 2
