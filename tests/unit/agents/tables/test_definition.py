from __future__ import annotations

import subprocess
import sys
from typing import Any

from sqlalchemy import Column, DateTime, ForeignKeyConstraint, Index, String, Text, UniqueConstraint, text

from chalicelib.agents.shared.models import SharedConversationHistory
from chalicelib.agents.tables.definition import schema_hash
from chalicelib.core.database import MEDIUM_TEXT, UtcDateTime
from tests.agent_tables import columns, model


def test_the_order_of_declaration_makes_no_difference() -> None:
    first, second = Index("ix_a", "app_id"), Index("ix_b", "app_id", "title")
    ordered = model(
        first, second, UniqueConstraint("title", name="uq_a"), UniqueConstraint("id", name="uq_b")
    )
    reversed_ = model(
        UniqueConstraint("id", name="uq_b"),
        Index("ix_b", "app_id", "title"),
        UniqueConstraint("title", name="uq_a"),
        Index("ix_a", "app_id"),
        base=columns()[::-1],
    )
    assert schema_hash(ordered) == schema_hash(reversed_)
    assert len(schema_hash(ordered)) == 64


def test_every_difference_makes_another_hash() -> None:
    def short() -> Column[str]:
        return Column("x", String(50))

    variants: list[tuple[Any, ...]] = [
        (),
        (short(),),
        (Column("y", String(50)),),
        (Column("x", String(51)),),
        (Column("x", String(50), nullable=False),),
        (Column("x", String(50, collation="utf8mb4_general_ci")),),
        (Column("x", MEDIUM_TEXT),),
        (Column("x", Text),),
        (Column("x", UtcDateTime()),),
        (Column("x", DateTime),),
        (Column("x", String(50), primary_key=True),),
        (short(), Index("ix", "x")),
        (short(), Index("ix", "x", "title")),
        (short(), Index("ix", "title", "x")),
        (short(), Index("ix", text("x DESC"))),
        (short(), Index("iy", "x")),
        (short(), Index("ix", "x", unique=True)),
        (short(), Index("ix", "x", mysql_length={"x": 10})),
        (short(), UniqueConstraint("x", name="ix")),
        (short(), UniqueConstraint("x", "title", name="ix")),
        (short(), ForeignKeyConstraint(["x"], ["app.name"])),
    ]
    hashes = [schema_hash(model(*parts)) for parts in variants]
    assert len(set(hashes)) == len(variants)


def test_a_type_that_no_server_takes_has_a_hash_too() -> None:
    """A cold start compares and nothing else: making that table is what fails."""
    endless = schema_hash(model(Column("x", String)))
    assert endless not in {schema_hash(model(Column("x", Text))), schema_hash(model(Column("x", String(1))))}


def test_every_process_computes_the_same() -> None:
    program = (
        "from chalicelib.agents.shared.models import SharedConversationHistory as M\n"
        "from chalicelib.agents.tables.definition import schema_hash\n"
        "print(schema_hash(M))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {schema_hash(SharedConversationHistory)}
