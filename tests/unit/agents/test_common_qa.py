from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.agents.common_qa.agent import BASE
from chalicelib.agents.common_qa.search import MAX_TERMS, Bm25

ENTRIES = json.loads(BASE.read_text("utf-8"))
INDEX = Bm25((one["questions"], one["answer"]) for one in ENTRIES)


@pytest.mark.parametrize(
    ("place", "question"),
    [(place, question) for place, one in enumerate(ENTRIES) for question in one["questions"]],
    ids=lambda value: str(value)[:40],
)
def test_every_question_of_the_base_finds_its_answer_first(place: int, question: str) -> None:
    assert INDEX.search(question)[0].place == place


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("how can I go back to the version before?", "How do I roll back a plugin?"),
        ("ROTATE CREDENTIALS", "How do I rotate a credential?"),
        ("uploading packages", "How do I install a plugin?"),
        ("隔离租户", "How are tenants kept apart?"),
    ],
)
def test_other_words_find_it_too(question: str, found: str) -> None:
    assert ENTRIES[INDEX.search(question)[0].place]["questions"][0] == found


@pytest.mark.parametrize("question", ["", "   ", "?!", '"', "*", "^", "\0", "weather in Paris"])
def test_what_says_nothing_finds_nothing(question: str) -> None:
    assert INDEX.search(question) == []


@given(st.text(max_size=200))
def test_nothing_in_a_question_is_syntax(question: str) -> None:
    # An operator or a quotation mark that got through would be an error of SQLite's.
    for text in (question, f'plugin {question}" OR *', f"NEAR({question}, 5) AND {{words}}: x"):
        INDEX.search(text)


def test_operators_are_words() -> None:
    both = INDEX.search("plugin NOT tool")
    assert {"What is a plugin?", "What is a tool?"} <= {ENTRIES[hit.place]["questions"][0] for hit in both}


def test_a_long_question_is_cut_to_its_first_words() -> None:
    words = " ".join(f"word{number}" for number in range(MAX_TERMS))
    assert INDEX.search(f"{words} rollback") == []
    assert INDEX.search(f"rollback {words} " + "x " * 50_000)


def test_threads_share_one_index() -> None:
    found: list[int] = []
    errors: list[BaseException] = []

    def look() -> None:
        try:
            found.extend(INDEX.search("roll back")[0].place for _ in range(50))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (errors, len(found), len(set(found))) == ([], 400, 1)
