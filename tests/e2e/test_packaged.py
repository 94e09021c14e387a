"""The walkthrough on what is packaged, instead of the checkout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.tools.helpdesk import DESK_KEY
from infra.functions import ROOT
from infra.local.stack import LocalStack
from infra.walkthrough.outside import Outside
from infra.walkthrough.packaged import Unpacked, unpack
from infra.walkthrough.plugins import WEBHOOK_TOKEN
from infra.walkthrough.steps import API_PROCESSES
from infra.walkthrough.walk import Walkthrough
from tests.least_privilege.watched import WatchedStack
from tests.packages import package_to_run

pytestmark = pytest.mark.slow
# Of Lambda's runtime client, which the service brings along, and of what that needs.
RUNTIME = {"runtime_client", "_speedups"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """The application and its layer by the recipe of the deployed ones, for the interpreter that runs here."""
    return unpack(package_to_run(), tmp_path_factory.mktemp("package") / "unpacked")


@pytest.fixture
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    made.close()


def loaded(pid: int) -> set[Path]:
    """The shared objects of Python packages that a process has loaded."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    paths = {Path(line.split()[-1]) for line in lines if line.endswith(".so") and "/lib-dynload/" not in line}
    return {path for path in paths if "python" in str(path)}


def secrets_of(stack: LocalStack, walkthrough: Walkthrough) -> dict[str, bytes]:
    """What nobody but its owner may ever read, by its kind."""
    credentials = {"admin": stack.admin_credential, "publisher": walkthrough.tenant.credential}
    found = {kind: str(one).partition(":")[2] for kind, one in credentials.items()}
    found["storage"] = stack.credentials[1]
    assert all(len(secret) >= 16 for secret in found.values())
    found |= {"plugin's configuration": WEBHOOK_TOKEN, "tool's credential": DESK_KEY}
    return {kind: secret.encode() for kind, secret in found.items()}


def test_the_walkthrough_holds_on_what_is_packaged(
    package: Unpacked, outside: Outside, tmp_path: Path
) -> None:
    environment = {"HOTPLUG_PRIVATE_ENDPOINTS": outside.endpoints("")}
    with WatchedStack(
        tmp_path / "local",
        api_processes=API_PROCESSES,
        environment=environment | package.variables,
        runtime_environment=package.variables,
        task_root=package.code,
    ) as stack:
        walkthrough = Walkthrough(stack, outside, tmp_path / "examples")
        assert walkthrough.run(), [step for step in walkthrough.steps if not step.ok]
        # AND what ran came out of the package: nothing of the checkout, nor of what it has installed
        found = set().union(*(loaded(one.pid) for one in stack.environments("api")))
        assert any(path.is_relative_to(package.packages) for path in found)
        told = secrets_of(stack, walkthrough)
        foreign = {path for path in found if path.is_relative_to(ROOT) or ".venv" in path.parts}
        assert {path.name.partition(".")[0] for path in foreign} <= RUNTIME
        logs = stack.logs_folder
    # AND nothing secret stands in what the functions, and the stack around them, have written
    written = {path.name: path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    assert sum(map(len, written.values())) > 50_000
    assert any(walkthrough.tenant.alias.encode() in text for text in written.values())
    found_in = [
        (name, kind) for name, text in written.items() for kind, secret in told.items() if secret in text
    ]
    assert found_in == []


def test_a_folder_without_a_package_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"infra\.aws package"):
        unpack(tmp_path, tmp_path / "unpacked")
