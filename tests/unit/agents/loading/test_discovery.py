"""Which models count, whose tables they are, and what each must be like: the rules of the FAQ."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from chalicelib.agents.loading.discovery import CoreModelsLoader
from chalicelib.agents.loading.registry import agent_tables
from chalicelib.agents.names import table_name
from chalicelib.agents.shared.models import SharedConversationHistory, SharedUserPreferences
from chalicelib.agents.spec import LoadedAgent, LoadError
from tests.agent_folders import AGENT, AgentFolders

IMPORTS = """
from sqlalchemy import BigInteger, Column, Integer, String, Table
from sqlalchemy.orm import Mapped, mapped_column
from chalicelib.agents.columns import OwnTable
from chalicelib.agents.shared.models import SharedConversationHistory
from chalicelib.core.database import Base
"""
CACHE = IMPORTS + 'class CmdbCache(OwnTable, Base):\n    __tablename__ = "agentflow_cmdb_cache"\n'


def load(folders: AgentFolders, init: str, name: str = "cmdb", **files: str) -> LoadedAgent:
    folders.add(name, models={"__init__.py": init, **{f"{file}.py": text for file, text in files.items()}})
    return folders.load_one()


def shown(loaded: LoadedAgent) -> list[tuple[str, str, str, str]]:
    assert loaded.error is None, loaded.error.detail
    return [(table.name, table.owner, table.mode, table.model.__name__) for table in loaded.tables]


def refused(loaded: LoadedAgent) -> tuple[str, str]:
    assert loaded.error is not None and loaded.agent is None and loaded.tables == ()
    return loaded.error.code, loaded.error.detail


SHARED = ("agentflow_shared_conversation_history", "shared", "shared", "SharedConversationHistory")
OWN = ("agentflow_cmdb_cache", "cmdb", "independent", "CmdbCache")


def test_one_agent_may_use_shared_and_own_tables(folders: AgentFolders) -> None:
    init = "from .cache import CmdbCache\nfrom chalicelib.agents.shared.models import SharedConversationHistory\n"
    loaded = load(folders, init + "__all__ = ['SharedConversationHistory', 'CmdbCache']\n", cache=CACHE)
    assert shown(loaded) == [OWN, SHARED]
    assert loaded.warnings == ()


def test_a_shared_model_under_an_alias_stays_shared_and_counts_once(folders: AgentFolders) -> None:
    init = (
        "from chalicelib.agents.shared.models import SharedConversationHistory\n"
        "ConversationHistory = SharedConversationHistory\n"
        "__all__ = ['ConversationHistory', 'SharedConversationHistory']\n"
    )
    loaded = load(folders, init)
    assert shown(loaded) == [SHARED]
    assert loaded.tables[0].model is SharedConversationHistory


def test_without_all_the_public_names_are_exported(folders: AgentFolders) -> None:
    init = CACHE + "Again = CmdbCache\n_Hidden = SharedConversationHistory\ndel SharedConversationHistory\n"
    assert shown(load(folders, init)) == [OWN]


def test_base_and_what_is_no_class_are_no_models(folders: AgentFolders) -> None:
    init = CACHE + "NUMBER = 3\n__all__ = ['Base', 'NUMBER', 'CmdbCache', 'OwnTable']\n"
    loaded = load(folders, init)
    assert shown(loaded) == [OWN]
    assert loaded.warnings == ()


def test_all_that_names_what_is_not_there_is_an_error(folders: AgentFolders) -> None:
    code, detail = refused(load(folders, "__all__ = ['CmdbCache', 'Other']\n"))
    assert code == "agent.models_package"
    assert "CmdbCache, Other" in detail


def test_models_without_an_init_are_an_error(folders: AgentFolders) -> None:
    folders.add("cmdb", models={"cache.py": CACHE})
    code, detail = refused(folders.load_one())
    assert (code, "__init__.py" in detail) == ("agent.models_package", True)


@pytest.mark.parametrize("files", [None, {"README.md": "nothing"}])
def test_an_agent_needs_no_models(files: dict[str, str] | None, folders: AgentFolders) -> None:
    folders.add("cmdb", models=files)
    assert shown(folders.load_one()) == []


def test_a_model_that_is_not_exported_is_warned_of(folders: AgentFolders) -> None:
    # GIVEN one that is imported and left out, one that nobody imports, one in agent.py
    second = CACHE.replace("Cache", "Second").replace("cache", "second")
    third = CACHE.replace("Cache", "Third").replace("cache", "third")
    folders.add(
        "cmdb",
        agent=AGENT + third,
        models={"__init__.py": "from .cache import CmdbCache\n__all__ = []\n", "cache.py": CACHE, "second.py": second},
    )  # fmt: skip
    loaded = folders.load_one()
    # THEN the agent loads without their tables, and each is named
    assert shown(loaded) == []
    assert [warning.partition(" is not")[0] for warning in loaded.warnings] == [
        "agent.not_exported: CmdbThird of agent",
        "agent.not_exported: CmdbCache of models.cache",
        "agent.not_exported: CmdbSecond of models.second",
    ]


def test_an_exported_class_that_is_no_model_is_warned_of(folders: AgentFolders) -> None:
    init = IMPORTS + "class CmdbNote:\n    __tablename__ = 'agentflow_cmdb_note'\n__all__ = ['CmdbNote']\n"
    loaded = load(folders, init)
    assert shown(loaded) == []
    assert loaded.warnings == (
        "agent.no_base: CmdbNote does not subclass Base, so it is no model and no table is made",
    )


def test_a_model_file_that_is_no_python_is_warned_of(folders: AgentFolders) -> None:
    loaded = load(folders, "", broken="def (")
    assert shown(loaded) == []
    assert "models.broken" in loaded.warnings[0]


def test_a_class_that_is_mapped_without_a_tablename_is_no_model(folders: AgentFolders) -> None:
    init = IMPORTS + (
        "class CmdbCache(Base):\n    __table__ = Table('agentflow_cmdb_cache', Base.metadata,"
        " Column('id', BigInteger, primary_key=True), Column('app_id', BigInteger, nullable=False))\n"
        "class CmdbAbstract(Base):\n    __abstract__ = True\n"
        "__all__ = ['CmdbCache', 'CmdbAbstract']\n"
    )
    loaded = load(folders, init)
    assert shown(loaded) == []
    assert [text.partition(" has")[0] for text in loaded.warnings if "tablename" in text] == [
        "agent.tablename: CmdbCache"
    ]


def test_a_class_without_any_table_is_an_error(folders: AgentFolders) -> None:
    code, detail = refused(load(folders, IMPORTS + "class CmdbCache(OwnTable, Base):\n    pass\n"))
    assert (code, "CmdbCache" in detail) == ("agent.tablename", True)


@pytest.mark.parametrize(
    "table",
    [
        "cmdb_cache", "agentflow_cmdb", "agentflow_cmdb_", "agentflow_cmd_cache", "agentflow_cmdbcache", "app",
        "agentflow_shared_cmdb", "agentflow_cmdb_Cache", "agentflow_cmdb_ca-che", "agentflow_cmdb_" + "x" * 50,
    ],
)  # fmt: skip
@pytest.mark.parametrize("exported", [True, False])
def test_a_table_outside_the_agent_s_prefix_is_an_error(
    table: str, exported: bool, folders: AgentFolders
) -> None:
    hidden = "" if exported else "__all__ = []\n"
    loaded = load(folders, CACHE.replace("agentflow_cmdb_cache", table) + hidden)
    # `app` is there already.
    expected = "agent.table_owned" if table == "app" else "agent.table_prefix"
    assert refused(loaded)[0] == expected


def test_a_table_in_another_schema_is_an_error(folders: AgentFolders) -> None:
    loaded = load(folders, CACHE + "    __table_args__ = {'schema': 'other'}\n")
    assert refused(loaded)[0] == "agent.table_prefix"


def test_a_long_table_name_is_shortened_by_a_hash(folders: AgentFolders) -> None:
    for name, table in (("cmdb", "t" * 60), ("n" * 60, "cache"), ("n" * 45, "t" * 40)):
        wanted = table_name(name, table)
        folders.add(name, models={"__init__.py": CACHE.replace("agentflow_cmdb_cache", wanted)})
        assert len(wanted) == 64
    tables = [table for one in folders.load().all() for table in one.tables if table.owner == one.name]
    assert sorted(table.owner for table in tables) == ["cmdb", "n" * 45, "n" * 60]


def test_a_long_agent_s_name_opens_no_other_prefix(folders: AgentFolders) -> None:
    # GIVEN a name whose prefix is cut by the hash, and tables that only begin like it
    name = "n" * 60
    good = table_name(name, "cache")
    for wrong in (good[:-1] + "g", good[:-9] + "x" + good[-8:], good[:50] + "m" + good[51:], good[:63]):
        folders.add(name, models={"__init__.py": CACHE.replace("agentflow_cmdb_cache", wrong)})
        loaded = folders.load_one()
        assert refused(loaded)[0] == "agent.table_prefix"


def test_the_same_table_of_two_agents_is_an_error_of_the_second(folders: AgentFolders) -> None:
    # GIVEN `a` with the table `b_c` and `a_b` with the table `c`
    for name, cls in (("a", "ABC"), ("a_b", "ABC")):
        init = CACHE.replace("agentflow_cmdb_cache", "agentflow_a_b_c").replace("CmdbCache", cls)
        folders.add(name, models={"__init__.py": init + f"__all__ = ['{cls}']\n"})
    registry = folders.load()
    first, second = registry.all()
    assert shown(first) == [("agentflow_a_b_c", "a", "independent", "ABC")]
    assert refused(second)[0] == "agent.table_owned"
    assert [table.owner for table in agent_tables(registry)] == ["shared"] * 3 + ["a"]


@pytest.mark.parametrize("depends", ["", "dependencies: [a]\n"])
def test_another_agent_s_model_cannot_be_exported(depends: str, folders: AgentFolders) -> None:
    folders.add_history("a", "A")
    init = f"from {folders.package}.a.models import AHistory\n__all__ = ['AHistory']\n"
    folders.add("b", extra=depends, models={"__init__.py": init})
    loaded = folders.load().get("b")
    assert loaded is not None
    code, detail = refused(loaded)
    assert (code, "AHistory" in detail) == ("agent.table_owned", True)


ID = "    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)\n"
APP = "    app_id: Mapped[int] = mapped_column(BigInteger)\n"


@pytest.mark.parametrize(
    "columns",
    [
        ID,
        ID + "    app_id: Mapped[int | None] = mapped_column(BigInteger)\n",
        ID + "    app_id: Mapped[int] = mapped_column(Integer)\n",
        ID + "    app_id: Mapped[str] = mapped_column(String(20))\n",
        ID + "    tenant: Mapped[int] = mapped_column('app_id', BigInteger)\n",
        ID + "    app_id: Mapped[int] = mapped_column('tenant', BigInteger)\n",
        ID + APP + "    agent_name: Mapped[str] = mapped_column(String(100))\n",
        ID + APP + "    agent_name: Mapped[str | None] = mapped_column(String(100))\n",
        ID + "    app_id: Mapped[int] = mapped_column('x', BigInteger)\n"
        "    x: Mapped[int] = mapped_column('app_id', BigInteger)\n",
    ],
)
def test_columns_that_the_scope_could_not_keep_apart_are_an_error(
    columns: str, folders: AgentFolders
) -> None:
    init = IMPORTS + f"class CmdbCache(Base):\n    __tablename__ = 'agentflow_cmdb_cache'\n{columns}"
    assert refused(load(folders, init))[0] == "agent.columns"


def test_declaring_the_columns_oneself_is_as_good(folders: AgentFolders) -> None:
    init = (
        IMPORTS
        + f"class CmdbCache(Base):\n    __tablename__ = 'agentflow_cmdb_cache'\n{ID}{APP}__all__ = ['CmdbCache']"
    )
    assert shown(load(folders, init)) == [OWN]


@pytest.mark.parametrize(
    ("agent", "cls", "warned"),
    [
        ("common_qa", "CommonQAConversationHistory", False),
        ("common_qa", "Common_qa_X", False),
        ("cmdb", "CMDBQueryCache", False),
        ("cmdb", "QueryCache", True),
        ("cmdb", "Cmdb", True),
        ("common_qa", "CommonHistory", True),
    ],
)
def test_a_class_that_is_not_named_after_its_agent_is_warned_of(
    agent: str, cls: str, warned: bool, folders: AgentFolders
) -> None:
    init = CACHE.replace("CmdbCache", cls).replace("agentflow_cmdb_cache", f"agentflow_{agent}_cache")
    loaded = load(folders, init + f"__all__ = ['{cls}']", name=agent)
    assert loaded.error is None
    assert [text.startswith(f"agent.class_name: {cls} ") for text in loaded.warnings] == [True] * warned


def test_a_subclass_in_the_same_table_counts_its_table_once(folders: AgentFolders) -> None:
    init = CACHE + "class CmdbAlso(CmdbCache):\n    pass\n__all__ = ['CmdbAlso', 'CmdbCache']\n"
    assert shown(load(folders, init)) == [OWN]


# -- shared models -----------------------------------------------------------------------------------------------


def test_the_shared_models_are_these(lines: Any) -> None:
    shared = CoreModelsLoader().load()
    assert [table.name for table in shared.tables] == [
        "agentflow_shared_analytics_events",
        "agentflow_shared_conversation_history",
        "agentflow_shared_user_preferences",
    ]
    assert {(table.owner, table.mode) for table in shared.tables} == {("shared", "shared")}
    assert shared.table(SharedUserPreferences) is shared.tables[2]
    written = lines()
    assert [line["table"] for line in written if line["message"] == "shared.model.found"] == [
        table.name for table in shared.tables
    ]
    assert written[-1]["count"] == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('    __tablename__ = "agentflow_shared_x"\n' + ID + APP, "agent.columns"),
        ('    __tablename__ = "agentflow_shared_x"\n' + ID + APP
         + "    agent_name: Mapped[str | None] = mapped_column(String(100))\n", "agent.columns"),
        ('    __tablename__ = "agentflow_shared_x"\n' + ID + APP
         + "    agent_name: Mapped[int] = mapped_column(BigInteger)\n", "agent.columns"),
        ('    __tablename__ = "agentflow_shared_x"\n' + ID + APP
         + "    who: Mapped[str] = mapped_column('agent_name', String(100))\n", "agent.columns"),
        ('    __tablename__ = "agentflow_x"\n' + ID + APP
         + "    agent_name: Mapped[str] = mapped_column(String(100))\n", "agent.table_prefix"),
    ],
)  # fmt: skip
def test_a_shared_model_that_breaks_a_rule_stops_everything(
    text: str, code: str, folders: AgentFolders
) -> None:
    folders.add(
        "common", models={"__init__.py": IMPORTS + f"class SharedX(Base):\n{text}__all__ = ['SharedX']\n"}
    )
    with pytest.raises(LoadError) as caught:
        CoreModelsLoader(f"{folders.package}.common.models").load()
    assert caught.value.code == code


def test_the_log_counts_models_and_tables(folders: AgentFolders, lines: Any) -> None:
    load(folders, CACHE)
    written = {line["message"]: line for line in lines()}
    assert written["agents.scanning"]["path"] == str(folders.directory)
    assert written["agent.loading"]["version"] == "1.0.0"
    assert written["agent.models.imported"]["package"] == f"{folders.package}.cmdb.models"
    assert written["agent.models.registered"]["count"] == 2
    assert written["agent.loaded"]["tables"] == 2
    assert {"loaded": 1, "failed": 0, "disabled": 0, "tables": 4}.items() <= written["agents.ready"].items()
    assert f"{folders.package}.cmdb.models" in sys.modules
