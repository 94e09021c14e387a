"""What can be seen of SQL that is written as text: which tables it names, and whether it could break out.

A text is a piece of a statement that the criteria are added to. So it may hold nothing that ends or comments out what
stands around it, and where it names a table of agents itself it must carry the criteria itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from chalicelib.agents.names import PREFIX
from chalicelib.agents.scope.access import (
    AGENT_COLUMN,
    APP_COLUMN,
    ScopeViolation,
    is_shared,
    require_agent_table,
)

_TOKEN = re.compile(
    r"""\s+
    |(?P<refused>--|\#|/\*|;|'(?:[^'\\]|'')*\\)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>`[^`]*`|"[^"]*"|\[[^\]]*\])
    |(?P<bind>(?<![:\w\\]):\w+(?!:))
    |(?P<word>[^\W\d][\w$]*)
    |(?P<stray>['"`])
    |(?P<other>\d[\w.]*|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)
_TABLE_FOLLOWS = frozenset({"from", "join", "straight_join", "into", "update", "table"})
_LIST_ENDS = frozenset(
    {
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
    }
)
# May stand between FROM and its table.
_NO_TABLE = frozenset({"lateral", "dual", "only"})
_TABLE_FUNCTIONS = frozenset({"json_each", "json_tree", "json_table"})
_WRITING = frozenset(
    {
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
    }
)
_LOOSE = frozenset({"or", "xor", "||", "not"})
_HINT = re.compile(
    r"\s*((USE|FORCE|IGNORE)\s+(INDEX|KEY)(\s+FOR\s+(JOIN|ORDER\s+BY|GROUP\s+BY))?\s*\([\w$,\s]*\)|NOT\s+INDEXED"
    r"|INDEXED\s+BY\s+[\w$]+)\s*",
    re.IGNORECASE,
)
_OPERATOR = re.compile(r"[^\w()'\"`;#\[\]\\-]+|->>?|-|[A-Za-z]+( [A-Za-z]+){0,2}")
_OPERATOR_REFUSED = frozenset({"select", "from", "join", "union", "except", "intersect", "into", "where"})


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    # The innermost pair of parentheses that it stands in.
    group: int


@dataclass
class Found:
    """What a text names.

    Parameters
    ----------
    tables
        Tables of agents that it reads, once for each place.
    mentioned
        Tables of agents that it names anywhere.
    """

    tables: list[str] = field(default_factory=list)
    mentioned: set[str] = field(default_factory=set)


def read(text: str, *, statement: bool = False) -> Found:
    """Return the tables that a text names.

    Parameters
    ----------
    statement
        True where the text is a whole statement; then it must read.

    Raises
    ------
    ScopeViolation
        A comment, a `;`, an unbalanced parenthesis or quote, a backslash in a literal (two servers disagree where it
        ends); a table of others; a table of agents without `app_id = :app_id` (and `agent_name = :agent_name` on a
        shared one) beside it, or with an OR that lets rows pass them; a statement that writes.
    """
    tokens = list(_tokens(text))
    if statement:
        _require_reading(tokens)
    found = Found(_tables(tokens), _mentioned(tokens))
    if found.mentioned:
        _require_criteria(tokens, found)
    return found


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


def _tokens(text: str) -> Iterator[_Token]:
    groups, made = [0], 0
    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup, match.group()
        if kind in ("refused", "stray"):
            raise ScopeViolation(
                f"raw SQL of an agent may not hold {value[-1] if kind == 'stray' else value[-2:]!r}: "
                "no comments, no second statement, no backslash in a literal"
            )
        if kind is None or kind == "text":
            continue
        if value == "(":
            made += 1
            groups.append(made)
        yield _Token(kind, value.strip('`"[]').lower() if kind == "quoted" else value.lower(), groups[-1])
        if value == ")":
            groups.pop()
            if not groups:
                raise ScopeViolation("raw SQL of an agent closes a parenthesis that it has not opened")
    if len(groups) != 1:
        raise ScopeViolation("raw SQL of an agent leaves a parenthesis open")


def _require_reading(tokens: list[_Token]) -> None:
    words = [token.value for token in tokens if token.kind == "word"]
    # `FOR UPDATE` locks, `REPLACE(` and `INSERT(` are functions.
    follows = {
        before.value for before, after in pairwise(tokens) if before.kind == "word" and after.value == "("
    }
    locking = words[-2:] == ["for", "update"] or " ".join(words).count("for update") == words.count("update")
    written = (_WRITING & set(words)) - follows - ({"update"} if locking else set())
    if not words or words[0] not in ("select", "with") or written:
        raise ScopeViolation("raw SQL of an agent only reads; write with insert(), update() and delete()")


def _tables(tokens: list[_Token]) -> list[str]:
    made = {
        token.value
        for token, after, paren in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if token.kind in ("word", "quoted") and after.value == "as" and paren.value == "("
    }
    tables: list[str] = []
    # Of each pair of parentheses: whether a table list is open in it, and whether its next word is a table.
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
            _open(tokens, place, listing, expected)
        elif expected.get(group) and token.kind in ("word", "quoted") and token.value not in _NO_TABLE:
            expected[group] = False
            if token.value not in made:
                tables += _named(tokens, place)
    return tables


def _locks(tokens: list[_Token], place: int) -> bool:
    return tokens[place].value == "update" and place > 0 and tokens[place - 1].value == "for"


def _open(tokens: list[_Token], place: int, listing: dict[int, bool], expected: dict[int, bool]) -> None:
    # `FROM (a JOIN b ...)`: a parenthesis where a table is expected holds a list of its own.
    inner = tokens[place].group
    outer = next((group for group in reversed([t.group for t in tokens[:place]]) if group < inner), 0)
    if expected.get(outer):
        expected[outer] = False
        listing[inner] = expected[inner] = True


def _named(tokens: list[_Token], place: int) -> list[str]:
    name = tokens[place].value
    after = tokens[place + 1].value if place + 1 < len(tokens) else ""
    if after == "(" and name in _TABLE_FUNCTIONS:
        return []
    if after == ".":
        raise ScopeViolation(f"raw SQL of an agent names no other schema: {name}")
    return [require_agent_table(name)]


def _mentioned(tokens: list[_Token]) -> set[str]:
    return {
        token.value for token in tokens if token.kind in ("word", "quoted") and token.value.startswith(PREFIX)
    }


def _require_criteria(tokens: list[_Token], found: Found) -> None:
    shared = [table for table in found.tables if is_shared(table)]
    wanted = [(APP_COLUMN, len(found.tables) or 1)]
    if any(is_shared(table) for table in found.mentioned):
        wanted.append((AGENT_COLUMN, len(shared) or 1))
    for column, count in wanted:
        groups = _comparisons(tokens, column)
        if len(groups) < count:
            raise ScopeViolation(
                f"raw SQL of an agent must hold `{column} = :{column}` for each of its tables: "
                f"{', '.join(sorted(found.mentioned))}"
            )
        if any(token.value in _LOOSE and token.group in groups for token in tokens):
            raise ScopeViolation(
                f"raw SQL of an agent has an OR or NOT beside `{column} = :{column}`; put it into parentheses"
            )


def _comparisons(tokens: list[_Token], column: str) -> list[int]:
    groups = []
    for left, middle, right in zip(tokens, tokens[1:], tokens[2:], strict=False):
        sides = {(left.kind == "bind", left.value), (right.kind == "bind", right.value)}
        if middle.value == "=" and sides == {(False, column), (True, f":{column}")}:
            groups.append(left.group)
    return groups
