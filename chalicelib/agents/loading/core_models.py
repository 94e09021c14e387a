"""The tables that all agents share; loaded before any agent, which may use them."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.agents.loading import models as discovery
from chalicelib.agents.loading.importing import import_module
from chalicelib.agents.names import SHARED_OWNER
from chalicelib.agents.spec import OwnedTable
from chalicelib.core import telemetry
from chalicelib.core.database import Base


@dataclass(frozen=True)
class SharedModels:
    """The shared tables, and the one that keeps the history of whoever has none of its own."""

    tables: tuple[OwnedTable, ...]
    history: type[Base]

    def find(self, model: type[Base]) -> OwnedTable | None:
        """Return the shared table of a model; None where it is no shared one."""
        return next((table for table in self.tables if table.model is model), None)


class CoreModelsLoader:
    """Finds the shared models in a package.

    Parameters
    ----------
    package
        Its import name; what it exports is shared.
    history
        The name of the model that keeps histories.
    """

    def __init__(
        self, package: str = "chalicelib.agents.shared.models", history: str = "SharedConversationHistory"
    ) -> None:
        self._package = package
        self._history = history

    def load(self) -> SharedModels:
        """Import the package and return its models.

        Raises
        ------
        LoadError
            A shared model breaks a rule: nothing works without them, so this is not caught anywhere.
        """
        telemetry.event("core.models.loading", package=self._package)
        module = import_module(self._package)
        telemetry.event("core.models.scanning", package=self._package)
        tables = []
        for model in discovery.exported(module):
            table = discovery.owned_table(model, SHARED_OWNER)
            telemetry.event("shared.model.found", model=model.__name__, table=table.name)
            tables.append(table)
        telemetry.event("shared.models.registered", count=len(tables))
        return SharedModels(tuple(tables), getattr(module, self._history))
