from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.core.keys import master_keys
from chalicelib.core.keys.master_keys import KmsMaster, Masters
from tests.fakes.kms import FakeKms
from tests.fakes.lambda_api import LambdaApi
from tests.ministack import client_environment


@pytest.fixture
def kms() -> Iterator[FakeKms]:
    """This process's master key, in a KMS in memory."""
    fake = FakeKms()
    master_keys.use(Masters(KmsMaster("alias/hotplug", fake)))
    yield fake
    master_keys.use(None)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[LambdaApi]:
    """What clients of Lambda speak to."""
    server = LambdaApi()
    for name, value in client_environment(server.url).items():
        monkeypatch.setenv(name, value)
    yield server
    server.close()
