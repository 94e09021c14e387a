"""From an agent's folder to its instance, with every failure told as a `LoadError`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy.exc import ArgumentError, InvalidRequestError

from chalicelib.agents.base import AgentBase, describing
from chalicelib.agents.spec import AgentSpec, LoadError

# Their texts name modules, lines and mapped classes. The text of any other exception may hold what the module was
# working with, a key of a service for instance, and a load error is shown to everyone who may read.
_TOLD = (ImportError, SyntaxError, NameError, ArgumentError, InvalidRequestError)
_MAX_TEXT = 500
# SQLAlchemy has no classes for these two.
_TABLE_TWICE = "is already defined for this MetaData instance"
_NO_TABLE = "does not have a __table__ or __tablename__ specified"


@contextmanager
def failing_as(code: str, folder: Path) -> Iterator[None]:
    """Turn whatever an agent's code raises, `SystemExit` too, into a `LoadError`; only Ctrl-C goes on.

    Nothing of the exception is kept: its frames hold the module's names, and so its half-made classes.
    """
    failure = None
    try:
        yield
    except (LoadError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - strangers' code may raise anything, and it concerns one agent
        failure = _described(code, error, folder)
    if failure is not None:
        raise failure


def import_part(spec: AgentSpec, part: str) -> ModuleType:
    """Import `agent` or `models` of an agent's package, or return it where it was imported.

    Raises
    ------
    LoadError
        `agent.import`; `agent.table_owned` or `agent.tablename` where SQLAlchemy refused a model.
    """
    folder = spec.folder.name
    if not folder.isidentifier():
        raise LoadError("agent.import", f"Its folder {folder[:100]!r} is no name of a Python package.")
    if not (spec.folder / "__init__.py").is_file():
        raise LoadError("agent.import", f"Its folder {folder} has no __init__.py.")
    name = f"{spec.module}.{part}"
    if name not in sys.modules:
        # What an earlier failure made Python remember of the folder.
        importlib.invalidate_caches()
    with failing_as("agent.import", spec.folder):
        return importlib.import_module(name)


def entry_class(module: ModuleType, spec: AgentSpec) -> type[AgentBase]:
    """Return the class that agent.yaml names.

    Raises
    ------
    LoadError
        `agent.entry_class`: there is no such class, it is no `AgentBase`, or it has no `invoke` that can be called.
    """
    found: Any = module
    for name in spec.entry_class.removeprefix("agent.").split("."):
        found = getattr(found, name, None)
    if not isinstance(found, type):
        raise _no_entry(spec, "is no class of agent.py")
    if not issubclass(found, AgentBase) or found is AgentBase:
        raise _no_entry(spec, "is no subclass of AgentBase")
    if found.invoke is AgentBase.invoke:
        raise _no_entry(spec, "has no method invoke")
    if inspect.iscoroutinefunction(found.invoke):
        raise _no_entry(spec, "has an invoke that is async; it must return the reply itself")
    return found


def instance_of(cls: type[AgentBase], spec: AgentSpec) -> AgentBase:
    """Return a new instance, which knows its description already while it is made.

    A class without an `__init__` of its own is given agent.yaml's name and description.

    Raises
    ------
    LoadError
        `agent.instance`: it cannot be made so, or has not called `AgentBase.__init__`; `agent.name_mismatch`.
    """
    with failing_as("agent.instance", spec.folder), describing(spec):
        instance = cls(spec.name, spec.description) if cls.__init__ is AgentBase.__init__ else cls()  # type: ignore[call-arg]
        name = getattr(instance, "name", None)
        described = getattr(instance, "_spec", None) is spec
    if not described:
        raise LoadError("agent.instance", "Its class does not call AgentBase.__init__.")
    if name != spec.name:
        raise LoadError(
            "agent.name_mismatch",
            f"Its class calls itself {str(name)[:100]!r}, and agent.yaml calls it {spec.name!r}.",
        )
    return instance


def _no_entry(spec: AgentSpec, why: str) -> LoadError:
    return LoadError("agent.entry_class", f"The entry_class {spec.entry_class} {why}.")


def _described(code: str, error: BaseException, folder: Path) -> LoadError:
    text = str(error)
    if isinstance(error, InvalidRequestError) and _TABLE_TWICE in text:
        code = "agent.table_owned"
    elif isinstance(error, InvalidRequestError) and _NO_TABLE in text:
        code = "agent.tablename"
    told = f": {text[:_MAX_TEXT]}" if isinstance(error, _TOLD) else ""
    return LoadError(code, f"{type(error).__name__}{_place(error, folder)}{told}")


def _place(error: BaseException, folder: Path) -> str:
    """Where in the agent's own files it happened."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    root = f"{folder}/"
    mine = [f" at {name.removeprefix(root)}:{line}" for name, line in frames if name.startswith(root)]
    return mine[-1] if mine else ""
