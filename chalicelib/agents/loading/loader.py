"""Loading the agents of a directory, in the order that is promised, each apart from the others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chalicelib.agents.base import AgentBase
from chalicelib.agents.container import ServiceContainer
from chalicelib.agents.loading import discovery, scan
from chalicelib.agents.loading.description import spec_of
from chalicelib.agents.loading.discovery import SHARED_PACKAGE, CoreModelsLoader, Discovered, SharedModels
from chalicelib.agents.loading.history_models import history_models
from chalicelib.agents.loading.imports import entry_class, failing_as, import_part, instance_of
from chalicelib.agents.loading.order import in_order
from chalicelib.agents.loading.registry import AgentRegistry, agent_tables
from chalicelib.agents.loading.scan import Found
from chalicelib.agents.loading.traces import Traces, protected, within
from chalicelib.agents.loading.variables import resolve
from chalicelib.agents.spec import AgentSpec, LoadedAgent, LoadError
from chalicelib.core import telemetry
from chalicelib.core.database import Base

# Modules, mappers and tables belong to the process, so only one agent is imported at a time.
_importing = threading.RLock()


class AgentLoader:
    """Loads each sub-folder with an agent.yaml; what goes wrong with one is told on that one and stops no other.

    Parameters
    ----------
    directory
        Where the folders are.
    package
        Its import name.
    registry
        Where each agent is registered when all else is done.
    shared
        The shared models, loaded before.
    environment
        Where `${VAR}` is looked up.
    """

    def __init__(
        self,
        directory: Path,
        package: str,
        registry: AgentRegistry,
        shared: SharedModels,
        environment: Mapping[str, str],
    ) -> None:
        self._directory = directory.resolve()
        self._package = package
        self.registry = registry
        self._shared = shared
        self._environment = environment
        self._found: dict[str, Found] = {}

    def load(self) -> None:
        """Load all, once. Nothing is raised: each agent's error is in the registry."""
        with _importing:
            telemetry.event("agents.scanning", path=str(self._directory))
            self._found = {one.name: one for one in scan.scan(self._directory)}
            sound = {
                name: one.description.get("dependencies", ())
                for name, one in self._found.items()
                if one.description is not None
            }
            ordered, circular = in_order(sound)
            for name in [name for name in self._found if name not in sound]:
                self._register(_unloaded(self._found[name]))
            for name in circular:
                detail = "Its dependencies lead back to itself."
                self._register(self._failed(self._found[name], LoadError("agent.dependency", detail)))
            for name in ordered:
                self._register(self._load(self._found[name]))

    def reload(self, name: str, *, generation: int | None = None) -> LoadedAgent:
        """Make a new instance of an agent and put it in the place of the old one.

        agent.yaml, its variables and the prompts are read again; what is imported is not imported again, so that the
        mapped classes stay the same. An agent whose import failed is imported.

        Parameters
        ----------
        generation
            The `agent.generation` that asks for it; kept on the result.

        Returns
        -------
        LoadedAgent
            With an error, and without an instance, where it does not load any more.

        Raises
        ------
        KeyError
            There is no such agent.
        """
        with _importing:
            before = self.registry.get(name)
            if before is None:
                raise KeyError(name)
            if generation is not None and before.generation == generation:
                return before  # another thread has done it, while this one waited
            found = scan.read_again(self._found[name])
            loaded = _unloaded(found) if found.description is None else self._load(found)
            if loaded.agent is None:
                # What was mapped before stays mapped, and its tables stay its own.
                loaded = replace(loaded, tables=before.tables)
            loaded = replace(loaded, generation=generation)
            self.registry.replace(loaded)
            _tell(loaded)
            return loaded

    def _register(self, loaded: LoadedAgent) -> None:
        self.registry.register(loaded)
        _tell(loaded)

    def _load(self, found: Found) -> LoadedAgent:
        failure = None
        traces = None
        try:
            with failing_as("agent.mappers", found.folder):
                # So that what appears on others' classes afterwards is this agent's doing.
                Base.registry.configure()
            traces = Traces(self._packages())
            return self._built(found, traces)
        except LoadError as error:
            # A new one: the frames of the old would keep the module's half-made classes alive.
            failure = LoadError(error.code, error.detail)
        except KeyboardInterrupt:
            if traces is not None:
                traces.undo()
            raise
        if traces is not None:
            traces.undo()
        return self._failed(found, failure)

    def _failed(self, found: Found, error: LoadError) -> LoadedAgent:
        return LoadedAgent(found.name, self._spec(found), None, error=error)

    def _spec(self, found: Found) -> AgentSpec:
        return spec_of(found.description or {}, found.folder, self._module(found))

    def _built(self, found: Found, traces: Traces) -> LoadedAgent:
        spec = self._spec(found)
        spec = replace(spec, config=resolve((found.description or {}).get("config", {}), self._environment))
        self._check_dependencies(spec)
        telemetry.event("agent.loading", agent=spec.name, version=spec.version)
        with protected():
            instance, discovered = self._imported(spec)
            self._check_imports(spec, traces)
            with failing_as("agent.mappers", spec.folder):
                Base.registry.configure()
        for model, attribute in traces.new_attributes():
            detail = f"It adds {attribute} to the model {model.__name__}, which is not its own."
            raise LoadError("agent.table_owned", detail)
        history = history_models(type(instance).history_model, discovered, self._shared)
        return LoadedAgent(
            spec.name,
            spec,
            instance,
            tables=discovered.tables,
            history_models=history.by_mode,
            history_mode=history.mode,
            warnings=discovered.warnings,
        )

    def _imported(self, spec: AgentSpec) -> tuple[AgentBase, Discovered]:
        module = import_part(spec, "agent")
        instance = instance_of(entry_class(module, spec), spec)
        models = import_part(spec, "models") if discovery.has_models(spec.folder) else None
        if models is not None:
            telemetry.event("agent.models.imported", agent=spec.name, package=models.__name__)
        discovered = discovery.discover(spec, models, self._shared)
        for table in discovered.tables:
            telemetry.event(
                "agent.model.found",
                agent=spec.name,
                model=table.model.__name__,
                table=table.name,
                mode=table.mode,
            )
        telemetry.event("agent.models.registered", agent=spec.name, count=len(discovered.tables))
        return instance, discovered

    def _check_dependencies(self, spec: AgentSpec) -> None:
        for name in spec.dependencies:
            known = self.registry.get(name)
            if known is None:
                raise LoadError("agent.dependency", f"It depends on {name}, which is not there.")
            if known.agent is None:
                state = "is disabled" if known.error is None else "could not be loaded"
                raise LoadError("agent.dependency", f"It depends on {name}, which {state}.")

    def _check_imports(self, spec: AgentSpec, traces: Traces) -> None:
        """Another agent's package may be imported where it is a dependency: it is loaded then, and by itself."""
        allowed = {self._module(self._found[name]) for name in (spec.name, *spec.dependencies)}
        for module in traces.new_modules():
            if not within(module, allowed):
                raise LoadError(
                    "agent.dependency", f"It imports {module}, whose agent is not in its dependencies."
                )

    def _module(self, found: Found) -> str:
        return f"{self._package}.{found.folder.name}"

    def _packages(self) -> list[str]:
        return [self._module(found) for found in self._found.values()]


def _unloaded(found: Found) -> LoadedAgent:
    return LoadedAgent(found.name, None, None, error=found.error)


def _tell(loaded: LoadedAgent) -> None:
    """Write the line of what became of an agent."""
    if loaded.error is not None:
        telemetry.event("agent.failed", agent=loaded.name, code=loaded.error.code, detail=loaded.error.detail)
    elif loaded.spec is None:  # disabled in agent.yaml
        telemetry.event("agent.skipped", agent=loaded.name)
    else:
        telemetry.event(
            "agent.loaded",
            agent=loaded.name,
            version=loaded.spec.version,
            tables=len(loaded.tables),
            warnings=list(loaded.warnings),
        )


def load_agents(
    directory: Path,
    package: str,
    container: ServiceContainer,
    *,
    shared_package: str = SHARED_PACKAGE,
    environment: Mapping[str, str],
) -> AgentLoader:
    """Load everything in the order of the contract: services, shared models, agents; ready.

    The database is not asked for anything.

    Returns
    -------
    AgentLoader
        With the `registry` that it filled; it reloads single agents.

    Raises
    ------
    LoadError
        A shared model breaks the rules: no agent could be loaded then.
    """
    telemetry.event("services.ready", services=container.names(), count=len(container.names()))
    shared = CoreModelsLoader(shared_package).load()
    registry = AgentRegistry(shared.tables)
    loader = AgentLoader(directory, package, registry, shared, environment)
    loader.load()
    agents = registry.all()
    telemetry.event(
        "agents.ready",
        loaded=sum(one.agent is not None for one in agents),
        failed=sum(one.error is not None for one in agents),
        disabled=sum(one.agent is None and one.error is None for one in agents),
        tables=len(agent_tables(registry)),
    )
    return loader
