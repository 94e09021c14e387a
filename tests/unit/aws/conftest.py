"""The templates of both stages, built once: what Chalice writes takes four seconds."""

from __future__ import annotations

from typing import Any

import pytest

from infra.aws.package import chalice_package
from infra.aws.root import Packaged, templates
from infra.aws.stages import STAGES
from infra.functions import FunctionTable, function_table
from tests.aws_templates import Deployment, deployed


@pytest.fixture(scope="session")
def table() -> FunctionTable:
    """The functions as they are deployed."""
    return function_table(per_endpoint=True)


@pytest.fixture(scope="session")
def packaged(table: FunctionTable, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    """What `chalice package` wrote of this application."""
    return chalice_package("dev", table, tmp_path_factory.mktemp("package") / "chalice")


@pytest.fixture(scope="session")
def documents(table: FunctionTable, packaged: Packaged) -> dict[str, dict[str, dict[str, Any]]]:
    """Every template by stage and file name."""
    return {
        name: {
            file: template.as_dict()
            for file, template in templates(stage, table, packaged, "release", "python3.13").items()
        }
        for name, stage in STAGES.items()
    }


@pytest.fixture(scope="session", params=sorted(STAGES))
def stage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def deployment(documents: dict[str, dict[str, dict[str, Any]]], stage: str) -> Deployment:
    """All that deploying a stage makes."""
    return deployed(documents[stage])
