"""What each function's role grants, read from the templates without building the package.

The API's definition and the events that Chalice writes grant nothing to a role, so nothing stands for them here.
tests/unit/aws/test_least_privilege.py compares with the roles of the whole deployment.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from infra.aws import rights
from infra.aws.root import Packaged, templates
from infra.aws.stages import STAGES
from infra.functions import FunctionTable, function_table
from tests.aws_templates import Json, deployed
from tests.least_privilege.calls import Need, place_of


@dataclass(frozen=True)
class Roles:
    """The statements of every function's role, by the function's name in the table."""

    statements: Mapping[str, tuple[Json, ...]]

    def allow(self, function: str, need: Need) -> bool:
        """Tell whether a function may do what a call of its needs."""
        return any(_allows(statement, need) for statement in self.statements[function])

    def granted(self, function: str) -> set[tuple[str, str]]:
        """Return (action, place) of all that a function's own code may do."""
        return {
            (action, place_of(resource))
            for statement in self.statements[function]
            if statement["Effect"] == "Allow" and via(statement) is None
            for action in statement["Action"]
            if action not in rights.SERVICE_SIDE
            for resource in listed(statement["Resource"])
        }

    def without(self, function: str, action: str) -> Roles:
        """Return the roles with one action taken away from one function."""
        left = tuple(
            {**one, "Action": [other for other in one["Action"] if other != action]}
            for one in self.statements[function]
        )
        return Roles({**self.statements, function: left})


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def via(statement: Json) -> str | None:
    """Return the service on whose behalf alone a statement grants a key: `s3`, or None for what our code does."""
    services = statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService")
    return None if services is None else str(services).partition(".")[0]


def _allows(statement: Json, need: Need) -> bool:
    return (
        statement["Effect"] == "Allow"
        and via(statement) is None
        and need.action in statement["Action"]
        and any(fnmatch.fnmatchcase(need.resource, pattern) for pattern in listed(statement["Resource"]))
        and all(_holds(*condition, need) for condition in statement.get("Condition", {}).items())
    )


def _holds(operator: str, keys: Mapping[str, str], need: Need) -> bool:
    """`Null: false` wants the key to be there. No other condition is used by a role for what our code calls."""
    assert operator == "Null", operator
    return all((key in need.context) != (absent == "true") for key, absent in keys.items())


@lru_cache(maxsize=1)
def deployed_functions() -> FunctionTable:
    """Return the functions as they are deployed."""
    return function_table(per_endpoint=True)


@lru_cache(maxsize=2)
def deployed_roles(llm_provider: str = "openai") -> Roles:
    """Return the roles of a deployment whose agents ask such a model."""
    table = deployed_functions()
    operation = {"x-amazon-apigateway-integration": {}}
    paths: Json = {}
    for route in table.routes:
        paths.setdefault(route.path, {})[route.method.lower()] = dict(operation)
    nothing = Packaged({"Properties": {"DefinitionBody": {"paths": paths}}}, {})
    documents = {
        name: template.as_dict()
        for name, template in templates(STAGES["prod"], table, nothing, "release", "python3.13").items()
    }
    for document in documents.values():
        document.pop("Transform", None)
    found = deployed(documents, LlmProvider=llm_provider)
    return read_roles(
        {
            properties["FunctionName"].removeprefix("hotplug-prod-"): found.statements(properties)
            for properties in found.of_type("AWS::Serverless::Function").values()
        }
    )


def read_roles(statements: Mapping[str, Iterable[Json]]) -> Roles:
    """Return roles by function name."""
    return Roles({name: tuple(found) for name, found in statements.items()})
