"""Which models a `models` package exports, and which tables they are."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from chalicelib.agents.loading import rules
from chalicelib.agents.loading.index_names import derive_names
from chalicelib.agents.loading.traces import mapped_classes
from chalicelib.agents.models import INDEPENDENT, SHARED
from chalicelib.agents.names import SHARED_OWNER
from chalicelib.agents.spec import AgentSpec, LoadError, OwnedTable
from chalicelib.core import telemetry
from chalicelib.core.database import Base
from chalicelib.core.settings import ONE_MIB

SHARED_PACKAGE = "chalicelib.agents.shared.models"


@dataclass(frozen=True)
class SharedModels:
    """The tables that all agents share, by name."""

    tables: tuple[OwnedTable, ...] = ()

    def table(self, model: type[Base]) -> OwnedTable | None:
        """Return the table of a shared model; None for any other class."""
        return next((table for table in self.tables if table.model is model), None)


@dataclass(frozen=True)
class Discovered:
    """What an agent's `models` package exports: its own tables by name, then the shared ones by name."""

    tables: tuple[OwnedTable, ...] = ()
    warnings: tuple[str, ...] = ()


class CoreModelsLoader:
    """Loads the shared models, before any agent.

    Parameters
    ----------
    package
        The import name of the package that exports them.
    """

    def __init__(self, package: str = SHARED_PACKAGE) -> None:
        self._package = package

    def load(self) -> SharedModels:
        """Import the shared models and return their tables.

        Raises
        ------
        LoadError
            As for an agent's tables: without the shared models no agent can be loaded.
        """
        telemetry.event("core.models.loading", package=self._package)
        module = importlib.import_module(self._package)
        telemetry.event("core.models.scanning", path=str(Path(module.__file__ or "").parent))
        tables = []
        for model in exported(module):
            table = rules.table_of(model)
            rules.check_name(SHARED_OWNER, table)
            rules.check_columns(model, SHARED)
            derive_names(table)
            tables.append(OwnedTable(table.name, SHARED_OWNER, SHARED, model))
            telemetry.event("shared.model.found", model=model.__name__, table=table.name)
        telemetry.event("shared.models.registered", count=len(tables))
        return SharedModels(tuple(sorted(tables, key=lambda table: table.name)))


def exported(module: ModuleType) -> list[type[Base]]:
    """Return the models that a package exports, each once, by name: those of `__all__`, else of its public names.

    A model is a subclass of `Base`, not `Base` itself, that defines `__tablename__`.

    Raises
    ------
    LoadError
        `agent.models_package`: `__all__` names what is not there.
    """
    return [model for model in _classes(module) if isinstance(getattr(model, "__tablename__", None), str)]


def has_models(folder: Path) -> bool:
    """Return whether an agent has a `models` package.

    Raises
    ------
    LoadError
        `agent.models_package`: the folder holds modules and no `__init__.py`. Python would import them all the same,
        and the agent would run until it first needs a table that nobody made.
    """
    models = folder / "models"
    if (models / "__init__.py").is_file():
        return True
    if any(models.glob("*.py")):
        raise LoadError(
            "agent.models_package", "Its models/ has no __init__.py, so none of its models is loaded."
        )
    return False


def discover(spec: AgentSpec, module: ModuleType | None, shared: SharedModels) -> Discovered:
    """Return the tables of an agent, checked, the names of their indexes derived.

    Parameters
    ----------
    module
        Its `models` package; None where it has none.

    Raises
    ------
    LoadError
        `agent.table_owned`, `agent.table_prefix`, `agent.columns`, `agent.models_package`.
    """
    models = [] if module is None else exported(module)
    used = [table for table in map(shared.table, models) if table is not None]
    own = []
    for model in models:
        if shared.table(model) is None:
            _check_owner(spec, model)
            own.append(model)
    mapped = mapped_classes(spec.module)
    # Also what is not exported claims the name of its table.
    for model in dict.fromkeys([*own, *mapped]):
        _check_own_table(spec, model, shared)
    for model in own:
        rules.check_columns(model, INDEPENDENT)
        derive_names(rules.table_of(model))
    tables = {table.name: table for table in (_owned(spec, model) for model in own)}
    warnings = [warning for model in own for warning in rules.class_name_warnings(spec.name, model)]
    warnings += _without_tablename(module)
    warnings += _without_base(spec, module)
    warnings += _not_exported(spec, [*models, *_no_models(spec, module)], mapped)
    return Discovered((*(tables[name] for name in sorted(tables)), *_by_name(used)), tuple(warnings))


def _owned(spec: AgentSpec, model: type[Base]) -> OwnedTable:
    table = rules.table_of(model)
    mapper = model.__mapper__
    # Subclasses may live in the table of their parent, which then counts once.
    while mapper.inherits is not None and mapper.inherits.local_table is table:
        mapper = mapper.inherits
    return OwnedTable(table.name, spec.name, INDEPENDENT, mapper.class_)


def _by_name(tables: list[OwnedTable]) -> list[OwnedTable]:
    return sorted(tables, key=lambda table: table.name)


def _classes(module: ModuleType) -> list[type[Base]]:
    models = [cls for cls in _types(module) if issubclass(cls, Base) and cls is not Base]
    return sorted(models, key=lambda model: (model.__name__, model.__module__))


def _types(module: ModuleType) -> list[type]:
    """Every class that a package exports, a model or not."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    missing = [str(name) for name in names if not isinstance(name, str) or not hasattr(module, name)]
    if missing:
        raise LoadError(
            "agent.models_package",
            f"Its models package exports {', '.join(missing)[:500]}, which is not there.",
        )
    return list({getattr(module, name): None for name in names if isinstance(getattr(module, name), type)})


def _no_models(spec: AgentSpec, module: ModuleType | None) -> list[type]:
    """What an agent exports with a `__tablename__` of its own, and without `Base`."""
    if module is None:
        return []
    return [
        cls
        for cls in _types(module)
        if cls.__module__.startswith(f"{spec.module}.")
        and "__tablename__" in vars(cls)
        and not issubclass(cls, Base)
    ]


def _without_base(spec: AgentSpec, module: ModuleType | None) -> list[str]:
    return [
        f"agent.no_base: {cls.__name__} does not subclass Base, so it is no model and no table is made"
        for cls in sorted(_no_models(spec, module), key=lambda cls: cls.__name__)
    ]


def _check_owner(spec: AgentSpec, model: type[Base]) -> None:
    if not model.__module__.startswith(f"{spec.module}."):
        raise LoadError(
            "agent.table_owned",
            f"It exports the model {model.__name__} of {model.__module__}, which is neither its own nor shared.",
        )


def _check_own_table(spec: AgentSpec, model: type[Base], shared: SharedModels) -> None:
    table = rules.table_of(model)
    for other in shared.tables:
        if rules.table_of(other.model) is table:
            raise LoadError(
                "agent.table_owned", f"The model {model.__name__} takes the shared table {table.name}."
            )
    rules.check_name(spec.name, table)


def _without_tablename(module: ModuleType | None) -> list[str]:
    if module is None:
        return []
    return [
        f"agent.tablename: {model.__name__} has no __tablename__, so it is no model and no table is made"
        for model in _classes(module)
        if not isinstance(getattr(model, "__tablename__", None), str) and "__abstract__" not in vars(model)
    ]


def _not_exported(spec: AgentSpec, models: Sequence[type], mapped: list[type[Base]]) -> list[str]:
    known = {(model.__module__, model.__name__) for model in models}
    defined = {(model.__module__, model.__name__) for model in mapped} | set(_declared(spec))
    return [
        f"agent.not_exported: {name} of {module.removeprefix(f'{spec.module}.')} is not exported by the models package,"
        " so no table is made for it"
        for module, name in sorted(defined - known)
    ]


def _declared(spec: AgentSpec) -> Iterator[tuple[str, str]]:
    """(module, class) of every class in models/ with a `__tablename__`, imported or not."""
    root = spec.folder / "models"
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(spec.folder).with_suffix("").parts
        module = ".".join((spec.module, *(parts[:-1] if parts[-1] == "__init__" else parts)))
        if path.stat().st_size > ONE_MIB:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            yield module, "(a file that is no Python)"
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and "__tablename__" in _assigned(node):
                yield module, node.name


def _assigned(node: ast.ClassDef) -> set[str]:
    targets: list[ast.expr] = []
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}
