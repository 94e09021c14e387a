"""Data keys by way of boto3 and moto's KMS, which opens what it wrapped under the same encryption context alone; and
the credentials of a role, which moto's STS gives out and Lambda puts into the environment."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from sqlalchemy import update

from chalicelib.core.database_token import auth_token
from chalicelib.core.errors import HotplugError
from chalicelib.core.jobs import Runner
from chalicelib.core.keys import data_keys, master_keys
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.core.keys.deployment_secrets import DeploymentSecrets
from chalicelib.core.keys.master_keys import KmsMaster, Masters, WrappedKey
from chalicelib.core.keys.rewrapping import rewrapping_jobs
from tests.conftest import create_schema

AAD = ("plugin_x_1", "17", "/apiKey")


@dataclass(frozen=True)
class Kms:
    """A client of moto's KMS and a key in it."""

    client: Any
    key_id: str

    def master(self) -> KmsMaster:
        return KmsMaster(self.key_id)

    def another(self) -> Kms:
        return Kms(self.client, self.client.create_key()["KeyMetadata"]["KeyId"])


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("kms")
        made = Kms(client, client.create_key()["KeyMetadata"]["KeyId"])
        master_keys.use(Masters(made.master()))
        yield made
        master_keys.use(None)


def test_a_data_key_opens_for_its_app_and_for_no_other(kms: Kms) -> None:
    master = kms.master()
    plain, generated = master.generate(7)
    for blob in (generated, master.wrap(7, plain)):
        assert master.unwrap(WrappedKey(7, 1, blob, master.name)) == plain
        with pytest.raises(HotplugError) as refused:
            master.unwrap(WrappedKey(8, 1, blob, master.name))
        assert refused.value.code == "secrets.cannot_decrypt"


def test_the_context_is_the_app_and_the_service_holds_to_it(kms: Kms) -> None:
    plain, wrapped = kms.master().generate(7)
    blob = base64.b64decode(wrapped)
    opened = kms.client.decrypt(CiphertextBlob=blob, EncryptionContext={"hotplug:app": "7"})
    assert opened["Plaintext"] == plain
    for context in ({}, {"hotplug:app": "8"}, {"app": "7"}, {"hotplug:app": "7", "more": "x"}):
        with pytest.raises(ClientError) as refused:
            kms.client.decrypt(CiphertextBlob=blob, EncryptionContext=context)
        assert refused.value.response["Error"]["Code"] == "InvalidCiphertextException"


def test_a_secret_that_is_moved_to_another_app_does_not_open(kms: Kms, sqlite_url: str) -> None:
    database = create_schema(sqlite_url)
    token = data_keys.open_box(database, 7).encrypt("hunter2", AAD)
    master_keys.plain_keys.clear()
    assert data_keys.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    # WHEN the wrapped key is another app's by what the row says
    database.run(lambda session: session.execute(update(DataKey).values(app_id=8)))
    master_keys.plain_keys.clear()
    with pytest.raises(HotplugError) as refused:
        data_keys.open_box(database, 8)
    assert refused.value.code == "secrets.cannot_decrypt"
    database.close()


def test_keys_are_wrapped_anew_by_another_master_with_the_same_context(kms: Kms, sqlite_url: str) -> None:
    database = create_schema(sqlite_url)
    token = data_keys.open_box(database, 7).encrypt("hunter2", AAD)
    newer = kms.another().master()
    master_keys.use(Masters(newer))
    (job,) = rewrapping_jobs(database)
    assert Runner(database, deadline_s=60).run(job)["done"] == 1
    master_keys.plain_keys.clear()
    assert data_keys.open_box(database, 7).decrypt(token, AAD) == "hunter2"
    (key,) = data_keys.load_or_create_data_key(database, 7)
    assert key.wrapped_by == newer.name
    with pytest.raises(HotplugError) as refused:
        newer.unwrap(WrappedKey(8, 1, key.wrapped, newer.name))
    assert refused.value.code == "secrets.cannot_decrypt"
    database.close()


def test_a_key_that_is_not_there_is_refused_and_not_named(kms: Kms) -> None:
    gone = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(HotplugError) as refused:
        KmsMaster(gone).generate(7)
    assert refused.value.code == "secrets.refused"
    assert gone not in str(refused.value)


def test_the_credentials_of_a_role_sign_every_call(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda takes the role, and its environment has what STS answered: nothing here asks for credentials itself."""
    role = "arn:aws:iam::123456789012:role/plugins-get_plugin"
    given = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="lambda")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", given["SessionToken"])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    client = master_keys.kms_client()
    sent: list[tuple[str, str]] = []

    def note(request: Any, **_: Any) -> None:
        token = request.headers["X-Amz-Security-Token"]
        sent.append((request.headers["Authorization"].decode(), token.decode()))

    client.meta.events.register("before-send.kms", note)
    plain, wrapped = KmsMaster(kms.key_id, client).generate(7)
    assert KmsMaster(kms.key_id, client).unwrap(WrappedKey(7, 1, wrapped, "")) == plain
    boto3.client("secretsmanager").create_secret(Name="llm", SecretString="sk-live")
    assert DeploymentSecrets().value("llm") == "sk-live"
    assert len(sent) == 2
    for authorization, token in sent:
        assert f"Credential={given['AccessKeyId']}/" in authorization
        assert token == given["SessionToken"]
    token = auth_token("proxy.example", 3306, "hotplug")
    assert f"X-Amz-Credential={given['AccessKeyId']}%2F" in token
    assert "X-Amz-Security-Token=" in token
    assert boto3.client("sts").get_caller_identity()["Arn"].endswith("assumed-role/plugins-get_plugin/lambda")
