"""The floors of the house: api and events stand on the domains, the domains on core, and nothing reaches upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "chalicelib"

DOMAINS = ("agents", "apps", "flows", "mcp", "plugins", "tools")
# What a floor may use besides itself. `apps` is the tenant that every domain belongs to.
ALLOWED = {
    "core": set(),
    "apps": {"core"},
    "plugins": {"core", "apps"},
    "tools": {"core", "apps"},
    "agents": {"core", "apps", "tools", "plugins"},
    "flows": {"core", "apps", "tools", "plugins", "agents"},
    "mcp": {"core", "apps", "tools", "plugins", "flows"},
    # Composes the scheduled jobs of all domains for both edges.
    "maintenance": {"core", *DOMAINS},
    "events": {"core", "maintenance", *DOMAINS},
    "api": {"core", "maintenance", *DOMAINS},
}
# Costly to import (facts: 35 to 600 ms each): only inside the function that uses them.
HEAVY = {
    "alembic", "aws_durable_execution_sdk_python", "aws_lambda_powertools",
    "boto3", "botocore", "cryptography", "httpcore", "httpx", "jsonschema",
    "httpx2", "mcp", "openapi_spec_validator", "python_multipart", "resolvelib", "tenacity", "wasmtime", "yaml",
}  # fmt: skip
# Modules that are themselves imported inside a function, by the one path that needs them.
LAZY_MODULES = {"chalicelib.core.idempotency"} | {
    f"chalicelib.tools.mcp_client.{name}" for name in ("connection", "http_transport", "requests")
}
# The runtime functions and their children must start without the database's 300 ms.
RUNTIME_FORBIDDEN = {"sqlalchemy", "pymysql", "chalice", "boto3"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, *, top_level: bool) -> Iterator[str]:
    """Yield what is imported; with `top_level` only what runs when the module itself is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif _runs_later(node, top_level):
            continue
        else:
            yield from imports(node, top_level=top_level)


def _runs_later(node: ast.AST, top_level: bool) -> bool:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    return top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_floor_reaches_upwards(path: Path) -> None:
    name = name_of(path)
    floor = name.split(".")[1] if "." in name else ""
    if not floor:
        return
    used = {
        found.split(".")[1]
        for found in imports(ast.parse(path.read_text()), top_level=False)
        if found.startswith("chalicelib.")
    }
    assert used - {floor} <= ALLOWED[floor], f"{name} uses {sorted(used - ALLOWED[floor] - {floor})}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_chalice_stays_at_the_edge(path: Path) -> None:
    name = name_of(path)
    uses = any(
        found.split(".")[0] == "chalice" for found in imports(ast.parse(path.read_text()), top_level=False)
    )
    assert not uses or name.startswith(("chalicelib.api.", "chalicelib.events."))


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_imports_are_made_where_they_are_used(path: Path) -> None:
    if name_of(path) in LAZY_MODULES:
        return
    found = {one.split(".")[0] for one in imports(ast.parse(path.read_text()), top_level=True)}
    assert not found & HEAVY
    eager = set(imports(ast.parse(path.read_text()), top_level=True))
    assert not eager & LAZY_MODULES


@pytest.mark.parametrize("path", sorted((PACKAGE / "plugins" / "runtime").rglob("*.py")), ids=name_of)
def test_the_runtime_needs_no_database(path: Path) -> None:
    found = {one.split(".")[0] for one in imports(ast.parse(path.read_text()), top_level=False)}
    assert not found & RUNTIME_FORBIDDEN


def test_packages_are_empty_doors() -> None:
    # What an agent's `models` package exports are its tables: that is its contract.
    doors = (path for path in PACKAGE.rglob("__init__.py") if path.parent.name != "models")
    filled = [name_of(path) for path in doors if path.read_text().strip()]
    assert filled == []


def test_the_rules_see_a_violation(tmp_path: Path) -> None:
    source = "import boto3\nfrom chalicelib.api import endpoint\ndef f():\n    import wasmtime\n"
    assert set(imports(ast.parse(source), top_level=True)) == {
        "boto3",
        "chalicelib.api",
        "chalicelib.api.endpoint",
    }
    assert "wasmtime" in set(imports(ast.parse(source), top_level=False))
