"""The bytes of a text, counted by the server."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class octets(GenericFunction[int]):
    """`octets(column)`: how many bytes its text has."""

    type = BigInteger()
    inherit_cache = True


@compiles(octets)
def _of_a_server(element: octets, compiler: Any, **options: Any) -> str:
    return f"OCTET_LENGTH({compiler.process(element.clauses, **options)})"


@compiles(octets, "sqlite")
def _of_sqlite(element: octets, compiler: Any, **options: Any) -> str:
    # `octet_length` is of 3.43; the length of a text ends at its first NUL.
    return f"LENGTH(CAST({compiler.process(element.clauses, **options)} AS BLOB))"
