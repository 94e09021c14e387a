"""What an import leaves in this process, and how it is taken back.

An agent's module that fails half-way has already mapped some of its classes. They would stay in `Base.registry`, and
a relationship to a class that never came makes `configure_mappers` fail for everyone: one broken agent, and no query
of the whole process works any more. SQLAlchemy can dispose of all mappers of a registry but not of one, so this module
alone reaches into it (`registry._managers`, `_dispose_manager_and_mapper`, `Mapper._props`); its tests show that the
pinned version still works that way.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Constraint, Index, Table, event

from chalicelib.agents.spec import LoadError
from chalicelib.core.database import Base


def within(name: str, packages: Collection[str]) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def mapped_classes(package: str) -> list[type[Base]]:
    """Return the mapped classes that were defined in a package, by module and name."""
    found = [manager.class_ for manager in list(_managers()) if manager.is_mapped]
    mine = [model for model in found if within(model.__module__, (package,))]
    return sorted(mine, key=lambda model: (model.__module__, model.__qualname__))


@contextmanager
def protected() -> Iterator[None]:
    """Refuse, inside, whatever adds a column, index or constraint to a table that is there already.

    `extend_existing` in a model's `__table_args__`, a column assigned to another's class, or an `Index` on its columns
    would change a table that is not the agent's, silently and for everyone.

    Raises
    ------
    LoadError
        `agent.table_owned`.
    """
    existing = set(Base.metadata.tables.values())

    def refuse(_item: Any, parent: Any) -> None:
        if isinstance(parent, Table) and parent in existing:
            raise LoadError(
                "agent.table_owned", f"It changes the table {parent.name}, which is there already."
            )

    for kind in (Column, Index, Constraint):
        event.listen(kind, "before_parent_attach", refuse)
    try:
        yield
    finally:
        for kind in (Column, Index, Constraint):
            event.remove(kind, "before_parent_attach", refuse)


class Traces:
    """What there was before an agent was imported.

    Parameters
    ----------
    packages
        The agents' packages. What else the import brought (a library, a module of ours) stays: others use it.
    """

    def __init__(self, packages: Collection[str]) -> None:
        self._packages = tuple(packages)
        self._modules = frozenset(sys.modules)
        self._tables = frozenset(Base.metadata.tables.values())
        self._attributes = {manager: frozenset(manager) for manager in list(_managers())}

    def new_modules(self) -> list[str]:
        """Return the modules of agents that were imported since, sorted."""
        return sorted(
            name for name in sys.modules if name not in self._modules and within(name, self._packages)
        )

    def new_attributes(self) -> list[tuple[type[Any], str]]:
        """Return what was added since to classes that were there: (class, attribute), as by a `backref`."""
        return sorted(
            (
                (manager.class_, name)
                for manager, before in self._attributes.items()
                for name in frozenset(manager) - before
            ),
            key=lambda found: (found[0].__qualname__, found[1]),
        )

    def undo(self) -> None:
        """Take back what agents' packages brought since: mappers, tables, attributes of others' classes, modules."""
        for model, name in self.new_attributes():
            _remove_attribute(model, name)
        for manager in list(_managers()):
            if manager not in self._attributes and within(manager.class_.__module__, self._packages):
                _dispose(manager)
        kept = {manager.mapper.local_table for manager in list(_managers()) if manager.is_mapped}
        for table in set(Base.metadata.tables.values()) - self._tables - kept:
            Base.metadata.remove(table)
        for name in self.new_modules():
            _forget_module(name)
        self._attributes.clear()
        # Classes die in circles, and SQLAlchemy keeps what it must not lose in weak collections.
        gc.collect()


def _managers() -> Any:
    return Base.registry._managers


def _dispose(manager: Any) -> None:
    Base.registry._managers.pop(manager, None)
    Base.registry._dispose_manager_and_mapper(manager)


def _remove_attribute(model: type[Any], name: str) -> None:
    manager = model.__mapper__.class_manager
    # `manager.uninstrument_attribute`, which goes through the class's own refusal to lose a mapped attribute.
    if manager.local_attrs.pop(name, None) is not None:
        type.__delattr__(model, name)
    manager.pop(name, None)
    manager._reset_memoizations()
    model.__mapper__._props.pop(name, None)
    model.__mapper__._expire_memoizations()


def _forget_module(name: str) -> None:
    module = sys.modules.pop(name, None)
    parent, _, last = name.rpartition(".")
    if getattr(sys.modules.get(parent), last, None) is module and module is not None:
        delattr(sys.modules[parent], last)
