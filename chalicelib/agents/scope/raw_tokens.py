"""SQL text cut into words, quoted names, parameters and signs, with the parentheses that they stand in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib.agents.scope.access import ScopeViolation

_TOKEN = re.compile(
    r"""\s+
    |(?P<refused>--|\#|/\*|;|\\(?!:)|'(?:[^'\\]|'')*\\)
    |(?P<text>'(?:[^']|'')*')
    |(?P<quoted>`[^`]*`|"[^"\\]*"|\[[^\]]*\])
    |(?P<bind>(?<![:\w\\]):\w+(?!:))
    |(?P<word>[^\W\d][\w$]*)
    |(?P<stray>['"`])
    |(?P<other>\d[\w.]*|\|\||.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """One piece of a text, in small letters.

    Parameters
    ----------
    kind
        `word`, `quoted` (a name), `text` (a literal, without its content), `bind` or `other`.
    group
        The innermost pair of parentheses that it stands in; of an opening one, the one that it opens.
    outer
        Of an opening one, the pair around it.
    select
        Which SELECT of its pair of parentheses it belongs to, from 1; 0 before the first.
    """

    kind: str
    value: str
    group: int
    outer: int
    select: int

    @property
    def is_name(self) -> bool:
        return self.kind in ("word", "quoted")


def tokens_of(text: str) -> list[Token]:
    """Cut a text.

    Raises
    ------
    ScopeViolation
        A comment, a `;`, an unbalanced parenthesis or quote, or a backslash (two servers disagree where such a literal
        ends).
    """
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    groups, made = [0], 0
    selects = {0: 0}
    for match in _TOKEN.finditer(text):
        kind, value = match.lastgroup, match.group().lower()
        if kind in ("refused", "stray"):
            raise ScopeViolation(
                f"raw SQL of an agent may not hold {value[-2:]!r}: "
                "no comments, no second statement, no backslash, no open quote"
            )
        if kind is None:
            continue
        outer = groups[-1]
        if value == "(":
            made += 1
            groups.append(made)
            selects[made] = 0
        elif kind == "word" and value == "select":
            selects[outer] += 1
        if kind == "quoted":
            value = value[1:-1]
        yield Token(kind, "" if kind == "text" else value, groups[-1], outer, selects[groups[-1]])
        if kind == "other" and value == ")":
            groups.pop()
            if not groups:
                raise ScopeViolation("raw SQL of an agent closes a parenthesis that it has not opened")
    if len(groups) != 1:
        raise ScopeViolation("raw SQL of an agent leaves a parenthesis open")
