"""Names of tools: `plugin_{name}_{action}`, `tool_{name}_{operationId}`, `flow_{name}`.

Clients and models admit letters, digits, `_` and `-`, at most 64 of them; our names are longer and freer. The rules:

- a name is what its parts spell, everything else in them replaced by `_`;
- where two things would get the same name, **each** of them gets a suffix made from its identity: who comes first must
  not decide who is called, and a model that remembers the plain name must not reach the other one by it;
- so does what is too long.

The names of a set depend on that set alone, not on its order, so every process and every page agrees on them, and
adding something else leaves them as they are unless it spells one of them.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable

from chalicelib.mcp.offers import Key

MAX_LENGTH = 64
# Characters of the suffix, per level: ten (50 bits) tell apart what was not made to clash; 52 are all.
_SUFFIXES = (0, 10, 20, 52)
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")


def assign(kind: str, things: Iterable[tuple[Key, tuple[str, ...]]]) -> dict[str, Key]:
    """Return the name of each thing.

    Parameters
    ----------
    kind
        What all names begin with, at most 8 letters.
    things
        Identity and the parts of its name. Identities differ, parts need not.

    Returns
    -------
    dict
        Name → identity, each identity once.
    """
    plain = {key: "_".join((kind, *(_OTHERS.sub("_", part) for part in parts))) for key, parts in things}
    levels = {key: 0 if len(name) <= MAX_LENGTH else 1 for key, name in plain.items()}
    names = {key: _spelled(key, name, levels[key]) for key, name in plain.items()}
    # A suffixed name may spell another's plain one (an action can be called `x_k3j…`). Levels only rise, and whole
    # digests differ, so this ends.
    while clashing := _clashing(names):
        for key in clashing:
            levels[key] = min(levels[key] + 1, len(_SUFFIXES) - 1)
            names[key] = _spelled(key, plain[key], levels[key])
    return {name: key for key, name in names.items()}


def _clashing(names: dict[Key, str]) -> list[Key]:
    holders: defaultdict[str, list[Key]] = defaultdict(list)
    for key, name in names.items():
        holders[name].append(key)
    return [key for keys in holders.values() if len(keys) > 1 for key in keys]


def _spelled(key: Key, plain: str, level: int) -> str:
    length = _SUFFIXES[level]
    if not length:
        return plain
    # Lengths before the parts: ("a", "b/c") and ("a/b", "c") are two identities.
    identity = "".join(f"{len(part)}:{part}" for part in key).encode()
    digest = base64.b32encode(hashlib.sha256(identity).digest()).decode().lower()[:length]
    return f"{plain[: MAX_LENGTH - length - 1]}_{digest}"
