"""Regular expressions from strangers, matched in linear time.

JSON Schema's `pattern` is an ECMA-262 expression. Python's `re` backtracks (`^(a+)+$` on 40 letters never
ends), cannot be interrupted, and differs in meaning (`$` also matches before a final line feed, `\\d` matches
digits of every script). Here an expression becomes a nondeterministic automaton whose sets of positions are
followed through the text, as RE2 does, with the sets seen so far remembered. What an automaton cannot do is
refused: backreferences and lookaround.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.core.json_schema.pattern_syntax import (
    WORD,
    Anchor,
    CharSet,
    Choice,
    Parser,
    Repeat,
    Sequence,
    Tree,
    refusal,
)

MAX_LENGTH = 1_000
"""Characters of an expression."""

MAX_NODES = 3_000
"""Nodes of its automaton, counted repeats written out (`a{1000}` has 1,000)."""

_CACHE_WEIGHT = 5_000
"""Nodes in remembered sets of one expression before it starts anew: about half a megabyte."""


@dataclass(eq=False)
class _Node:
    """A position of the automaton: consumes a character, asserts, or branches without consuming."""

    consumes: CharSet | None = None
    anchor: str = ""
    following: list[_Node] = field(default_factory=list)
    accepts: bool = False


class _Builder:
    """Builds from the end: each tree gets the node that follows it."""

    def __init__(self) -> None:
        self.count = 0

    def node(
        self, *following: _Node, consumes: CharSet | None = None, anchor: str = "", accepts: bool = False
    ) -> _Node:
        self.count += 1
        return _Node(consumes, anchor, list(following), accepts)

    def build(self, tree: Tree, after: _Node) -> _Node:
        if isinstance(tree, CharSet):
            return self.node(after, consumes=tree)
        if isinstance(tree, Anchor):
            return self.node(after, anchor=tree.kind)
        if isinstance(tree, Choice):
            return self.node(*(self.build(option, after) for option in tree.options))
        if isinstance(tree, Sequence):
            for item in reversed(tree.items):
                after = self.build(item, after)
            return after
        return self.repeat(tree, after)

    def repeat(self, tree: Repeat, after: _Node) -> _Node:
        entry = after
        if tree.most is None:
            entry = self.node()
            entry.following = [self.build(tree.item, entry), after]
        else:
            # x{0,3} as (x(x(x)?)?)?: every position then has few neighbours.
            for _ in range(tree.most - tree.least):
                entry = self.node(self.build(tree.item, entry), after)
        for _ in range(tree.least):
            built = self.build(tree.item, entry)
            if built is entry:
                break  # an empty item, (){99999}: more copies of nothing are nothing
            entry = built
        return entry


@dataclass(eq=False)
class _State:
    """A set of nodes and what preceded: nothing, a word character or another. `moves` remembers where it
    leads."""

    nodes: frozenset[_Node]
    before: str
    moves: dict[str, _State | None] = field(default_factory=dict)


class Pattern:
    """A compiled expression.

    Example
    -------
    >>> compile_pattern("^(a+)+$").search("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
    False
    """

    def __init__(self, start: _Node, size: int) -> None:
        self.size = size
        """Nodes of the automaton."""
        self._start = start
        self._forget()

    def _forget(self) -> None:
        self._states: dict[tuple[frozenset[_Node], str], _State] = {}
        self._weight = 0

    def search(self, text: str, spend: Callable[[int], None] = lambda cost: None) -> bool:
        """Whether the expression matches somewhere in `text`.

        Parameters
        ----------
        spend
            Is told the work done, in units of about 5 µs, and may raise to stop it.
        """
        state = self._state(frozenset((self._start,)), "start")
        spend(len(text) // 50)
        for char in [*text, ""]:
            if char in state.moves:
                following = state.moves[char]
            else:
                following, cost = self._step(state, char)
                spend(1 + cost // 20)
                self._weight += cost
                state.moves[char] = following
            if following is None:
                return True
            state = following
            if self._weight > _CACHE_WEIGHT:
                self._forget()
                state = self._state(state.nodes, state.before)
        return False

    def _state(self, nodes: frozenset[_Node], before: str) -> _State:
        return self._states.setdefault((nodes, before), _State(nodes, before))

    def _step(self, state: _State, char: str) -> tuple[_State | None, int]:
        """Where `char` (empty: the end) leads, None for a match, and the nodes visited."""
        after = _kind(char) if char else "end"
        visited: set[_Node] = set()
        pending = list(state.nodes)
        reached: set[_Node] = {self._start}  # a match may begin at every place
        while pending:
            node = pending.pop()
            if node in visited:
                continue
            visited.add(node)
            if node.accepts:
                return None, len(visited)
            if node.consumes is not None:
                if char and char in node.consumes:
                    reached.update(node.following)
            elif not node.anchor or _holds(node.anchor, state.before, after):
                pending.extend(node.following)
        return self._state(frozenset(reached), _kind(char)), len(visited) + len(reached)


def _kind(char: str) -> str:
    return "word" if char and char in WORD else "other"


def _holds(anchor: str, before: str, after: str) -> bool:
    if anchor == "^":
        return before == "start"
    if anchor == "$":
        return after == "end"
    return ((before == "word") != (after == "word")) == (anchor == "b")


def node_count(tree: Tree) -> int:
    """Nodes that a tree is built into, but for the accepting one. Known before they are built: a manifest may hold
    thousands of expressions that are too large, and building up to the limit takes 20 ms each."""
    if isinstance(tree, CharSet | Anchor):
        return 1
    if isinstance(tree, Choice):
        return 1 + sum(node_count(option) for option in tree.options)
    if isinstance(tree, Sequence):
        return sum(node_count(item) for item in tree.items)
    each = node_count(tree.item)
    optional = 1 + each if tree.most is None else (tree.most - tree.least) * (1 + each)
    return optional + tree.least * each


@functools.lru_cache(maxsize=128)
def compile_pattern(text: str) -> Pattern:
    """The automaton of an ECMA-262 expression.

    Raises
    ------
    errors.Invalid
        `pattern.syntax`: malformed, too large, or not regular (backreferences, lookaround).
    """
    if len(text) > MAX_LENGTH:
        raise refusal(f"is longer than {MAX_LENGTH} characters")
    tree = Parser(text).parse()
    if node_count(tree) >= MAX_NODES:
        raise refusal("is too large with its counted repeats written out")
    builder = _Builder()
    start = builder.build(tree, builder.node(accepts=True))
    return Pattern(start, builder.count)
