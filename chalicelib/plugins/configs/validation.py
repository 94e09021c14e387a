"""What is wrong with values by a configSchema: with new ones, and with stored ones when the schema changes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.core.errors import Violation
from chalicelib.plugins.catalog import Registration
from chalicelib.plugins.configs import secrets
from chalicelib.plugins.configs.models import PluginConfig

# Violations of stored configs against a new schema that one answer names.
MAX_REPORTED = 100


def schema_of(found: Registration) -> Any:
    """Return a plugin's configSchema; one that declares none takes any values."""
    return found.resource["configSchema"]


def violations_of(schema: Any, values: Any, pointer: str, *, partial: bool = False) -> list[Violation]:
    """Return what is wrong with values. jsonschema costs 126 ms of import, too much for a plugin that has
    no schema."""
    if schema is None:
        return []
    from chalicelib.core.json_schema.schemas import violations

    return violations(schema, values, pointer, partial=partial)


def violations_against(session: Session, plugin_id: str, schema: Any) -> list[Violation]:
    """Return what stored configs break of a new configSchema, at most 100; pointers begin with /configs/{configId}.

    Nothing is decrypted: of a secret only its JSON type is judged, and alternatives that hang on one are left to the
    check before an execution.
    """
    found: list[Violation] = []
    rows = session.scalars(
        select(PluginConfig).where(PluginConfig.plugin_id == plugin_id).order_by(PluginConfig.id)
    )
    for row in rows:
        prefix = f"/configs/{row.config_id}"
        places = [prefix + pointer for pointer in row.config_items["secrets"]]
        broken = violations_of(schema, secrets.opaque(row.config_items), prefix, partial=True)
        found += [problem for problem in broken if not _hangs_on_secret(problem, places)]
        if len(found) >= MAX_REPORTED:
            break
    return found[:MAX_REPORTED]


def _hangs_on_secret(problem: Violation, places: list[str]) -> bool:
    for place in places:
        if problem.pointer == place:
            return problem.rule != "schema.type"
        if problem.pointer.startswith(f"{place}/"):
            return True
        if place.startswith(f"{problem.pointer}/") and problem.rule in (
            "schema.anyOf",
            "schema.oneOf",
            "schema.not",
        ):
            return True
    return False
