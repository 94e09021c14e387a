"""The app that the walkthrough works as."""

from __future__ import annotations

import time
from typing import Any

from infra.local.stack import LocalStack
from infra.walkthrough.steps import Client

RUNTIMES = ("runtime", "runtime_network")


class Tenant:
    """An app of its own; until it is created, `client` is the deployment's admin."""

    def __init__(self, stack: LocalStack) -> None:
        self.alias = f"demo-{int(time.time()):x}"
        self.credential = ""
        self._url = stack.url
        self._admin = Client(stack.url, stack.admin_credential or "")
        self.client = self._admin

    def create(self) -> str:
        """Create the app and a credential that may share and grant, too."""
        self._admin.call("POST", "/apps", 201, json={"name": "Demo", "aliasId": self.alias})
        answer = self._admin.call(
            "POST", f"/apps/{self.alias}/credentials", 201, json={"role": "admin", "label": "walkthrough"}
        ).json()
        self.credential = f"{answer['apiKey']}:{answer['apiSecret']}"
        self.client = Client(self._url, self.credential)
        me = self.client.call("GET", "/me", 200).json()
        return f"app {me['aliasId']}, a credential with the role {me['role']}"

    def environments(self, *, runtime: bool) -> list[dict[str, Any]]:
        """Return the environments that run plugins, or those that answer the API."""
        items = self._admin.call("GET", "/instances", 200, params={"limit": 100}).json()["items"]
        return [item for item in items if (item["function"] in RUNTIMES) == runtime]

    def close(self) -> None:
        """Close its connections."""
        self._admin.close()
        self.client.close()
