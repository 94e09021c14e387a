"""Full-text search over a few hundred short texts, ranked by BM25: SQLite's FTS5, in memory, part of Python."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

MAX_TERMS = 64
ANSWER_WEIGHT = 0.3
# FTS5 gives better matches lower, negative numbers (https://www.sqlite.org/fts5.html#the_bm25_function).
_RANKED = "SELECT place, -bm25(passage) * weight FROM passage WHERE passage MATCH ?"
# Without spaces between words, each character is a word of its own: two in a row are looked for as a phrase.
_CJK = r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]"
_TERM = re.compile(rf"{_CJK}+|[^\W_]+")
_ONE = re.compile(_CJK)
# What almost every question has says nothing about which one it is.
_COMMON = """
a an and are as at be by can do does for from how i in is it my of on or should tell me that the there this to use was
what when where which who why will with you your 的 了 是 吗 么 什 怎 如 何 我 你
"""
STOPWORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Hit:
    """A text that was found; the higher the score, the better."""

    place: int
    score: float


class Bm25:
    """An index of entries, each found by its place.

    Parameters
    ----------
    entries
        Of each the ways to ask for it, and its answer. Each way is a text of its own, so that the one which says
        nothing else ranks first; what only the answer says counts `ANSWER_WEIGHT`.
    """

    def __init__(self, entries: Iterable[tuple[Sequence[str], str]]) -> None:
        # One connection for all threads of a process, one at a time.
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.execute(
            "CREATE VIRTUAL TABLE passage USING fts5(words, place UNINDEXED, weight UNINDEXED,"
            " tokenize = 'porter unicode61')"
        )
        self._connection.executemany("INSERT INTO passage VALUES (?, ?, ?)", _passages(entries))

    def search(self, question: str, limit: int = 5) -> list[Hit]:
        """Return the entries that a question is nearest to, the best first.

        Parameters
        ----------
        question
            Any text. Its words are looked for as words: nothing in it is syntax of the index.
        """
        terms = list(dict.fromkeys(_terms(question)))[:MAX_TERMS]
        if not terms:
            return []
        # In quotation marks a term is a string, whatever it holds; terms hold letters and digits alone.
        query = " OR ".join(f'"{term}"' for term in terms)
        with self._lock:
            rows = self._connection.execute(_RANKED, (query,)).fetchall()
        best: dict[int, float] = {}
        for place, score in rows:
            best[place] = max(score, best.get(place, 0.0))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        return [Hit(place, score) for place, score in ranked[:limit]]


def _passages(entries: Iterable[tuple[Sequence[str], str]]) -> Iterator[tuple[str, int, float]]:
    for place, (questions, answer) in enumerate(entries):
        for question in questions:
            words = [word for word in _spaced(question) if word.lower() not in STOPWORDS]
            yield " ".join(words), place, 1.0
        yield " ".join(_spaced(answer)), place, ANSWER_WEIGHT


def _spaced(text: str) -> list[str]:
    found: list[str] = []
    for term in _TERM.findall(text):
        found += list(term) if _ONE.match(term) else [term]
    return found


def _terms(question: str) -> list[str]:
    words: list[str] = []
    for term in _TERM.findall(question):
        if not _ONE.match(term):
            words.append(term.lower())
        elif len(term) > 1:
            words += [f"{first} {second}" for first, second in pairwise(term)]
        else:
            words.append(term)
    # A question of nothing but such words is about them.
    return [word for word in words if word not in STOPWORDS] or words
