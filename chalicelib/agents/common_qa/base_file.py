"""The base of questions and answers: a file that people edit, so what is wrong in it is told with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.agents.spec import LoadError
from chalicelib.core.settings import ONE_MIB

# All of it is in memory, and each search looks through it.
MAX_BYTES = 2 * ONE_MIB
MAX_ENTRIES = 2_000
MAX_QUESTIONS = 20
MAX_QUESTION = 500
MAX_ANSWER = 4_000


@dataclass(frozen=True)
class Entry:
    """An answer, and the ways to ask for it, the plainest first."""

    questions: tuple[str, ...]
    answer: str


def read_base(path: Path) -> tuple[Entry, ...]:
    """Return the entries of a base: a JSON array of `{"questions": [text, …], "answer": text}`.

    Raises
    ------
    LoadError
        `agent.instance`: it cannot be read, is too large, or an entry of it does not hold.
    """
    try:
        raw = path.read_bytes()
        document = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(path, f"cannot be read ({type(error).__name__})") from None
    if not isinstance(document, list) or not 0 < len(document) <= MAX_ENTRIES:
        raise _refused(path, f"is no array of 1 to {MAX_ENTRIES} entries in at most {MAX_BYTES} bytes")
    return tuple(_entry(path, number, one) for number, one in enumerate(document, 1))


def _entry(path: Path, number: int, given: Any) -> Entry:
    if not isinstance(given, dict) or set(given) != {"questions", "answer"}:
        raise _refused(path, f'has an entry {number} that is not {{"questions": […], "answer": …}}')
    questions, answer = given["questions"], given["answer"]
    if not isinstance(questions, list) or not 0 < len(questions) <= MAX_QUESTIONS:
        raise _refused(path, f"has an entry {number} without 1 to {MAX_QUESTIONS} questions")
    if not all(_is_text(question, MAX_QUESTION) for question in questions):
        raise _refused(path, f"has an entry {number} with a question that is no text of 1 to {MAX_QUESTION}")
    if not _is_text(answer, MAX_ANSWER):
        raise _refused(path, f"has an entry {number} whose answer is no text of 1 to {MAX_ANSWER}")
    return Entry(tuple(questions), answer)


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= most


def _refused(path: Path, why: str) -> LoadError:
    return LoadError("agent.instance", f"Its {path.name} {why}.")
