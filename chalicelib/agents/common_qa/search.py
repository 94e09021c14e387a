"""Full-text search over a few hundred short texts, ranked by BM25: SQLite's FTS5, in memory, part of Python."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chalicelib.agents.spec import LoadError

MAX_TERMS = 64
# What a word is worth that only the answer has: an answer mentions more than it is about.
ANSWER_WEIGHT = 0.3
# FTS5 gives better matches lower, negative numbers (https://www.sqlite.org/fts5.html#the_bm25_function).
_RANKED = "SELECT place, weight, -bm25(passage) * weight FROM passage WHERE passage MATCH ?"
# Without spaces between words, each character is a word of its own: two in a row are looked for as a phrase.
_CJK = r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]"
_TERM = re.compile(rf"{_CJK}+|[^\W_]+")
_ONE = re.compile(_CJK)
# What almost every question has says nothing about which one it is.
_COMMON = """
a about all an and any are as at be but by can could did do does explain for from give had has have how i if in into is
it its let like may me might mine must my need no not of on one only or our please shall should show so some tell than
that the their them then there these they this those through to too us use used using want was we were what whats when
where which who whom whose why will with would yes you your
的 了 是 吗 么 什 怎 如 何 我 你 您 请 呢 吧 哪 些 在 有 个 样
"""
STOPWORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Hit:
    """An entry that was found.

    Parameters
    ----------
    score
        BM25 of the entry's best passage; the higher the better, without a bound.
    match
        How much of what the question says the entry speaks of, 0 to 1. Rare words count more, a word that no entry has
        the most.
    """

    place: int
    score: float
    match: float


class Bm25:
    """An index of entries, each found by its place; made once and shared by all threads.

    Parameters
    ----------
    entries
        Of each the ways to ask for it, and its answer. Each way is a text of its own, so that the one which says
        nothing else ranks first; what only the answer says counts `ANSWER_WEIGHT`.
    factory
        Makes the connection; a test hands in another.

    Raises
    ------
    LoadError
        `agent.instance`: SQLite was built without FTS5.
    """

    def __init__(
        self,
        entries: Iterable[tuple[Sequence[str], str]],
        factory: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        # One connection for all threads of a process, one at a time.
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, factory=factory)
        weakref.finalize(self, self._connection.close)
        try:
            self._connection.execute(
                "CREATE VIRTUAL TABLE passage USING fts5(words, place UNINDEXED, weight UNINDEXED,"
                " tokenize = 'porter unicode61')"
            )
        except sqlite3.OperationalError as error:
            raise LoadError(
                "agent.instance", f"It searches with SQLite's FTS5, which this Python lacks: {error}."
            ) from None
        passages = list(_passages(entries))
        self._connection.executemany("INSERT INTO passage VALUES (?, ?, ?)", passages)
        self._entries = len({place for _, place, _ in passages})

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the entries that a question is nearest to, the best first.

        Parameters
        ----------
        question
            Any text. Its first 64 different words are looked for as words: nothing in it is syntax of the index.
        """
        terms = _terms(question)
        if not terms:
            return []
        with self._lock:
            ranked = self._rows(terms)
            found = {term: self._rows([term]) for term in terms}
        best: dict[int, float] = {}
        for place, _, score in ranked:
            best[place] = max(score, best.get(place, 0.0))
        matches = self._matches(found)
        order = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        return [Hit(place, score, matches[place]) for place, score in order[:limit]]

    def _rows(self, terms: Sequence[str]) -> list[tuple[int, float, float]]:
        # In quotation marks a term is a string, whatever it holds; terms hold letters and digits alone.
        query = " OR ".join(f'"{term}"' for term in terms)
        return self._connection.execute(_RANKED, (query,)).fetchall()

    def _matches(self, found: Mapping[str, Sequence[tuple[int, float, float]]]) -> dict[int, float]:
        """Return the match of every entry that has one of the terms."""
        said: dict[int, float] = {}
        whole = 0.0
        for rows in found.values():
            weights: dict[int, float] = {}
            for place, weight, _ in rows:
                weights[place] = max(weight, weights.get(place, 0.0))
            rarity = math.log(1 + (self._entries - len(weights) + 0.5) / (len(weights) + 0.5))
            whole += rarity
            for place, weight in weights.items():
                said[place] = said.get(place, 0.0) + rarity * weight
        return {place: value / whole for place, value in said.items()}


def _passages(entries: Iterable[tuple[Sequence[str], str]]) -> Iterator[tuple[str, int, float]]:
    for place, (questions, answer) in enumerate(entries):
        for question in questions:
            yield " ".join(_spaced(question)), place, 1.0
        yield " ".join(_spaced(answer)), place, ANSWER_WEIGHT


def _spaced(text: str) -> list[str]:
    found: list[str] = []
    for term in _TERM.findall(text.lower()):
        found += list(term) if _ONE.match(term) else [term]
    return found


def _terms(question: str) -> list[str]:
    """The words of a question, each once, and each two characters that stand side by side without spaces."""
    words: dict[str, None] = {}
    for term in _TERM.findall(question.lower()):
        for word in _pairs(term) if _ONE.match(term) else [term]:
            words[word] = None
    # A question of nothing but common words is about them.
    telling = [word for word in words if word not in STOPWORDS] or list(words)
    return telling[:MAX_TERMS]


def _pairs(run: str) -> list[str]:
    pieces = re.split(f"[{''.join(sorted(filter(_ONE.match, STOPWORDS)))}]", run)
    found = [f"{first} {second}" for piece in pieces for first, second in pairwise(piece)]
    # Single characters are looked for where there is nothing better.
    return found or list(run)
