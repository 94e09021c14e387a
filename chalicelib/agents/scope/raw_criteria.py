"""Whether a text holds the criteria of each table of agents that it reads, where nothing lets rows pass them.

`app_id = :app_id` (and `agent_name = :agent_name`) must stand alone in the AND list of the WHERE or ON of the very
SELECT that has the table. That is narrower than SQL: what cannot be seen at once is refused, and can be written with
`select()`.
"""

from __future__ import annotations

from chalicelib.agents.scope.access import AGENT_COLUMN, APP_COLUMN, ScopeViolation, is_shared
from chalicelib.agents.scope.raw_tokens import Token

_BEFORE = frozenset({"where", "on", "and"})
_AFTER = frozenset(
    {
        "and",
        ")",
        "where",
        "group",
        "order",
        "having",
        "limit",
        "union",
        "except",
        "intersect",
        "for",
        "window",
    }
    | {"join", "inner", "cross", "straight_join"}
)
# Beside the criteria in the same AND list these would let rows pass.
_LOOSE = frozenset({"or", "xor", "||"})
_OUTER = frozenset({"left", "right", "full", "natural"})


def require_criteria(tokens: list[Token], tables: list[tuple[Token, str]], mentioned: set[str]) -> None:
    """Refuse a text that reads, or names, tables of agents without their criteria.

    Parameters
    ----------
    tables
        Each place where a table is read, and its name.
    mentioned
        The names of tables anywhere: also `table.column` of a table that stands elsewhere.

    Raises
    ------
    ScopeViolation
    """
    for column, names in (
        (APP_COLUMN, mentioned),
        (AGENT_COLUMN, {table for table in mentioned if is_shared(table)}),
    ):
        if not names:
            continue
        places = [(token.group, token.select) for token, table in tables if table in names]
        found = _criteria(tokens, column)
        if not places and not found:
            raise _missing(column, names)
        for place in set(places):
            # One for each: `a.app_id = :app_id` twice says nothing of b.
            if len(found.get(place, set())) < places.count(place):
                raise _missing(column, names)
            _require_strict(tokens, place, places.count(place), column)


def _missing(column: str, names: set[str]) -> ScopeViolation:
    return ScopeViolation(
        f"raw SQL of an agent must hold `{column} = :{column}` for each of its tables "
        f"({', '.join(sorted(names))}), by itself in an AND list"
    )


def _require_strict(tokens: list[Token], place: tuple[int, int], tables: int, column: str) -> None:
    beside = {
        token.value for token in tokens if (token.group, token.select) == place and token.kind != "quoted"
    }
    if beside & _LOOSE:
        raise ScopeViolation(
            f"raw SQL of an agent has an OR beside `{column} = :{column}`; put it into parentheses"
        )
    if tables > 1 and "join" in beside and beside & _OUTER:
        # ON does not hold back the rows of the outer side.
        raise ScopeViolation("raw SQL of an agent makes no outer joins between its tables; use select()")


def _criteria(tokens: list[Token], column: str) -> dict[tuple[int, int], set[str]]:
    """Return, for each SELECT, by which names of tables the column is compared ("" for none)."""
    found: dict[tuple[int, int], set[str]] = {}
    for place in range(1, len(tokens) - 1):
        sides = {tokens[place - 1].value, tokens[place + 1].value}
        if tokens[place].value != "=" or sides != {column, f":{column}"}:
            continue
        first, last = place - 1, place + 1
        qualifier = ""
        if first >= 2 and tokens[first - 1].value == "." and tokens[first].is_name:
            qualifier, first = tokens[first - 2].value, first - 2
        after = tokens[last + 1].value if last + 1 < len(tokens) else ")"
        if after in _AFTER and _stands_alone(tokens, first):
            found.setdefault((tokens[place].group, tokens[place].select), set()).add(qualifier)
    return found


def _stands_alone(tokens: list[Token], first: int) -> bool:
    group = tokens[first].group
    if first == 0 or tokens[first - 1].value not in _BEFORE or tokens[first - 1].group != group:
        return False
    if tokens[first - 1].value != "and":
        return True
    # `x BETWEEN 1 AND app_id = :app_id` compares something else.
    for token in reversed(tokens[: first - 1]):
        if token.group == group and token.value in ("between", *_BEFORE):
            return token.value != "between"
    return False
