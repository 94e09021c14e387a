"""Secrets of the deployment: named by settings, read from Secrets Manager, kept for five minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from chalicelib.core import process
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError, Unavailable
from chalicelib.core.keys.deployment_secrets import KEPT_S, DeploymentSecrets
from chalicelib.core.llm.openai import OpenAiLlm
from chalicelib.core.settings import LlmSettings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield boto3.client("secretsmanager")


def test_a_value_is_read_once_in_five_minutes_and_a_new_one_holds_afterwards(client: Any) -> None:
    arn = client.create_secret(Name="llm", SecretString="sk-old")["ARN"]
    clock = Clock()
    secrets = DeploymentSecrets(client, clock)
    assert secrets.value(arn) == "sk-old"
    client.put_secret_value(SecretId=arn, SecretString="sk-new")
    clock.now += KEPT_S - 1
    assert secrets.value(arn) == "sk-old"
    clock.now += 2
    assert secrets.value(arn) == "sk-new"


def test_the_client_is_made_on_first_use(client: Any) -> None:
    client.create_secret(Name="llm", SecretString="sk-live")
    assert DeploymentSecrets().value("llm") == "sk-live"


def test_one_that_is_not_there_is_refused_and_its_name_stays_here(client: Any) -> None:
    with pytest.raises(HotplugError) as refused:
        DeploymentSecrets(client).value("prod/llm-key")
    assert refused.value.code == "secrets.refused"
    assert "prod" not in str(refused.value)


def test_bytes_are_no_key(client: Any) -> None:
    client.create_secret(Name="llm", SecretBinary=b"\x00")
    with pytest.raises(HotplugError) as refused:
        DeploymentSecrets(client).value("llm")
    assert refused.value.code == "secrets.not_text"


@pytest.mark.parametrize(
    "failure",
    [
        EndpointConnectionError(endpoint_url="https://secretsmanager"),
        ClientError({"Error": {"Code": "ThrottlingException"}}, "GetSecretValue"),
        ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetSecretValue"),  # type: ignore[typeddict-item]
    ],
)
def test_away_is_503(failure: Exception) -> None:
    class Failing:
        def get_secret_value(self, **_: Any) -> Any:
            raise failure

    with pytest.raises(Unavailable) as away:
        DeploymentSecrets(Failing()).value("llm")
    assert away.value.code == "secrets.away"


def test_not_inside_a_unit_of_work(client: Any, sqlite_url: str) -> None:
    client.create_secret(Name="llm", SecretString="sk-live")
    with pytest.raises(RuntimeError), DatabaseService(sqlite_url).session_getter():
        DeploymentSecrets(client).value("llm")


def test_the_language_model_asks_for_its_key_with_each_call(client: Any, internet: Any) -> None:
    client.create_secret(Name="llm", SecretString="sk-live")
    process.forget()
    chosen = LlmSettings("openai", "m", "https://llm.example/v1", None, "llm")
    model = OpenAiLlm(internet, "https://llm.example/v1", "m", process._key_of(chosen))
    assert model._authorization() == {"Authorization": "Bearer sk-live"}
    process.forget()
    assert "sk-" not in repr(chosen)
