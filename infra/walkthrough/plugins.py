"""A plugin's life: uploaded, enabled, executed, updated, rolled back, dropped, watched, disabled, uninstalled."""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from examples.build import PLUGINS, pack
from infra.local.stack import LocalStack
from infra.walkthrough.outside import Webhook
from infra.walkthrough.steps import API_PROCESSES, PROBES, Failed, Plan, expect
from infra.walkthrough.tenant import Tenant

WAIT_S = 60
WEBHOOK_TOKEN = "s3cr3t-token"


class PluginSteps:
    """The steps with plugins.

    Parameters
    ----------
    packages
        Folder for the packages that are built.
    """

    def __init__(self, stack: LocalStack, tenant: Tenant, webhook: Webhook, packages: Path) -> None:
        self._stack = stack
        self._tenant = tenant
        self._webhook = webhook
        self._packages = packages
        self._plugin_id = ""

    def plan(self) -> Plan:
        """The life of two plugins, up to where all runs."""
        return (
            ("upload a wasm plugin by presigned POST; the S3 event registers it", self._upload_wasm),
            ("enable it: loaded and initialised once", self._enable),
            ("execute it", self._execute_first),
            ("upload version 2", self._update),
            (f"hot reload: all {API_PROCESSES} warm processes serve version 2", self._all_reloaded),
            ("roll back to version 1, no upload", self._rollback),
            ("install a Python plugin in one request", self._install_notify),
            ("grant it its webhook's host and configure it with a secret", self._configure_notify),
            ("execute it: the webhook gets the message", self._notify),
            ("drop a package into the bucket: it installs itself", self._drop),
        )

    def end(self) -> Plan:
        """What is seen of it, and its end."""
        return (
            ("show metrics", self._metrics),
            ("show who runs what", self._instances),
            ("disable: refused everywhere at once", self._disable),
            ("uninstall: gone for every reader", self._uninstall),
        )

    def _upload_wasm(self) -> str:
        package = pack(PLUGINS / "word-count" / "1.0.0", self._packages)
        order = self._declared(package)
        opened = self._tenant.client.call("POST", "/plugins/install", 202, json=order).json()
        upload = opened["upload"]
        answer = httpx.post(
            upload["url"], data=upload["fields"], files={"file": package.read_bytes()}, timeout=30
        )
        expect(
            answer.status_code in (200, 201, 204), f"S3 answered {answer.status_code}: {answer.text[:300]}"
        )
        task = self._wait_registered(opened["installId"])
        self._plugin_id = task["pluginId"]
        return (
            f"{task['pluginId']} {task['version']}, sha256 {order['sha256'][:12]}…, timings {task['timings']}"
        )

    def _declared(self, package: Path) -> dict[str, Any]:
        content = package.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return {"source": "local", "filename": package.name, "size": len(content), "sha256": digest}

    def _wait_registered(self, install_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            task: dict[str, Any] = self._tenant.client.call(
                "GET", f"/plugins/installs/{install_id}", 200
            ).json()
            if task["state"] == "registered":
                return task
            expect(task["state"] in ("awaiting_upload", "verifying"), f"{task['state']}: {task['errors']}")
            time.sleep(0.05)
        raise Failed(f"not registered within {WAIT_S} s: {task}")

    def _enable(self) -> str:
        plugin = self._tenant.client.call("POST", f"/plugins/{self._plugin_id}/enable", 200).json()
        return f"status {plugin['status']}, generation {plugin['generation']}"

    def _execute(self, expected: int = 200) -> dict[str, Any]:
        body = {"action": "count", "params": {"text": "one two three\nfour"}}
        answer = self._tenant.client.call("POST", f"/plugins/{self._plugin_id}/execute", expected, json=body)
        return dict(answer.json())

    def _execute_first(self) -> str:
        answer = self._execute()
        expect(answer["result"] == {"words": 4} and answer["version"] == "1.0.0", f"answered {answer}")
        warm = self._execute()
        expect(not warm["coldLoad"], "the second execution loaded it again")
        return f"{answer['result']} in {answer['durationMs']} ms cold, {warm['durationMs']} ms warm"

    def _update(self) -> str:
        package = pack(PLUGINS / "word-count" / "2.0.0", self._packages)
        with package.open("rb") as file:
            opened = self._tenant.client.call(
                "PUT",
                f"/plugins/{self._plugin_id}",
                202,
                data={"source": "local"},
                files={"file": (package.name, file, "application/zip")},
            ).json()
        task = self._wait_registered(opened["installId"])
        expect(task["pluginId"] == self._plugin_id, "the update changed the plugin's id")
        return f"{task['version']} registered under the same id"

    def _all_reloaded(self) -> str:
        versions = [
            self._tenant.client.call("GET", f"/plugins/{self._plugin_id}", 200).json()["version"]
            for _ in range(PROBES)
        ]
        answers = [self._execute() for _ in range(API_PROCESSES * 2)]
        stale = sum(version != "2.0.0" for version in versions)
        stale += sum(answer["version"] != "2.0.0" or "lines" not in answer["result"] for answer in answers)
        expect(stale == 0, f"{stale} stale answers")
        seen = self._tenant.environments(runtime=False)
        expect(len(seen) >= API_PROCESSES, f"only {len(seen)} API processes were seen")
        return f"{len(versions) + len(answers)} answers from {len(seen)} processes, 0 stale"

    def _rollback(self) -> str:
        plugin = self._tenant.client.call("POST", f"/plugins/{self._plugin_id}/rollback", 200, json={}).json()
        answer = self._execute()
        expect(plugin["version"] == answer["version"] == "1.0.0", f"executed {answer['version']}")
        return f"{plugin['version']} is active and executes"

    def _install_notify(self) -> str:
        permissions = {"network": [self._webhook.host]}
        package = pack(PLUGINS / "notify-webhook", self._packages, changes={"permissions": permissions})
        with package.open("rb") as file:
            plugin = self._tenant.client.call(
                "POST",
                "/plugins/install",
                201,
                data={"source": "local"},
                files={"file": (package.name, file, "application/zip")},
            ).json()
        self._notify_id = plugin["pluginId"]
        return f"{self._notify_id}, asks for {plugin['permissions']['network']}"

    def _configure_notify(self) -> str:
        path = f"/plugins/{self._notify_id}"
        self._tenant.client.call("POST", f"{path}/enable", 403)
        self._tenant.client.call("PUT", f"{path}/grants", 200, json={"network": [self._webhook.host]})
        config = {
            "name": "demo",
            "scope": "app",
            "isDefault": True,
            "configItems": {"url": self._webhook.url, "token": WEBHOOK_TOKEN},
        }
        shown = self._tenant.client.call("POST", f"{path}/configs", 201, json=config).json()
        expect(shown["configItems"]["token"] == "***", "the secret was shown")
        self._tenant.client.call("POST", f"{path}/enable", 200)
        return f"config {shown['configId']}, token shown as {shown['configItems']['token']}"

    def _notify(self) -> str:
        body = {"action": "notify", "params": {"message": "hello from the walkthrough"}}
        answer = self._tenant.client.call(
            "POST", f"/plugins/{self._notify_id}/execute", 200, json=body
        ).json()
        expect(len(self._webhook.received) == 1, "the webhook got nothing")
        received = self._webhook.received[0]
        expect(received["authorization"] == f"Bearer {WEBHOOK_TOKEN}", "the token did not arrive")
        return f"{answer['result']}; the webhook got {received['body']}"

    def _drop(self) -> str:
        package = pack(
            PLUGINS / "word-count" / "1.0.0", self._packages, changes={"name": "dropped-word-count"}
        )
        key = f"incoming/drop/{self._tenant.alias}/{package.name}"
        with closing(self._stack.client("s3")) as s3:
            s3.put_object(Bucket=self._stack.bucket, Key=key, Body=package.read_bytes())
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            items = self._tenant.client.call("GET", "/plugins", 200, params={"source": "s3"}).json()["items"]
            if items:
                return f"{items[0]['pluginId']} {items[0]['version']} from s3://{self._stack.bucket}/{key}"
            time.sleep(0.05)
        raise Failed("the dropped package was not installed")

    def _metrics(self) -> str:
        rows = self._tenant.client.call("GET", "/plugins/metrics", 200).json()
        mine = next(row for row in rows if row["name"] == "word-count")
        shown = {name: mine[name] for name in ("executions", "errors", "p50Ms", "p95Ms", "coldLoads")}
        expect(mine["executions"] > 0, f"no executions: {mine}")
        return f"word-count {shown}"

    def _instances(self) -> str:
        runtimes = self._tenant.environments(runtime=True)
        loaded = [one["pluginId"] for item in runtimes for one in item["loaded"]]
        return f"{len(self._tenant.environments(runtime=False))} api, {len(runtimes)} runtime with {loaded}"

    def _disable(self) -> str:
        self._tenant.client.call("POST", f"/plugins/{self._plugin_id}/disable", 200)
        codes = {self._execute(expected=409)["code"] for _ in range(API_PROCESSES * 2)}
        expect(codes == {"plugin.disabled"}, f"answered {codes}")
        return f"{API_PROCESSES * 2} executions, all refused with plugin.disabled"

    def _uninstall(self) -> str:
        self._tenant.client.call("DELETE", f"/plugins/{self._plugin_id}", 204)
        for _ in range(API_PROCESSES * 2):
            self._tenant.client.call("GET", f"/plugins/{self._plugin_id}", 404)
        return f"{API_PROCESSES * 2} reads, all 404"
