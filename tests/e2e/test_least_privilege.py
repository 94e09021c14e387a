"""Every function calls what its role grants, and nothing that it refuses.

All of it runs with one function for each endpoint, as deployed: the walkthrough, then what makes each function use each
of its grants (tests/least_privilege/drive). KMS and Secrets Manager are an emulator's. Every other stack of the
end-to-end tests is watched in the same way, and fails where it is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.walkthrough.outside import Outside
from infra.walkthrough.steps import API_PROCESSES
from infra.walkthrough.walk import Walkthrough
from tests.e2e.conftest import UNLIMITED
from tests.least_privilege.calls import Call
from tests.least_privilege.drive import callers, jobs, plugins, sealing
from tests.least_privilege.drive.world import World, kept_on, with_prober
from tests.least_privilege.roles import deployed_functions, deployed_roles
from tests.least_privilege.watched import WatchedStack, refused, unused
from tests.ministack import running_ministack
from tests.model_server import ModelServer, converse, said
from tests.upstreams import Upstreams

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams) -> Iterator[list[Call]]:
    """Every call, in the order in which they were made."""
    folder = tmp_path_factory.mktemp("recorded")
    clock = folder / "clock"
    clock.write_text("0")
    with (
        closing(Outside()) as outside,
        ModelServer(said("Yes.")) as model,
        running_ministack() as aws,
        WatchedStack(
            folder / "local",
            database_url=f"sqlite:///{folder}/hotplug.db",
            api_processes=API_PROCESSES,
            per_endpoint=True,
            schedules=False,
            task_root=with_prober(folder / "application"),
            environment={
                **UNLIMITED,
                **kept_on(aws, model),
                "HOTPLUG_PRIVATE_ENDPOINTS": f"{outside.endpoints(model.endpoint)},{upstreams.endpoints}",
                "HOTPLUG_RECORD_CLOCK": str(clock),
            },
        ) as stack,
    ):
        walk = Walkthrough(stack, outside, folder / "examples")
        assert walk.run(), walk.steps[-1].detail
        with closing(World(stack, upstreams, outside.webhook.url, clock)) as world:
            sealing.drive(world)
            made = plugins.drive(world)
            callers.drive(world, made)
            jobs.drive(world, made.tenant)
    yield stack.calls()


def test_no_function_makes_a_call_that_its_role_refuses(calls: list[Call]) -> None:
    assert refused(calls, deployed_roles()) == []
    assert len({call.function for call in calls}) >= 30
    # All keys are wrapped by the one that the deployment names, by its id or its ARN: a role grants no other.
    keys = {call.parameters["KeyId"].rpartition("/")[2] for call in calls if call.service == "kms"}
    assert len(keys) == 1


def test_each_function_uses_all_that_it_is_granted(calls: list[Call]) -> None:
    found = sorted(unused(calls, deployed_roles()))
    assert not found, "\n".join(
        f"{name} is granted {action} ({place}) and never used it" for name, action, place in found
    )


def test_bedrock_is_asked_by_those_alone_whose_roles_let_them(tmp_path: Path, upstreams: Upstreams) -> None:
    """One function serves all endpoints here: a call is told by the endpoint that was asked."""
    with (
        ModelServer(converse("Yes.")) as model,
        WatchedStack(
            tmp_path / "local",
            roles=deployed_roles("bedrock"),
            schedules=False,
            environment={
                **UNLIMITED,
                "HOTPLUG_LLM_PROVIDER": "bedrock",
                "HOTPLUG_LLM_MODEL": "eu.amazon.nova-lite-v1:0",
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": model.origin,
            },
        ) as stack,
        closing(World(stack, upstreams, "", tmp_path / "clock")) as world,
    ):
        callers.ask_models(world.tenant())
    calls = [call for call in stack.calls() if call.service == "bedrock-runtime"]
    asking = {function.name for function in deployed_functions().functions if "ask_model" in function.rights}
    assert {call.function for call in calls} == asking
    left = unused(calls, deployed_roles("bedrock"))
    assert [one for one in left if one[1].startswith("bedrock:")] == []
    # AND where the model is an endpoint nobody may ask Bedrock
    assert len(refused(calls, deployed_roles())) == 2 * len(asking)
