"""What schedules do, and the same over the API: after hours, in which events were lost and functions died, and after
weeks. Each finds something of its own to do."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.e2e.tenants import SAYING, Tenant, fresh_name
from tests.least_privilege.drive.callers import FLOWS, RUNS, asking, made_flow, waiting
from tests.least_privilege.drive.world import World

INSTALLS = "/api/v1/plugins/installs"
HOURS, WEEKS = 2.0, 40 * 24.0


@dataclass(frozen=True)
class Doer:
    """What does the jobs: the functions of schedules, or the endpoint by the jobs' names."""

    world: World
    over_api: bool

    def does(self, function: str, *jobs: str) -> None:
        if not self.over_api:
            self.world.fire(function)
            return
        for name in jobs:
            self.world.job(name)


def drive(world: World, tenant: Tenant) -> None:
    """Leave work for each job twice, and let it be done once by its schedule and once over the API."""
    world.lose_events()
    tenant.admin("POST", f"/api/v1/apps/{tenant.alias}/webhook-secret", 201)
    ending = made_flow(tenant, fresh_name("ending"), SAYING)
    path = f"{FLOWS}/{asking(tenant)}/runs"
    doers = (Doer(world, over_api=False), Doer(world, over_api=True))
    world.later(HOURS)
    for doer in doers:
        _installs_and_runs(world, tenant, path, f"{FLOWS}/{ending}/runs")
        doer.does("sweep", "sweep", "sweep_runs", "send_run_callbacks")
        _uploads(world, tenant)
        doer.does("expired_uploads", "expired_uploads")
        doer.does("lost_events", "lost_events")
    world.later(WEEKS)
    for doer in doers:
        _old(world, tenant, path)
        doer.does("expired_uploads", "expired_uploads")
        doer.does("daily", "retain_runs", "tombstoned_objects")
    _former_master(world)
    _deploy(world)


def _installs_and_runs(world: World, tenant: Tenant, asking_path: str, ending_path: str) -> None:
    # Functions that died while they registered: one had found out which version it was, one had not.
    found, unseen = _arrived(world, tenant), _arrived(world, tenant)
    # A run whose start was lost, and one whose question nobody answered.
    lost, expired = waiting(tenant, asking_path), waiting(tenant, asking_path)
    with world.database() as connection:
        for (install_id, _), version in ((found, found[1]), (unseen, "")):
            connection.execute(
                "UPDATE t_plugin_install SET state = 'verifying', object_version = ? WHERE install_id = ?",
                (version, install_id),
            )
        for run, state in ((lost, "queued"), (expired, "waiting")):
            connection.execute(
                "UPDATE flow_run SET state = ?, wake_at = created_at WHERE run_id = ?", (state, run["runId"])
            )
    # One that has ended, and whose app is to be told.
    tenant.admin("POST", ending_path, 200, json={"callbackUrl": world.webhook})
    _orphans(world)


def _uploads(world: World, tenant: Tenant) -> None:
    # One that came although no event told of it, one that never came, and one to an install that was cancelled.
    _arrived(world, tenant)
    tenant.open_install()
    cancelled, _ = _arrived(world, tenant)
    tenant.admin("DELETE", f"{INSTALLS}/{cancelled}", 200)
    world.put_object(f"incoming/drop/{tenant.alias}/{fresh_name('lost')}.zip")


def _old(world: World, tenant: Tenant, asking_path: str) -> None:
    world.put_object(f"incoming/drop/{fresh_name('nobody')}/x.zip")
    _orphans(world)
    run = waiting(tenant, asking_path)
    tenant.admin("POST", f"{RUNS}/{run['runId']}/cancel", 200)


def _orphans(world: World) -> None:
    """Objects that no row names."""
    world.put_object(f"plugins/{fresh_name('plugin_none')}/1.0.0/none.zip")
    world.put_object(f"compiled/{fresh_name('none')}/none.cwasm")


def _arrived(world: World, tenant: Tenant) -> tuple[str, str]:
    """Upload to an install without anybody being told; return the install's id and the object's version."""
    install_id = tenant.open_install()
    return install_id, world.put_object(f"incoming/tasks/{install_id}.zip")


def _former_master(world: World) -> None:
    """Let the data keys be another master's: the same key by another name."""
    other = "kms:arn:aws:kms:us-east-1:000000000000:key/"
    with world.database() as connection:
        renamed = "UPDATE app_data_key SET wrapped_by = ? || substr(wrapped_by, 5)"
        assert connection.execute(renamed, [other]).rowcount > 0
    world.job("rewrap_data_keys")


def _deploy(world: World) -> None:
    """Ask `migrate` as CloudFormation does. It reads its secrets; the database here has no users to make, and the
    answer goes nowhere."""
    event = {
        "RequestType": "Update", "ResponseURL": "http://127.0.0.1:9/", "StackId": "s", "RequestId": "r",
        "LogicalResourceId": "Migration",
    }  # fmt: skip
    outcome = world.stack.invoke("migrate", event)
    assert "does not go to AWS" in json.loads(outcome.payload)["errorMessage"]
