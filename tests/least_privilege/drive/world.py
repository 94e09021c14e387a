"""A deployment as it is on AWS, on this machine, with servers beside it; and how time passes in it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.schedules import scheduled_event
from tests.e2e.tenants import Api, Tenant, new_tenant
from tests.least_privilege.watched import WatchedStack
from tests.ministack import Ministack
from tests.model_server import ModelServer
from tests.mutants import copied
from tests.upstreams import Upstreams

# An agent that uses all that an agent is handed. The two that Hotplug has need no plugin.
PROBER = "prober"
PROBED = {"plugins": ("probed-compiled", "probed-networked"), "tools": ("probed-pets",)}
_DESCRIPTION = {"name": PROBER, "version": "1.0.0", "entry_class": "Prober", "description": "Of a test."}
_CODE = """
from chalicelib.agents.base import AgentBase


class Prober(AgentBase):
    def __init__(self):
        super().__init__(name="prober", description="Of a test.")

    def invoke(self, message, thread_id, context):
        kind, _, name = message.partition(" ")
        if kind == "tool":
            return str(self.tools.call(name, "getPet", {"path": {"petId": 7}}))
        return str(self.plugins.execute(name, {}))
"""


def with_prober(target: Path) -> Path:
    """Copy the application to a new folder, there with one more agent, and return it."""
    agent = copied(target) / "chalicelib" / "agents" / PROBER
    agent.mkdir()
    (agent / "__init__.py").touch()
    (agent / "agent.yaml").write_text(json.dumps(_DESCRIPTION | PROBED))
    (agent / "agent.py").write_text(_CODE)
    return target


def kept_on(aws: Ministack, model: ModelServer) -> dict[str, str]:
    """Return the settings with which functions keep keys and secrets as on AWS."""
    key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    settings = {
        "HOTPLUG_LLM_KEY_SECRET": ("LlmKeySecret", "sk-test"),
        "HOTPLUG_MASTER_SECRET": ("MasterSecret", json.dumps({"username": "root", "password": "p"})),
        "HOTPLUG_DATABASE_SECRET": ("DatabaseSecret", json.dumps({"username": "hotplug", "password": "p"})),
        "HOTPLUG_ADMIN_SECRET": ("AdminSecret", json.dumps({"apiKey": "a", "apiSecret": "s" * 48})),
    }
    secrets = aws.client("secretsmanager")
    named = {
        setting: secrets.create_secret(Name=name, SecretString=value)["ARN"]
        for setting, (name, value) in settings.items()
    }
    return {
        **named,
        "HOTPLUG_KMS_KEY_ID": key,
        "AWS_ENDPOINT_URL_KMS": aws.url,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws.url,
        "HOTPLUG_LLM_URL": model.url,
        "HOTPLUG_LLM_MODEL": "m",
    }


@dataclass
class World:
    """The running deployment.

    Parameters
    ----------
    clock
        The file that says how many seconds the jobs' clock is ahead.
    webhook
        A URL that takes whatever is told to it.
    """

    stack: WatchedStack
    upstreams: Upstreams
    webhook: str
    clock: Path
    _open: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.root = self._open.enter_context(closing(Api(self.stack.url, self.stack.admin_credential)))

    def tenant(self) -> Tenant:
        """Return a new app. It has no data key until something of it is sealed."""
        made = self._open.enter_context(closing(new_tenant(self.stack, self.root)))
        made.upstreams = self.upstreams
        return made

    def close(self) -> None:
        self._open.close()

    def fire(self, function: str) -> None:
        """Invoke a function as its schedule does."""
        outcome = self.stack.invoke(function, scheduled_event(function))
        assert outcome.error is None, outcome.payload

    def job(self, name: str) -> None:
        """Run a job over the API; all of it must succeed."""
        report = self.root("POST", f"/api/v1/maintenance/{name}", 200, json={}).json()
        assert (report["skipped"], report["failed"], report["left"]) == (None, 0, 0), report

    def later(self, hours: float) -> None:
        """Let time pass for jobs."""
        self.clock.write_text(str(hours * 3600))

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to the deployment's database; what was written is committed."""
        path = self.stack.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
            yield connection

    @contextmanager
    def trigger(self, when: str, what: str) -> Iterator[None]:
        """Let the database do something in the very moment in which somebody else would have to: `when` a row is
        written, in the same transaction."""
        with self.database() as connection:
            connection.execute(f"CREATE TRIGGER meanwhile {when} BEGIN {what}; END")
        try:
            yield
        finally:
            with self.database() as connection:
                connection.execute("DROP TRIGGER meanwhile")

    def put_object(self, key: str, body: bytes = b"x") -> str:
        """Put an object into the bucket and return its version."""
        with closing(self.stack.client("s3")) as s3:
            return str(s3.put_object(Bucket=self.stack.bucket, Key=key, Body=body)["VersionId"])

    def lose_events(self) -> None:
        """Let the bucket tell nobody of what arrives, from now on."""
        with closing(self.stack.client("s3")) as s3:
            s3.put_bucket_notification_configuration(Bucket=self.stack.bucket, NotificationConfiguration={})
