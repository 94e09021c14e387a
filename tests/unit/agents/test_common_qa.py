"""common_qa: what it finds and what it does not know, whatever it is asked; the model's part; its file."""

from __future__ import annotations

import gc
import json
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.agents.base import AgentServices, Reply
from chalicelib.agents.common_qa.agent import BASE, MAX_ASKED, MAX_REMINDED, UNKNOWN
from chalicelib.agents.common_qa.base_file import MAX_BYTES, MAX_ENTRIES, read_base
from chalicelib.agents.common_qa.search import MAX_TERMS, Bm25
from chalicelib.agents.spec import LoadError
from chalicelib.core.errors import Conflict, HotplugError, Invalid, Unavailable, UpstreamTimeout
from chalicelib.core.llm.model import NoLlm
from tests.deployed_agents import FakeLlm
from tests.unit.agents.talk import CALLER, Said, loaded

ENTRIES = read_base(BASE)
INDEX = Bm25((one.questions, one.answer) for one in ENTRIES)
UNKNOWN_QUESTIONS = (
    "what is the weather in Paris?", "how do I install linux?", "rotate a screen", "how do I call my mother?",
    "best pizza version", "how many plugins are there?", "如何做披萨?", "NOT OR AND", "hello",
)  # fmt: skip


def first(question: str) -> str:
    return ENTRIES[INDEX.search(question)[0].place].questions[0]


def ask(message: str, *said: tuple[str, str], llm: Any = None, history: Said | None = None) -> Reply:
    services = AgentServices(CALLER, llm=llm or NoLlm(), history=history or Said(*said))
    answer = loaded("common_qa").bound(services).invoke(message, "t", {})
    assert isinstance(answer, Reply)
    return answer


def told(answer: Reply) -> dict[str, Any]:
    return dict(answer.metadata or {})


# -- the search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "question"),
    [(place, question) for place, one in enumerate(ENTRIES) for question in one.questions],
    ids=lambda value: str(value)[:40],
)
def test_every_question_of_the_base_finds_its_answer_first(place: int, question: str) -> None:
    best = INDEX.search(question)[0]
    assert (best.place, best.match) == (place, 1.0)


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("how can I go back to the version before?", "How do I roll back a plugin?"),
        ("ROTATE CREDENTIALS", "How do I rotate a credential?"),
        ("uploading packages", "How do I install a plugin?"),
        ("隔离租户", "How are tenants kept apart?"),
        ("智能体怎么添加", "How do I add an agent?"),
        ("请问插件在哪里运行呢", "Where do plugins run?"),
    ],
)
def test_other_words_find_it_too(question: str, found: str) -> None:
    assert first(question) == found


@pytest.mark.parametrize("question", ["", "   ", "?!", '"', "*", "^", "\0", "\ud800", "qwertz"])
def test_what_says_nothing_finds_nothing(question: str) -> None:
    assert INDEX.search(question) == []


@given(st.text(max_size=200))
def test_nothing_in_a_question_is_syntax(question: str) -> None:
    # An operator or a quotation mark that got through would be an error of SQLite's.
    for text in (question, f'plugin {question}" OR *', f"NEAR({question}, 5) AND {{words}}: x"):
        for hit in INDEX.search(text):
            assert 0 < hit.match <= 1.0


@pytest.mark.parametrize(
    "question",
    [
        'plugin" OR "tool', "plugin*", "words : plugin", "NEAR(plugin tool, 2)", "plugin NOT tool", "^plugin",
        "plugin\0tool", "-plugin", "{words place}: plugin", "plugin'; DROP TABLE passage; --", "(plugin",
    ],
)  # fmt: skip
def test_operators_are_words(question: str) -> None:
    assert "What is a plugin?" in {ENTRIES[hit.place].questions[0] for hit in INDEX.search(question, 20)}


def test_a_long_question_is_cut_to_its_first_words() -> None:
    words = " ".join(f"word{number}" for number in range(MAX_TERMS))
    assert INDEX.search(f"{words} rollback") == []
    assert INDEX.search(f"rollback {words} " + "x " * 50_000)
    assert INDEX.search("插" * 100_000) == []


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


class Watched(sqlite3.Connection):
    """A connection whose end is seen."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1
        super().close()


def test_an_index_that_is_gone_has_closed_its_connection() -> None:
    # Fifty reloads make fifty of them.
    index = Bm25([(("a question",), "an answer")], Watched)
    gone = weakref.ref(index)
    assert Watched.closed == 0
    del index
    gc.collect()
    assert (gone(), Watched.closed) == (None, 1)


def test_a_python_without_fts5_is_told_at_load() -> None:
    class Plain(sqlite3.Connection):
        def execute(self, *_: Any) -> Any:
            raise sqlite3.OperationalError("no such module: fts5")

    with pytest.raises(LoadError) as refused:
        Bm25([(("a question",), "an answer")], Plain)
    assert refused.value.code == "agent.instance"
    assert "FTS5" in refused.value.detail


# -- the answers -------------------------------------------------------------------------------------------------------


def test_an_answer_names_its_sources() -> None:
    answer = ask("How do I roll back a plugin?")
    assert answer.text.startswith("POST /api/v1/plugins/{pluginId}/rollback")
    metadata = told(answer)
    assert metadata["sources"][0] == "How do I roll back a plugin?"
    assert (metadata["by"], metadata["match"]) == ("base", 1.0)
    assert metadata["score"] > 0
    json.dumps(metadata)


@pytest.mark.parametrize("question", UNKNOWN_QUESTIONS)
def test_what_is_not_in_the_base_is_not_known(question: str) -> None:
    answer = ask(question)
    metadata = told(answer)
    assert answer.text.startswith(UNKNOWN)
    assert (metadata["by"], metadata["sources"]) == ("nobody", [])
    assert metadata["match"] < 0.5


def test_who_is_not_answered_is_told_what_comes_nearest() -> None:
    answer = ask("rotate a screen")
    assert told(answer)["suggestions"] == ["How do I rotate a credential?"]
    assert answer.text == f"{UNKNOWN} You could ask: How do I rotate a credential?"
    answer = ask("hello")
    assert (told(answer)["suggestions"], answer.text) == ([], f"{UNKNOWN} I know a little about Hotplug.")


def test_a_short_message_leans_on_the_users_last_one() -> None:
    before = (
        ("user", "How do I rotate a credential?"),
        ("assistant", "Add a second one."),
        ("user", "How do I roll back a plugin?"),
        ("assistant", "What is a tool?"),
    )
    assert told(ask("really?", *before))["sources"][0] == "How do I roll back a plugin?"
    assert told(ask("really?"))["by"] == "nobody"
    # What says enough alone does not.
    assert told(ask("And a tool?", *before))["sources"][0] == "What is a tool?"
    # Nor does what is long.
    assert (
        told(ask("really? would you please tell me all about that, if I may ask so?", *before))["by"]
        == "nobody"
    )


def test_what_makes_no_sense_behind_the_last_one_is_answered_alone() -> None:
    before = ("user", "How do I roll back a plugin?")
    metadata = told(ask("pizza weather mother rotate screen", before))
    assert (metadata["by"], metadata["suggestions"]) == ("nobody", ["How do I rotate a credential?"])


def test_a_single_character_is_looked_for() -> None:
    found = {question for hit in INDEX.search("表") for question in ENTRIES[hit.place].questions}
    assert {"表什么时候创建?", "共享表还是独立表?"} <= found


def test_the_history_is_not_read_for_what_needs_none() -> None:
    history = Said()
    ask("What is a plugin?", history=history)
    assert history.reads == 0


# -- the model ---------------------------------------------------------------------------------------------------------


def test_a_model_sees_the_passages_the_thread_and_the_question_last() -> None:
    llm = FakeLlm(["In my own words. "])
    answer = ask(
        "And a tool?",
        ("user", "x" * 100_000),
        ("tool", "what a tool said"),
        ("assistant", "A plugin is a zip."),
        llm=llm,
    )
    assert (answer.text, told(answer)["by"]) == ("In my own words.", "model")
    [(messages, options)] = llm.asked
    assert [one.role for one in messages] == ["system", "user", "assistant", "user"]
    assert "A tool is an HTTP API" in messages[0].content
    assert messages[0].content.startswith("You answer questions about Hotplug.\n")
    assert "Use only what the passages" in messages[0].content
    assert len(messages[1].content) == MAX_REMINDED
    assert messages[-1].content == "And a tool?"
    assert options.max_tokens == 500


def test_a_message_of_any_length_costs_a_model_no_more() -> None:
    llm = FakeLlm(["ok"])
    ask("What is a plugin? " + "what is a plugin? " * 10_000, llm=llm)
    [(messages, _)] = llm.asked
    assert len(messages[-1].content) == MAX_ASKED


def test_a_model_is_not_asked_what_nobody_knows() -> None:
    llm = FakeLlm([])
    assert told(ask("what is the weather in Paris?", llm=llm))["by"] == "nobody"
    assert llm.asked == []


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        (Unavailable("busy", code="llm.unavailable"), "llm.unavailable"),
        (UpstreamTimeout("late", code="llm.timeout"), "llm.timeout"),
        (Conflict("no key", code="llm.not_configured"), "llm.not_configured"),
        (Invalid("too much", code="llm.invalid_prompt"), "llm.invalid_prompt"),
        ("  \n", "llm.empty"),
    ],
    ids=lambda value: str(value).strip()[:20],
)
def test_without_its_model_it_answers_from_the_base(
    failing: HotplugError | str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ask("What is a plugin?", llm=FakeLlm([failing]))
    assert (answer.text, told(answer)["by"]) == (ENTRIES[0].answer, "base")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["code"] for line in lines if line["message"] == "agent.model_failed"] == [code]


def test_a_bug_of_the_model_is_not_taken_for_its_absence() -> None:
    with pytest.raises(ZeroDivisionError):
        ask("What is a plugin?", llm=FakeLlm([ZeroDivisionError()]))


# -- the file ----------------------------------------------------------------------------------------------------------


def entry(**members: Any) -> list[dict[str, Any]]:
    return [{"questions": ["Why?"], "answer": "Because."}, {"questions": ["Q?"], "answer": "A.", **members}]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "cannot be read"),
        ("[", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (b"\xff", "cannot be read"),
        ("{}", "no array"),
        ("[]", "no array"),
        ([{"questions": ["Q?"], "answer": "A."}] * (MAX_ENTRIES + 1), "no array"),
        (" " * MAX_BYTES + json.dumps([{"questions": ["Q?"], "answer": "A."}]), "no array"),
        (["Q?"], "entry 1"),
        (entry(question="Q?"), "entry 2"),
        (entry(questions=[]), "entry 2"),
        (entry(questions="Q?"), "entry 2"),
        (entry(questions=["Q?"] * 21), "entry 2"),
        (entry(questions=["Q?", " "]), "entry 2"),
        (entry(questions=["x" * 501]), "entry 2"),
        (entry(questions=[7]), "entry 2"),
        (entry(answer=""), "entry 2"),
        (entry(answer=None), "entry 2"),
        (entry(answer="x" * 4_001), "entry 2"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_base_that_does_not_hold_is_told_with_its_place(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "base.json"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LoadError) as refused:
        read_base(path)
    assert refused.value.code == "agent.instance"
    assert why in refused.value.detail and "base.json" in refused.value.detail


def test_a_base_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"base\.json cannot be read \(FileNotFoundError\)"):
        read_base(tmp_path / "base.json")
