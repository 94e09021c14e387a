"""Which models can keep an agent's history, and which one it uses."""

from __future__ import annotations

import pytest

from chalicelib.agents.shared.models import SharedConversationHistory, SharedUserPreferences
from tests.agent_folders import AGENT, HISTORY, AgentFolders

OWN = HISTORY.replace("{name}", "cmdb").replace("{cls}", "Cmdb")


def add(folders: AgentFolders, named: str, **files: str) -> None:
    imports = (
        "from chalicelib.agents.shared.models import *\nfrom .models import *\n"
        "from .models.history import CmdbHistory\n"
    )
    agent = imports + AGENT.replace("(AgentBase):\n", f"(AgentBase):\n    history_model = {named}\n")
    init = "".join(f"from .{file} import *\n" for file in files)
    texts = {f"{file}.py": text for file, text in files.items()}
    folders.add("cmdb", agent=agent, models={"history.py": OWN, "__init__.py": init, **texts})


def refusal(folders: AgentFolders) -> str:
    error = folders.load_one().error
    assert error is not None and error.code == "agent.history_model"
    return error.detail


def test_without_a_history_model_there_is_no_history(folders: AgentFolders) -> None:
    folders.add("cmdb", models={"__init__.py": OWN})
    loaded = folders.load_one()
    assert (loaded.error, loaded.history_models, loaded.history_mode) == (None, {}, None)


def test_an_own_model_may_be_moved_to_the_shared_one(folders: AgentFolders) -> None:
    folders.add_history("cmdb", "Cmdb")
    loaded = folders.load_one()
    assert loaded.history_mode == "independent"
    assert loaded.history_models == {
        "independent": loaded.tables[0].model,
        "shared": SharedConversationHistory,
    }


def test_the_shared_one_may_be_moved_to_the_first_own_model_that_fits(folders: AgentFolders) -> None:
    second = OWN.replace("cmdb_history", "cmdb_a_second").replace("CmdbHistory", "CmdbZ")
    unfit = (
        OWN.replace("cmdb_history", "cmdb_a_first")
        .replace("CmdbHistory", "CmdbUnfit")
        .replace("role:", "kind:")
    )
    add(folders, "SharedConversationHistory", history=OWN, second=second, unfit=unfit)
    loaded = folders.load_one()
    assert loaded.error is None and loaded.history_mode == "shared"
    assert {mode: model.__name__ for mode, model in loaded.history_models.items()} == {
        "shared": "SharedConversationHistory",
        "independent": "CmdbZ",
    }


def test_the_shared_one_alone_has_nowhere_to_go(folders: AgentFolders) -> None:
    agent = "from chalicelib.agents.shared.models import *\n" + AGENT.replace(
        "(AgentBase):\n", "(AgentBase):\n    history_model = SharedConversationHistory\n"
    )
    folders.add("cmdb", agent=agent)
    loaded = folders.load_one()
    assert loaded.error is None and loaded.tables == ()
    assert (loaded.history_mode, loaded.history_models) == ("shared", {"shared": SharedConversationHistory})


def test_an_own_model_that_is_not_exported_keeps_no_history(folders: AgentFolders) -> None:
    add(folders, "CmdbHistory")
    assert "neither exported" in refusal(folders)


@pytest.mark.parametrize("named", ["'CmdbHistory'", "int", "[]"])
def test_what_is_no_model_keeps_no_history(named: str, folders: AgentFolders) -> None:
    add(folders, named, history=OWN)
    assert "neither exported" in refusal(folders)


def test_a_shared_model_of_another_kind_keeps_no_history(folders: AgentFolders) -> None:
    add(folders, SharedUserPreferences.__name__, history=OWN)
    told = refusal(folders)
    assert "no column thread_id" in told and "(app_id, agent_name, thread_id)" in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("    role:", "    kind:", "no column role"),
        (
            "    content: Mapped[str] = mapped_column(",
            "    text: Mapped[str] = mapped_column('content', ",
            "no column content",
        ),
        ("Base, TimestampMixin", "Base", "no column created_at"),
        ('Index("idx_thread_id_created", "app_id", "thread_id"', 'Index("idx", "thread_id", "app_id"',
         "no index that begins with (app_id, thread_id)"),
        (
            '"app_id", "thread_id", "created_at", "id"',
            'text("lower(app_id)"), "thread_id"',
            "no index that begins with",
        ),
        ("(OwnTable, ", "(", "no BIGINT that is its primary key"),
    ],
)  # fmt: skip
def test_what_lacks_a_column_or_the_index_keeps_no_history(
    old: str, new: str, told: str, folders: AgentFolders
) -> None:
    text = OWN.replace(old, new).replace("import Index,", "import BigInteger, Index, Integer, text,")
    if old == "(OwnTable, ":
        text += (
            "    id: Mapped[int] = mapped_column(Integer, primary_key=True)\n"
            "    app_id: Mapped[int] = mapped_column(BigInteger)\n"
        )
    if old.startswith("Base"):
        text = text.replace('"created_at", ', "")
    assert new in text and text != OWN
    folders.add_history("cmdb", "Cmdb")
    (folders.directory / "cmdb" / "models" / "history.py").write_text(text)
    assert told in refusal(folders)


def test_a_unique_constraint_finds_a_thread_as_well(folders: AgentFolders) -> None:
    folders.add_history("cmdb", "Cmdb")
    text = OWN.replace("import Index", "import UniqueConstraint").replace(
        'Index("idx_thread_id_created", ', "UniqueConstraint("
    )
    (folders.directory / "cmdb" / "models" / "history.py").write_text(text)
    assert folders.load_one().history_mode == "independent"
