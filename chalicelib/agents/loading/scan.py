"""The folders of agents, and the names under which they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chalicelib.agents.loading import description
from chalicelib.agents.names import RESERVED
from chalicelib.agents.spec import LoadError

# An agent `shared_x` would own tables named as the shared ones are.
_RESERVED_BEGINNING = "shared_"


@dataclass(frozen=True)
class Found:
    """A folder with an agent.yaml.

    Parameters
    ----------
    name
        That of agent.yaml; the folder's where that cannot be used.
    description
        What agent.yaml says, checked; None where it is disabled or has an error.
    """

    folder: Path
    name: str
    description: Mapping[str, Any] | None = None
    error: LoadError | None = None
    disabled: bool = False


def scan(directory: Path) -> list[Found]:
    """Return every agent of a directory, in the order of the folders' names; no two have the same name.

    Of two that claim one name the first has it. Nothing is imported.
    """
    folders = sorted(path.parent for path in directory.glob(f"*/{description.FILE}"))
    read = [_read(folder) for folder in folders]
    claimed: dict[str, Found] = {}
    sound: set[Path] = set()
    for one in read:
        if one.description is not None and one.name not in claimed:
            claimed[one.name] = one
            sound.add(one.folder)
    named = []
    for one in read:
        if one.folder in sound:
            named.append(one)
            continue
        final = _told_apart(one, claimed)
        claimed[final.name] = final
        named.append(final)
    return named


def read_again(known: Found) -> Found:
    """Return what a folder says now. Its name stays: what runs under it (rows, tables, callers) does not move.

    Returns
    -------
    Found
        With the error `agent.name_mismatch` where agent.yaml has another name now.
    """
    now = _read(known.folder)
    if now.description is not None and now.name != known.name:
        detail = f"Its agent.yaml calls it {now.name!r} now; a new name takes effect with a new deployment."
        now = replace(now, description=None, error=LoadError("agent.name_mismatch", detail))
    return replace(now, name=known.name)


def _read(folder: Path) -> Found:
    document: dict[str, Any] = {}
    try:
        document = description.read(folder)
        if description.is_disabled(document):
            return Found(folder, _name(document, folder), disabled=True)
        description.check(document)
        _check_reserved(document["name"], folder.name)
    except LoadError as error:
        return Found(folder, _name(document, folder), error=LoadError(error.code, error.detail))
    return Found(folder, document["name"], document)


def _check_reserved(name: str, folder: str) -> None:
    for text in (name, folder):
        if text in RESERVED or text.startswith(_RESERVED_BEGINNING):
            raise LoadError("agent.reserved_name", f"The name {text} is reserved.")


def _name(document: Mapping[str, Any], folder: Path) -> str:
    name = document.get("name")
    usable = isinstance(name, str) and description.is_name(name)
    try:
        _check_reserved(str(name), "")
    except LoadError:
        usable = False
    return str(name) if usable else folder.name


def _told_apart(one: Found, claimed: Mapping[str, Found]) -> Found:
    """`one` under a name that nobody has; two descriptions of one name are an error of the second."""
    error = one.error
    if one.description is not None:
        first = claimed[one.name].folder.name
        error = LoadError("agent.duplicate_name", f"The folder {first} has an agent {one.name} already.")
    name, attempt = one.name, 1
    while name in claimed:
        name = one.folder.name if attempt == 1 else f"{one.folder.name}_{attempt}"
        attempt += 1
    return replace(one, name=name, description=None, error=error)
