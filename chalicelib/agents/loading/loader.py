"""Loading agents from their folders: each by itself, registered last, and none stops another.

Imports happen once in a process: a reload makes a new instance of the class that is there, since a model that was
imported twice would be mapped twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from chalicelib.agents.base import AgentBase
from chalicelib.agents.loading import models as discovery
from chalicelib.agents.loading.agent_yaml import FILE, read_spec
from chalicelib.agents.loading.core_models import SharedModels
from chalicelib.agents.loading.importing import check_mappers, import_module, leaving_nothing
from chalicelib.agents.loading.registry import AgentRegistry
from chalicelib.agents.spec import AgentSpec, LoadedAgent, LoadError, OwnedTable
from chalicelib.core import telemetry
from chalicelib.core.database import Base


@dataclass(frozen=True)
class _Found:
    """A folder with an agent.yaml, and what that says."""

    folder: Path
    spec: AgentSpec | None
    error: LoadError | None = None


class AgentLoader:
    """Loads every agent of a directory.

    Parameters
    ----------
    directory, package
        Where the agents' folders are, and the import name of that directory.
    registry
        Gets every agent, also one that could not be loaded, with the reason.
    shared
        Loaded before.
    environment
        Where `${VAR}` of agent.yaml comes from.
    """

    def __init__(
        self,
        directory: Path,
        package: str,
        registry: AgentRegistry,
        shared: SharedModels,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._directory = directory
        self._package = package
        self._registry = registry
        self._shared = shared
        self._environment = environment

    def load_all(self) -> None:
        """Load every folder with an agent.yaml, in the order of their names, dependencies first."""
        telemetry.event("agents.scanning", path=self._directory.name)
        folders = sorted(path.parent for path in self._directory.glob(f"*/{FILE}"))
        for found in self._ordered([self._read(folder) for folder in folders]):
            loaded = self._load(found)
            self._registry.register(replace(loaded, name=self._free_name(loaded.name, found.folder)))

    def reload(self, name: str) -> LoadedAgent | None:
        """Make an agent's instance anew from its files as they are; None for one that is not there.

        One that fails now is in the registry with its error: the old instance is not used any more.
        """
        before = self._registry.get(name)
        if before is None:
            return None
        folder = before.spec.folder if before.spec else self._directory / name
        loaded = replace(self._load(self._read(folder)), name=name)
        self._registry.replace(loaded)
        return loaded

    # -- which, and in which order ---------------------------------------------------------------------------

    def _read(self, folder: Path) -> _Found:
        try:
            return _Found(folder, read_spec(folder, f"{self._package}.{folder.name}", self._environment))
        except LoadError as error:
            return _Found(folder, None, error)

    def _ordered(self, found: list[_Found]) -> Iterator[_Found]:
        """Yield each agent after those that it depends on; one in a circle, or whose dependency is not there, last."""
        waiting = list(found)
        done: set[str] = set()
        while waiting:
            ready = next((one for one in waiting if not one.spec or done >= set(one.spec.dependencies)), None)
            one = ready or waiting[0]
            waiting.remove(one)
            if one.spec:
                done.add(one.spec.name)
            yield one

    def _free_name(self, name: str, folder: Path) -> str:
        """The name that an agent is registered under: its folder's where another has its own already."""
        names = (
            name,
            folder.name,
            *(f"{folder.name}_{number}" for number in range(2, len(self._registry) + 3)),
        )
        return next(candidate for candidate in names if self._registry.get(candidate) is None)

    # -- one agent -------------------------------------------------------------------------------------------

    def _load(self, found: _Found) -> LoadedAgent:
        spec = found.spec
        if spec is None:
            return self._failed(found.folder.name, None, found.error or LoadError("agent.yaml", ""))
        if not spec.enabled:
            return LoadedAgent(spec.name, spec, None)
        telemetry.event("agent.loading", agent=spec.name, version=spec.version)
        try:
            self._check_alone(spec)
            with nullcontext() if _imported(spec) else leaving_nothing(spec.module):
                loaded = self._imported(spec)
        except LoadError as error:
            return self._failed(spec.name, spec, error)
        telemetry.event("agent.loaded", agent=spec.name, version=spec.version, tables=len(loaded.tables))
        return loaded

    def _failed(self, name: str, spec: AgentSpec | None, error: LoadError) -> LoadedAgent:
        telemetry.event("agent.failed", agent=name, code=error.code, detail=error.detail)
        return LoadedAgent(name, spec, None, error=error)

    def _check_alone(self, spec: AgentSpec) -> None:
        twin = self._registry.get(spec.name)
        if twin is not None and twin.spec is not None and twin.spec.folder != spec.folder:
            raise LoadError(
                "agent.duplicate_name",
                f"The folder {twin.spec.folder.name} has an agent {spec.name} already.",
            )
        for name in spec.dependencies:
            needed = self._registry.get(name)
            if needed is None or needed.agent is None:
                raise LoadError("agent.dependency", f"It depends on {name}, which is not loaded.")

    def _imported(self, spec: AgentSpec) -> LoadedAgent:
        instance = _instance(spec, import_module(f"{spec.module}.agent"))
        models = self._models(spec)
        check_mappers()
        if instance.history_model is self._shared.history and self._shared.history not in models:
            # It is there for every agent; only what an agent adds must be exported.
            models.append(self._shared.history)
        tables = self._tables(spec, models)
        histories, mode = discovery.history_models(tables, instance.history_model, self._shared.history)
        own = {table.name: table.model for table in tables}
        return LoadedAgent(
            name=spec.name,
            spec=spec,
            agent=instance,
            tables=tables,
            history_models=histories,
            history_mode=mode,
            warnings=(
                *discovery.not_exported(spec.module, own),
                *discovery.class_name_warnings(tables),
                *discovery.index_warnings(tables),
            ),
        )

    def _models(self, spec: AgentSpec) -> list[type[Base]]:
        folder = spec.folder / "models"
        if not folder.is_dir():
            return []
        if not (folder / "__init__.py").is_file():
            # Python would import it all the same, and its tables would never be made.
            raise LoadError("agent.models_package", "models/ has no __init__.py.")
        module = import_module(f"{spec.module}.models")
        telemetry.event("agent.models.imported", agent=spec.name)
        return discovery.exported(module)

    def _tables(self, spec: AgentSpec, models: list[type[Base]]) -> tuple[OwnedTable, ...]:
        own: list[OwnedTable] = []
        shared: list[OwnedTable] = []
        for model in models:
            known = self._shared.find(model)
            table = known or discovery.owned_table(model, spec.name)
            telemetry.event("agent.model.found", agent=spec.name, model=model.__name__, table=table.name)
            (shared if known else own).append(table)
        telemetry.event("agent.models.registered", agent=spec.name, count=len(own))
        return (*own, *shared)


def _instance(spec: AgentSpec, module: ModuleType) -> AgentBase:
    found: object = module
    for part in spec.entry_class.removeprefix("agent.").split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, AgentBase) and found is not AgentBase):
        raise LoadError(
            "agent.entry_class", f"agent.py has no subclass of AgentBase named {spec.entry_class}."
        )
    try:
        instance = found.__new__(found)
        instance._spec = spec
        instance.__init__()  # type: ignore[misc]
    except (Exception, SystemExit) as error:
        raise LoadError(
            "agent.instance", f"It cannot be made: {type(error).__name__}: {str(error)[:500]}"
        ) from error
    if instance.name != spec.name:
        raise LoadError("agent.name_mismatch", f"Its class says {instance.name}, its agent.yaml {spec.name}.")
    return instance


def _imported(spec: AgentSpec) -> bool:
    return f"{spec.module}.agent" in sys.modules
