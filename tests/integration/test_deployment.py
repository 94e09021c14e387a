"""`migrate` as CloudFormation's resource: the database is migrated, its user made, the answer put to its URL."""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from sqlalchemy import create_engine, make_url, text

from chalicelib.core import process
from chalicelib.events import deployment

REQUEST = {
    "RequestType": "Create",
    "ResponseURL": "https://answers.s3.eu-central-1.amazonaws.com/stack?X-Amz-Signature=1",
    "StackId": "arn:stack",
    "RequestId": "r-1",
    "LogicalResourceId": "Migration",
}
ADMIN_SECRET, PASSWORD = "a" * 48, "p" * 48


@pytest.fixture
def user(mysql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name of its own for the user of the functions, and the deployment's secrets."""
    name = "hotplug_test_" + "".join(random.choices(string.ascii_lowercase, k=10))
    url = make_url(mysql_url)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", url.set(username="nobody", password=None).render_as_string())
    process.forget()
    with mock_aws():
        client = boto3.client("secretsmanager")
        for variable, value in (
            ("HOTPLUG_MASTER_SECRET", {"username": url.username, "password": url.password or ""}),
            ("HOTPLUG_DATABASE_SECRET", {"username": name, "password": PASSWORD}),
            ("HOTPLUG_ADMIN_SECRET", {"apiKey": "admin", "apiSecret": ADMIN_SECRET}),
        ):
            secret = client.create_secret(Name=variable, SecretString=json.dumps(value))
            monkeypatch.setenv(variable, secret["ARN"])
        yield name
    process.forget()
    server = create_engine(url)
    with server.begin() as connection:
        connection.execute(text(f"DROP USER IF EXISTS '{name}'@'%'"))
    server.dispose()


def answered(event: dict[str, Any], work: Any) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    sent: list[tuple[str, bytes]] = []
    document = deployment.answer(event, work, lambda url, body: sent.append((url, body)))
    return document, sent


def test_a_deployment_migrates_and_makes_a_user_who_reads_and_writes_rows(user: str, mysql_url: str) -> None:
    for kind in ("Create", "Update"):
        document, sent = answered(REQUEST | {"RequestType": kind}, lambda: deployment.deploy({}))
        assert document["Status"] == "SUCCESS", document
        assert document["Data"]["Revision"].isdigit()
        assert sent == [(REQUEST["ResponseURL"], json.dumps(document).encode())]
        assert ADMIN_SECRET not in str(sent) and PASSWORD not in str(sent)
    server = create_engine(mysql_url)
    with server.connect() as connection:
        grants = [str(row[0]) for row in connection.execute(text(f"SHOW GRANTS FOR '{user}'@'%'"))]
        database = make_url(mysql_url).database
        (own,) = [line for line in grants if f"`{database}`.*" in line]
        assert own.startswith(f"GRANT {deployment.RIGHTS} ON")
        assert len(grants) == 2 and grants[0].startswith("GRANT USAGE ON *.*")
        required = connection.scalar(
            text("SELECT ssl_type FROM mysql.user WHERE user = :user"), {"user": user}
        )
        assert required in ("ANY", b"ANY")
        stored = connection.execute(text("SELECT api_key, secret_hash FROM app_credential")).all()
    server.dispose()
    assert stored == [("admin", hashlib.sha256(ADMIN_SECRET.encode()).digest())]


def test_a_cluster_that_replaced_another_is_the_one_that_is_migrated(
    user: str, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore: the environment of the published version still names the old one and its secret."""
    url = make_url(mysql_url)
    secret = boto3.client("secretsmanager").get_secret_value(SecretId="HOTPLUG_MASTER_SECRET")["ARN"]
    gone = url.set(host="gone.invalid").render_as_string(hide_password=False)
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", gone)
    monkeypatch.setenv("HOTPLUG_MASTER_SECRET", "arn:gone")
    process.forget()
    told: list[bytes] = []
    monkeypatch.setattr(deployment, "send", lambda _, body: told.append(body))
    properties = {"Host": url.host, "MasterSecret": secret, "Release": "r", "Run": "2"}
    answer = deployment.handle(REQUEST | {"ResourceProperties": properties}, None)
    assert answer["Status"] == "SUCCESS", answer
    assert json.loads(told[0])["Data"] == answer["Data"]


def test_a_failure_is_answered_and_says_nothing_that_is_secret() -> None:
    def fail() -> dict[str, str]:
        raise RuntimeError(f"connecting with {PASSWORD}")

    document, sent = answered(REQUEST, fail)
    assert document["Status"] == "FAILED"
    assert document["Reason"] == "RuntimeError; the log of migrate says more"
    assert PASSWORD not in str(sent)


def test_deleting_the_stack_touches_no_row() -> None:
    def fail() -> dict[str, str]:
        raise AssertionError("nothing may run")

    document, _ = answered(REQUEST | {"RequestType": "Delete", "PhysicalResourceId": "old"}, fail)
    assert document["Status"] == "SUCCESS"
    assert document["PhysicalResourceId"] == "old"


@pytest.mark.parametrize(
    "url", ["http://a.s3.amazonaws.com/x", "https://127.0.0.1/x", "file:///etc/passwd", "https://amazonaws.com.x/y"]
)  # fmt: skip
def test_the_answer_goes_to_aws_only(url: str) -> None:
    with pytest.raises(ValueError, match="does not go to AWS"):
        deployment.send(url, b"{}")


def test_without_a_url_it_is_the_local_stack_that_asks(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", sqlite_url)
    process.forget()
    assert ":" in deployment.handle({}, None)["adminCredential"]
    process.forget()


@pytest.mark.parametrize("name", ["", "hotplug'@'%", "Root", "a" * 40])
def test_a_user_that_is_no_name_is_not_made(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        deployment.make_user(None, name, PASSWORD)  # type: ignore[arg-type]
