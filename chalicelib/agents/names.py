"""Names of agents, threads and tables with the rules that lead from one to another, and what an agent may be asked.

Imports nothing but the standard library: every endpoint checks its path by it, tables or no tables.
"""

from __future__ import annotations

import hashlib

AGENT_NAME_PATTERN = "^[a-z][a-z0-9_]{0,62}$"
# Begins with a letter or digit: `..` is no thread.
THREAD_ID_PATTERN = "^[0-9A-Za-z][0-9A-Za-z._:@-]{0,254}$"
TABLE_NAME_PATTERN = "^agentflow_[a-z0-9_]{1,54}$"
# `shared` would own the shared tables; `tables` is a path of the API beside the agents'.
RESERVED = frozenset({"shared", "tables"})
PREFIX = "agentflow_"
SHARED_PREFIX = "agentflow_shared_"
SHARED_OWNER = "shared"

MAX_AGENT_NAME = 100
# Characters of a message to an agent, whoever sends it: a client, or a flow's node.
MAX_MESSAGE = 100_000
# MySQL's limit of every identifier; indexes have the same.
MAX_TABLE_NAME = 64
_HASH = 8


def table_name(agent: str, table: str) -> str:
    """Return the name of an agent's own table, or of a shared one for the agent `shared`: at most 64 characters."""
    return shortened(f"{PREFIX}{agent}_{table}")


def shortened(name: str) -> str:
    """Return an identifier of at most 64 characters: a longer one ends in a hash of the whole instead of its tail.

    Two long names that begin alike stay apart, and a name always leads to the same one.
    """
    if len(name) <= MAX_TABLE_NAME:
        return name
    suffix = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: MAX_TABLE_NAME - _HASH - 1]}_{suffix}"
