"""The grammar of regular expressions after ECMA-262, as far as an automaton can follow it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from chalicelib.core import errors
from chalicelib.core.errors import Violation

MAX_GROUPS = 30
"""Groups within groups: the parser recurses."""

_CLASSES = {
    "d": [("0", "9")],
    "w": [("a", "z"), ("A", "Z"), ("0", "9"), ("_", "_")],
    "s": [
        ("\t", "\r"),
        (" ", " "),
        ("\xa0", "\xa0"),
        ("\u1680", "\u1680"),
        ("\u2000", "\u200a"),
        ("\u2028", "\u2029"),
        ("\u202f", "\u202f"),
        ("\u205f", "\u205f"),
        ("\u3000", "\u3000"),
        ("\ufeff", "\ufeff"),
    ],
}
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")
_COUNT = re.compile(r"\{([0-9]{1,5})(,([0-9]{1,5})?)?\}")
_PROPERTY = re.compile(r"([pP])\{(?:(?:gc|General_Category)=)?([A-Z][a-z]?)\}")


@dataclass(frozen=True)
class CharSet:
    """Characters by ranges, other sets and general categories, or all but those."""

    ranges: tuple[tuple[str, str], ...] = ()
    parts: tuple[CharSet, ...] = ()
    category: str = ""
    negated: bool = False

    def __contains__(self, char: str) -> bool:
        inside = (
            any(low <= char <= high for low, high in self.ranges)
            or any(char in part for part in self.parts)
            or (self.category != "" and unicodedata.category(char).startswith(self.category))
        )
        return inside != self.negated


@dataclass(frozen=True)
class Sequence:
    items: tuple[Tree, ...]


@dataclass(frozen=True)
class Choice:
    options: tuple[Tree, ...]


@dataclass(frozen=True)
class Repeat:
    item: Tree
    least: int
    most: int | None


@dataclass(frozen=True)
class Anchor:
    kind: str


Tree = CharSet | Sequence | Choice | Repeat | Anchor
ANY = CharSet(ranges=(("\n", "\n"), ("\r", "\r"), ("\u2028", "\u2029")), negated=True)
WORD = CharSet(ranges=tuple(_CLASSES["w"]))


class Parser:
    """Recursive descent over the expression; `place` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.depth = 0

    def parse(self) -> Tree:
        tree = self.choice()
        if self.place < len(self.text):
            raise refusal("has a ) without its (")
        return tree

    def peek(self) -> str:
        return self.text[self.place : self.place + 1]

    def take(self, text: str) -> bool:
        if self.text.startswith(text, self.place):
            self.place += len(text)
            return True
        return False

    def match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        found = expression.match(self.text, self.place)
        if found:
            self.place = found.end()
        return found

    def choice(self) -> Tree:
        options = [self.sequence()]
        while self.take("|"):
            options.append(self.sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self) -> Tree:
        items: list[Tree] = []
        while self.peek() not in ("", "|", ")"):
            items.append(self.repeat(self.atom()))
        return Sequence(tuple(items))

    def repeat(self, item: Tree) -> Tree:
        bounds = self.bounds()
        if bounds is None:
            return item
        if isinstance(item, Anchor):
            raise refusal("repeats an anchor")
        self.take("?")  # lazy or greedy: whether there is a match does not depend on it
        if self.bounds() is not None or self.peek() == "+":
            raise refusal("repeats a repeat")
        return Repeat(item, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.take(sign):
                return bounds
        found = self.match(_COUNT)
        if not found:
            return None
        least = int(found[1])
        most = least if not found[2] else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise refusal("has a repeat whose bounds are out of order")
        return least, most

    def atom(self) -> Tree:
        char = self.peek()
        if char == "(":
            return self.group()
        if char == "[":
            return self.char_class()
        if char in "*+?" or (char == "{" and _COUNT.match(self.text, self.place)):
            raise refusal("repeats nothing")
        self.place += 1
        if char in "^$":
            return Anchor(char)
        if char == ".":
            return ANY
        if char == "\\":
            if self.peek() in ("b", "B"):
                self.place += 1
                return Anchor(self.text[self.place - 1])
            return self.escape()
        return CharSet(ranges=((char, char),))

    def group(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_GROUPS:
            raise refusal(f"nests groups deeper than {MAX_GROUPS}")
        self.take("(")
        if self.take("?") and not self.take(":") and not self.match(re.compile(r"<[A-Za-z_$][\w$]*>")):
            raise refusal("uses lookaround, flags or another (?…) than (?:…) and (?<name>…)")
        tree = self.choice()
        if not self.take(")"):
            raise refusal("has a ( without its )")
        self.depth -= 1
        return tree

    def escape(self) -> CharSet:
        """What follows a backslash, as a set."""
        if found := self.match(_HEX):
            code = int(found[1] or found[2] or found[3], 16)
            if code > 0x10FFFF:
                raise refusal("names a character beyond Unicode")
            return CharSet(ranges=((chr(code), chr(code)),))
        if found := self.match(_PROPERTY):
            return CharSet(category=found[2], negated=found[1] == "P")
        char = self.peek()
        self.place += 1
        if char.lower() in _CLASSES:
            return CharSet(ranges=tuple(_CLASSES[char.lower()]), negated=char.isupper())
        if char in _ESCAPES and not (char == "0" and self.peek().isdigit()):
            return CharSet(ranges=((_ESCAPES[char], _ESCAPES[char]),))
        if char == "" or char.isalnum():
            raise refusal(f"has \\{char}, which is a backreference or unknown")
        return CharSet(ranges=((char, char),))

    def char_class(self) -> CharSet:
        self.take("[")
        negated = self.take("^")
        ranges: list[tuple[str, str]] = []
        parts: list[CharSet] = []
        while not self.take("]"):
            low = self.class_item()
            if self.text.startswith("-", self.place) and self.text[self.place + 1 : self.place + 2] not in (
                "]",
                "",
            ):
                self.place += 1
                ranges.append(_range(low, self.class_item()))
            else:
                parts.append(low)
        return CharSet(ranges=tuple(ranges), parts=tuple(parts), negated=negated)

    def class_item(self) -> CharSet:
        char = self.peek()
        self.place += 1
        if char == "":
            raise refusal("has a [ without its ]")
        if char != "\\":
            return CharSet(ranges=((char, char),))
        return CharSet(ranges=(("\b", "\b"),)) if self.take("b") else self.escape()


def _range(low: CharSet, high: CharSet) -> tuple[str, str]:
    ends = [
        item.ranges[0][0]
        for item in (low, high)
        if len(item.ranges) == 1 and item.ranges[0][0] == item.ranges[0][1]
    ]
    if len(ends) != 2 or low.negated or high.negated or ends[0] > ends[1]:
        raise refusal("has a range in [] that is out of order or not between characters")
    return ends[0], ends[1]


def refusal(message: str) -> errors.Invalid:
    found = [Violation("", "pattern.syntax", message)]
    return errors.Invalid(f"The pattern {message}.", code="pattern.invalid", errors=found)
