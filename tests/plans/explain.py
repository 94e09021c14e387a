"""How the server carries out a statement: EXPLAIN, and the rows that it really reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event

from tests.plans.growth import NAMES

# An index that is walked from one end, of which a page takes a piece.
BOUNDED_WALK = 1100
DERIVED = "<derived>"
_PLANNED = re.compile(r"\s*(SELECT|UPDATE|DELETE)\b", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:FROM|JOIN|UPDATE|,)\s*`?(\w+)`?\s+AS\s+`?(\w+)`?", re.IGNORECASE)


@dataclass(frozen=True)
class Sent:
    """A statement as the driver got it. `during` says what asked for it."""

    statement: str
    parameters: Any
    during: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with the plan of a statement: which table (`<derived>` for a part of the statement itself), and
    `ALL`, `index`, `filesort` or `temporary`."""

    sent: Sent
    table: str
    what: str
    row: dict[str, Any]

    def __str__(self) -> str:
        plan = {name: self.row.get(name) for name in ("type", "key", "rows", "Extra")}
        text = re.sub(
            r"^SELECT (?:\w+\.\w+(?: AS \w+)?,? )+", "SELECT … ", " ".join(self.sent.statement.split())
        )
        return f"{self.what} on {self.table} during {self.sent.during}: {plan}\n    {text}"


class Recorder:
    """Collects what is sent, under the name of what is going on."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.during = ""

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        """Record what goes through an engine."""

        def before(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            if _PLANNED.match(statement):
                self.sent.append(Sent(statement, parameters[0] if many else parameters, self.during))

        event.listen(engine, "before_cursor_execute", before)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", before)

    def tables(self) -> set[str]:
        """Return the growing tables that a recorded statement names."""
        words = {word for sent in self.sent for word in re.findall(r"\w+", sent.statement)}
        return words & NAMES


def faults(engine: Engine, sent: list[Sent]) -> list[Fault]:
    """EXPLAIN statements and return what is wrong with them, each way once."""
    found: dict[tuple[str, str, str], Fault] = {}
    with closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        for one in {(s.statement, repr(s.parameters)): s for s in sent}.values():
            # Once more, as the driver does it.
            text = cursor.mogrify(one.statement, one.parameters)
            # MySQL 9 shows a tree unless it is asked for the table.
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {text}")
            names = [column[0] for column in cursor.description]
            for values in cursor.fetchall():
                for fault in _faults(one, dict(zip(names, values, strict=True))):
                    found.setdefault((one.statement, fault.table, fault.what), fault)
    return list(found.values())


def _faults(sent: Sent, row: dict[str, Any]) -> Iterator[Fault]:
    aliases = {alias: name for name, alias in _NAMED.findall(sent.statement)}
    table = aliases.get(row["table"] or "", row["table"] or "")
    if table.startswith("<"):
        table = DERIVED
    elif table not in NAMES:
        return
    if row["type"] == "ALL" and table != DERIVED:
        yield Fault(sent, table, "ALL", row)
    if row["type"] == "index" and int(row["rows"] or 0) > BOUNDED_WALK:
        yield Fault(sent, table, "index", row)
    for what in ("filesort", "temporary"):
        if f"Using {what}" in (row["Extra"] or ""):
            yield Fault(sent, table, what, row)


def rows_read(engine: Engine, sent: Sent) -> int:
    """Run a statement again and return how many index entries and rows the server read for it."""
    with closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("FLUSH STATUS")
        cursor.execute(sent.statement, sent.parameters)
        cursor.fetchall()
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for name, value in cursor.fetchall() if name != "Handler_read_rnd_deleted")
