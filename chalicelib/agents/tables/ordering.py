"""In which order the oldest rows of an agent's table are found: retention must not read what it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Integer, Table

ID, CREATED_AT = "id", "created_at"


@dataclass(frozen=True)
class Ordering:
    """How the oldest rows of a table are found.

    Parameters
    ----------
    by_id
        The primary key is one integer `id`, which grows: from `new_id`, or given by the server.
    by_time
        An index begins with `created_at`.
    dated
        There is a `created_at`.
    """

    by_id: bool
    by_time: bool
    dated: bool

    @property
    def for_days(self) -> bool:
        """True where rows can be kept for some days: an id alone tells no time, it may be a number that the server
        gives, and all such rows would seem to be older than anything."""
        return self.dated and (self.by_id or self.by_time)

    @property
    def for_rows(self) -> bool:
        """True where a number of newest rows can be kept."""
        return self.by_id


def ordering_of(table: Table) -> Ordering:
    """Return how the oldest rows of a table are found, from its model or as it was reflected."""
    primary = list(table.primary_key.columns)
    alone = len(primary) == 1 and primary[0].name == ID
    kind = primary[0].type if primary else None
    first = [next(iter(index.columns), None) for index in table.indexes]
    dated = CREATED_AT in table.columns
    return Ordering(
        by_id=alone and isinstance(kind, Integer),
        by_time=dated and alone and any(one is not None and one.name == CREATED_AT for one in first),
        dated=dated,
    )
