"""Importing what an agent consists of, so that one that fails leaves nothing behind.

Its classes are mapped on the registry that all models share: a relationship to a class that does not exist would make
every later use of any model fail, its own or another's. So what a failed import has mapped is taken off again.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError

from chalicelib.agents.spec import LoadError
from chalicelib.core.database import Base

_TAKEN = "is already defined for this MetaData instance"
_UNNAMED = "__tablename__"


@contextmanager
def leaving_nothing(module: str) -> Iterator[None]:
    """Undo what was imported and mapped inside, where it ends in an error.

    Parameters
    ----------
    module
        The agent's package; its modules are imported anew the next time.
    """
    tables, mappers = set(Base.metadata.tables), Base.registry.mappers
    try:
        yield
    except BaseException:
        for mapper in Base.registry.mappers - mappers:
            # Private, and all that SQLAlchemy has for a single class; a test shows that the others still work.
            manager = mapper.class_manager
            Base.registry._dispose_manager_and_mapper(manager)
            Base.registry._managers.pop(manager, None)
        for name in set(Base.metadata.tables) - tables:
            Base.metadata.remove(Base.metadata.tables[name])
        for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            del sys.modules[name]
        raise


def import_module(name: str) -> ModuleType:
    """Import one module of an agent.

    Raises
    ------
    LoadError
        `agent.import`; `agent.table_owned` for a table that another model has, `agent.tablename` for a model without a
        table's name.
    """
    try:
        return importlib.import_module(name)
    except InvalidRequestError as error:
        text = str(error)
        if _TAKEN in text:
            table = text.partition("'")[2].partition("'")[0]
            raise LoadError("agent.table_owned", f"The table {table} belongs to another model.") from error
        if _UNNAMED in text:
            raise LoadError("agent.tablename", f"A model has no table: {text.splitlines()[0]}") from error
        raise _failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error


def check_mappers() -> None:
    """Let SQLAlchemy connect the models with one another, as it would do at their first use.

    Raises
    ------
    LoadError
        `agent.models`: a relationship that leads nowhere, for instance.
    """
    try:
        Base.registry.configure()
    except SQLAlchemyError as error:
        raise LoadError(
            "agent.models", f"Its models do not fit together: {str(error).splitlines()[0]}"
        ) from error


def _failed(name: str, error: BaseException) -> LoadError:
    # For the agent's author, who wrote what is told here.
    return LoadError("agent.import", f"{name} cannot be imported: {type(error).__name__}: {str(error)[:500]}")
