"""The walkthrough: a plugin's whole life on the local stack, over the public API only.

`python -m infra.walkthrough` starts a stack, walks, writes `.local/demo.json` and exits (0 only if every step held);
with `--serve` it then serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from examples.build import PLUGINS, pack
from infra.functions import ROOT
from infra.local.__main__ import until_signal
from infra.local.stack import LocalStack

API_PROCESSES = 4
WAIT_S = 60
# Enough requests for the front to reach every warm process several times.
PROBES = 24
RUNTIMES = ("runtime", "runtime_network")


@dataclass(frozen=True)
class Step:
    """One step of the walkthrough, as `.local/demo.json` records it; `ms` in milliseconds."""

    name: str
    ok: bool
    ms: float
    detail: str


class Failed(AssertionError):
    """A step did not hold; the message says what was seen."""


def expect(held: bool, message: str) -> None:
    """Fail the step unless `held`."""
    if not held:
        raise Failed(message)


class Client:
    """The public API with one credential."""

    def __init__(self, base_url: str, credential: str) -> None:
        self._http = httpx.Client(
            base_url=f"{base_url}/api/v1", headers={"Authorization": f"Bearer {credential}"}, timeout=35
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def call(self, method: str, path: str, expected: int, **options: Any) -> httpx.Response:
        """Return the answer; a status other than the expected one fails the step with the problem's text."""
        response = self._http.request(method, path, **options)
        expect(
            response.status_code == expected,
            f"{method} {path}: {response.status_code} instead of {expected}: {response.text[:500]}",
        )
        return response


class Webhook:
    """A webhook on loopback that remembers what it got."""

    def __init__(self) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append({"authorization": self.headers["Authorization"], "body": json.loads(body)})
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the walkthrough's own lines tell what happens."""

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"localhost:{self._server.server_port}"
        self.url = f"http://{self.host}/hooks/demo"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Walkthrough:
    """Every step in its order, on a running stack."""

    def __init__(self, stack: LocalStack, webhook: Webhook, packages: Path) -> None:
        self.steps: list[Step] = []
        self.credential = ""
        self._stack = stack
        self._webhook = webhook
        self._packages = packages
        self._admin = Client(stack.url, stack.admin_credential or "")
        self._client = self._admin
        self._alias = f"demo-{int(time.time()):x}"
        self._plugin_id = ""

    def run(self) -> bool:
        """Walk until a step fails; True where every step held."""
        try:
            return self._walk()
        finally:
            self._admin.close()
            self._client.close()

    def _walk(self) -> bool:
        for name, work in (
            ("create an app with a publisher's credential", self._create_app),
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
            ("show metrics", self._metrics),
            ("show who runs what", self._instances),
            ("disable: refused everywhere at once", self._disable),
            ("uninstall: gone for every reader", self._uninstall),
        ):
            if not self._step(name, work):
                return False
        return True

    def _step(self, name: str, work: Callable[[], str]) -> bool:
        began = time.perf_counter()
        try:
            detail, ok = work(), True
        except (Failed, httpx.HTTPError, KeyError) as error:
            detail, ok = f"{type(error).__name__}: {error}", False
        step = Step(name, ok, round((time.perf_counter() - began) * 1000, 1), detail)
        self.steps.append(step)
        print(
            f"{'ok  ' if ok else 'FAIL'} {step.ms:9.1f} ms  {name}\n                   {detail}", flush=True
        )
        return ok

    # -- steps ---------------------------------------------------------------------------------------------------

    def _create_app(self) -> str:
        self._admin.call("POST", "/apps", 201, json={"name": "Demo", "aliasId": self._alias})
        answer = self._admin.call(
            "POST", f"/apps/{self._alias}/credentials", 201, json={"role": "admin", "label": "walkthrough"}
        ).json()
        self.credential = f"{answer['apiKey']}:{answer['apiSecret']}"
        self._client = Client(self._stack.url, self.credential)
        me = self._client.call("GET", "/me", 200).json()
        return f"app {me['aliasId']}, role {me['role']}"

    def _upload_wasm(self) -> str:
        package = pack(PLUGINS / "word-count" / "1.0.0", self._packages)
        order = self._declared(package)
        opened = self._client.call("POST", "/plugins/install", 202, json=order).json()
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
            task: dict[str, Any] = self._client.call("GET", f"/plugins/installs/{install_id}", 200).json()
            if task["state"] == "registered":
                return task
            expect(task["state"] in ("awaiting_upload", "verifying"), f"{task['state']}: {task['errors']}")
            time.sleep(0.05)
        raise Failed(f"not registered within {WAIT_S} s: {task}")

    def _enable(self) -> str:
        plugin = self._client.call("POST", f"/plugins/{self._plugin_id}/enable", 200).json()
        return f"status {plugin['status']}, generation {plugin['generation']}"

    def _execute(self, expected: int = 200) -> dict[str, Any]:
        body = {"action": "count", "params": {"text": "one two three\nfour"}}
        answer = self._client.call("POST", f"/plugins/{self._plugin_id}/execute", expected, json=body)
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
            opened = self._client.call(
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
            self._client.call("GET", f"/plugins/{self._plugin_id}", 200).json()["version"]
            for _ in range(PROBES)
        ]
        answers = [self._execute() for _ in range(API_PROCESSES * 2)]
        stale = sum(version != "2.0.0" for version in versions)
        stale += sum(answer["version"] != "2.0.0" or "lines" not in answer["result"] for answer in answers)
        expect(stale == 0, f"{stale} stale answers")
        seen = self._environments(runtime=False)
        expect(len(seen) >= API_PROCESSES, f"only {len(seen)} API processes were seen")
        return f"{len(versions) + len(answers)} answers from {len(seen)} processes, 0 stale"

    def _environments(self, *, runtime: bool) -> list[dict[str, Any]]:
        """Return the environments that run plugins, or those that answer the API."""
        items = self._admin.call("GET", "/instances", 200, params={"limit": 100}).json()["items"]
        return [item for item in items if (item["function"] in RUNTIMES) == runtime]

    def _rollback(self) -> str:
        plugin = self._client.call("POST", f"/plugins/{self._plugin_id}/rollback", 200, json={}).json()
        answer = self._execute()
        expect(plugin["version"] == answer["version"] == "1.0.0", f"executed {answer['version']}")
        return f"{plugin['version']} is active and executes"

    def _install_notify(self) -> str:
        permissions = {"network": [self._webhook.host]}
        package = pack(PLUGINS / "notify-webhook", self._packages, changes={"permissions": permissions})
        with package.open("rb") as file:
            plugin = self._client.call(
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
        self._client.call("POST", f"{path}/enable", 403)
        self._client.call("PUT", f"{path}/grants", 200, json={"network": [self._webhook.host]})
        config = {
            "name": "demo",
            "scope": "app",
            "isDefault": True,
            "configItems": {"url": self._webhook.url, "token": "s3cr3t-token"},
        }
        shown = self._client.call("POST", f"{path}/configs", 201, json=config).json()
        expect(shown["configItems"]["token"] == "***", "the secret was shown")
        self._client.call("POST", f"{path}/enable", 200)
        return f"config {shown['configId']}, token shown as {shown['configItems']['token']}"

    def _notify(self) -> str:
        body = {"action": "notify", "params": {"message": "hello from the walkthrough"}}
        answer = self._client.call("POST", f"/plugins/{self._notify_id}/execute", 200, json=body).json()
        expect(len(self._webhook.received) == 1, "the webhook got nothing")
        received = self._webhook.received[0]
        expect(received["authorization"] == "Bearer s3cr3t-token", "the token did not arrive")
        return f"{answer['result']}; the webhook got {received['body']}"

    def _drop(self) -> str:
        package = pack(
            PLUGINS / "word-count" / "1.0.0", self._packages, changes={"name": "dropped-word-count"}
        )
        key = f"incoming/drop/{self._alias}/{package.name}"
        self._stack.client("s3").put_object(Bucket=self._stack.bucket, Key=key, Body=package.read_bytes())
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            items = self._client.call("GET", "/plugins", 200, params={"source": "s3"}).json()["items"]
            if items:
                return f"{items[0]['pluginId']} {items[0]['version']} from s3://{self._stack.bucket}/{key}"
            time.sleep(0.05)
        raise Failed("the dropped package was not installed")

    def _metrics(self) -> str:
        rows = self._client.call("GET", "/plugins/metrics", 200).json()
        mine = next(row for row in rows if row["name"] == "word-count")
        shown = {name: mine[name] for name in ("executions", "errors", "p50Ms", "p95Ms", "coldLoads")}
        expect(mine["executions"] > 0, f"no executions: {mine}")
        return f"word-count {shown}"

    def _instances(self) -> str:
        runtimes = self._environments(runtime=True)
        loaded = [one["pluginId"] for item in runtimes for one in item["loaded"]]
        return f"{len(self._environments(runtime=False))} api, {len(runtimes)} runtime with {loaded}"

    def _disable(self) -> str:
        self._client.call("POST", f"/plugins/{self._plugin_id}/disable", 200)
        codes = {self._execute(expected=409)["code"] for _ in range(API_PROCESSES * 2)}
        expect(codes == {"plugin.disabled"}, f"answered {codes}")
        return f"{API_PROCESSES * 2} executions, all refused with plugin.disabled"

    def _uninstall(self) -> str:
        self._client.call("DELETE", f"/plugins/{self._plugin_id}", 204)
        for _ in range(API_PROCESSES * 2):
            self._client.call("GET", f"/plugins/{self._plugin_id}", 404)
        return f"{API_PROCESSES * 2} reads, all 404"


def main(arguments: list[str] | None = None) -> int:
    """Run the walkthrough; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.walkthrough", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="serve afterwards, until Ctrl-C")
    options = parser.parse_args(arguments)
    wait_for_signal = until_signal()
    local = ROOT / ".local"
    folder = local if options.serve else local / "demo"
    if not options.serve:
        # The demonstration begins from nothing; `make run` keeps its state.
        shutil.rmtree(folder, ignore_errors=True)
    webhook = Webhook()
    began = time.perf_counter()
    environment = {"HOTPLUG_PRIVATE_ENDPOINTS": webhook.host}
    try:
        with LocalStack(folder, api_processes=API_PROCESSES, environment=environment) as stack:
            print(
                f"The local stack answers at {stack.url} after {time.perf_counter() - began:.1f} s.\n",
                flush=True,
            )
            walk = Walkthrough(stack, webhook, local / "examples")
            ok = walk.run()
            _write(local / "demo.json", ok, walk.steps)
            if options.serve and ok:
                _serve(stack, walk)
                wait_for_signal()
    finally:
        webhook.close()
    return 0 if ok else 1


def _write(path: Path, ok: bool, steps: list[Step]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"ok": ok, "steps": [asdict(step) for step in steps]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    held = sum(step.ok for step in steps)
    print(f"\n{held} of {len(steps)} steps held; {path} has them.", flush=True)


def _serve(stack: LocalStack, walk: Walkthrough) -> None:
    print(
        f"""
base URL          {stack.url}
admin credential  {stack.admin_credential}
its own app       {walk.credential}

Try next:
  export HOTPLUG_URL={stack.url} HOTPLUG_CREDENTIAL={walk.credential}
  curl -s $HOTPLUG_URL/api/v1/plugins -H "Authorization: Bearer $HOTPLUG_CREDENTIAL"
  curl -s $HOTPLUG_URL/openapi.json
docs/getting-started.md goes on from here. Ctrl-C stops everything; the state stays in .local/.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
