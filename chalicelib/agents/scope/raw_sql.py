"""What can be seen of SQL that is written as text: which tables it names, and whether it could break out.

A text is a piece of a statement that the criteria are added to. So it may hold nothing that ends or comments out what
stands around it, and where it names a table of agents itself it must carry the criteria itself.
"""

from __future__ import annotations

import re

from chalicelib.agents.names import PREFIX
from chalicelib.agents.scope.access import ScopeViolation, require_agent_table
from chalicelib.agents.scope.raw_criteria import require_criteria
from chalicelib.agents.scope.raw_tokens import Token, tokens_of

_TABLE_FOLLOWS = frozenset({"from", "join", "straight_join", "into", "update", "table"})
_LIST_ENDS = frozenset(
    [
        "where",
        "group",
        "order",
        "having",
        "limit",
        "union",
        "except",
        "intersect",
        "select",
        "set",
        "for",
        "window",
    ]
)
# May stand between FROM and its table.
_NO_TABLE = frozenset({"lateral", "dual", "only"})
TABLE_FUNCTIONS = frozenset({"json_each", "json_tree", "json_table"})
_WRITING = frozenset(
    [
        "insert",
        "replace",
        "update",
        "delete",
        "merge",
        "truncate",
        "load",
        "call",
        "set",
        "create",
        "drop",
        "alter",
    ]
)
_HINT = re.compile(
    r"\s*((USE|FORCE|IGNORE)\s+(INDEX|KEY)(\s+FOR\s+(JOIN|ORDER\s+BY|GROUP\s+BY))?\s*\([\w$,\s]*\)|NOT\s+INDEXED"
    r"|INDEXED\s+BY\s+[\w$]+)\s*",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"[^\w\s()'\"`;#\[\]\\/-]+|/|->>?|-|[A-Za-z]+( [A-Za-z]+){0,2}")
_OPERATOR_REFUSED = frozenset(["select", "from", "join", "union", "except", "intersect", "into", "where"])


def read(text: str, *, statement: bool = False) -> frozenset[str]:
    """Return the tables of agents that a text names.

    Parameters
    ----------
    statement
        True where the text is a whole statement; then it must read.

    Raises
    ------
    ScopeViolation
        Those of `tokens_of` and `require_criteria`; a table of others; a statement that writes.
    """
    tokens = tokens_of(text)
    if statement:
        _require_reading(tokens)
    tables = _tables(tokens)
    mentioned = {token.value for token in tokens if token.is_name and token.value.startswith(PREFIX)}
    if mentioned:
        require_criteria(tokens, tables, mentioned)
    return frozenset(mentioned)


def require_hint(text: str) -> None:
    """Refuse a hint that is more than one about indexes.

    Raises
    ------
    ScopeViolation
    """
    if not _HINT.fullmatch(text):
        raise ScopeViolation("a scoped statement takes hints about indexes only")


def require_operator(text: str) -> None:
    """Refuse an operator that could hold more than itself.

    Raises
    ------
    ScopeViolation
    """
    if not _OPERATOR.fullmatch(text.strip()) or _OPERATOR_REFUSED & set(text.lower().split()):
        raise ScopeViolation(f"a scoped statement takes no operator {text!r}")


def _require_reading(tokens: list[Token]) -> None:
    # `REPLACE(` and `INSERT(` are functions.
    written = [
        token.value
        for place, token in enumerate(tokens)
        if token.kind == "word"
        and token.value in _WRITING
        and not _locks(tokens, place)
        and not (place + 1 < len(tokens) and tokens[place + 1].value == "(")
    ]
    if not tokens or tokens[0].value not in ("select", "with") or written:
        raise ScopeViolation("raw SQL of an agent only reads; write with insert(), update() and delete()")


def _locks(tokens: list[Token], place: int) -> bool:
    return tokens[place].value == "update" and place > 0 and tokens[place - 1].value == "for"


def _tables(tokens: list[Token]) -> list[tuple[Token, str]]:
    made = _made(tokens)
    tables: list[tuple[Token, str]] = []
    # Of each pair of parentheses: whether a list of tables is open in it, and whether its next word is a table.
    listing: dict[int, bool] = {}
    expected: dict[int, bool] = {}
    for place, token in enumerate(tokens):
        group = token.group
        if token.kind == "word" and token.value in _TABLE_FOLLOWS and not _locks(tokens, place):
            listing[group] = expected[group] = True
        elif token.kind == "word" and token.value in _LIST_ENDS:
            listing[group] = expected[group] = False
        elif token.value == "," and listing.get(group):
            expected[group] = True
        elif token.value == "(":
            # `FROM (a JOIN b ...)`: where a table is expected, a parenthesis holds a list of its own.
            listing[group] = expected[group] = expected.get(token.outer, False)
            expected[token.outer] = False
        elif expected.get(group) and token.is_name and token.value not in _NO_TABLE:
            expected[group] = False
            if token.value not in made:
                tables += [(token, name) for name in _named(tokens, place)]
    return tables


def _made(tokens: list[Token]) -> set[str]:
    """Return the names that the text itself gives to subqueries: `WITH n AS (`, `WITH n (id) AS (`."""
    made = set()
    for place in range(1, len(tokens) - 1):
        if tokens[place].value != "as" or tokens[place + 1].value != "(":
            continue
        before = place - 1
        if tokens[before].value == ")":
            opened = [
                i
                for i, token in enumerate(tokens)
                if token.value == "(" and token.group == tokens[before].group
            ]
            before = opened[0] - 1
        if before >= 0 and tokens[before].is_name:
            made.add(tokens[before].value)
    # A table of agents is never hidden by a name that the text makes.
    return {name for name in made if not name.startswith(PREFIX)}


def _named(tokens: list[Token], place: int) -> list[str]:
    name = tokens[place].value
    after = tokens[place + 1].value if place + 1 < len(tokens) else ""
    if after == "(" and name in TABLE_FUNCTIONS:
        return []
    if after == ".":
        raise ScopeViolation(f"raw SQL of an agent names no other schema: {name}")
    return [require_agent_table(name)]
