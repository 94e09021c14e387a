"""One broken agent among five, broken in each way: the other four work, and nothing of it is left in the process."""

from __future__ import annotations

import sys

import pytest
from sqlalchemy import select
from sqlalchemy.orm import configure_mappers

from chalicelib.agents.loading.registry import agent_tables
from chalicelib.core.database import Base
from tests.agent_folders import AGENT, AgentFolders, mapped, tables

MODEL_IMPORTS = """
from sqlalchemy import *
from sqlalchemy.orm import *
from chalicelib.agents.columns import OwnTable
from chalicelib.agents.shared.models import SharedConversationHistory
from chalicelib.core.database import Base
"""
GOOD_MODEL = """
class BrokenGood(OwnTable, Base):
    __tablename__ = "agentflow_broken_good"
"""
WITH_MODELS = "from .models import *\n" + AGENT


def in_models(text: str) -> dict[str, str]:
    return {"__init__.py": MODEL_IMPORTS + GOOD_MODEL + text}


# How it is broken, the files, the code, and what the detail must say.
WAYS = {
    "exception": ({"agent": WITH_MODELS + "raise ValueError('secret-text')"}, "agent.import",
                  "ValueError at agent.py:"),
    "exit": ({"agent": WITH_MODELS + "raise SystemExit(3)"}, "agent.import", "SystemExit at agent.py:"),
    "base exception": (
        {"agent": WITH_MODELS + "class Stop(BaseException): pass\nraise Stop"}, "agent.import", "Stop at agent.py:",
    ),
    "syntax": ({"agent": WITH_MODELS + "def ("}, "agent.import", "SyntaxError at agent.py:"),
    "missing module": ({"agent": WITH_MODELS + "import no_such_module"}, "agent.import", "no_such_module"),
    "constructor": (
        {"agent": WITH_MODELS.replace("super().", "raise KeyError('secret-text')\n        super().")},
        "agent.instance", "KeyError at agent.py:",
    ),
    "no super": ({"agent": WITH_MODELS.replace("super()", "dict()")}, "agent.instance", "AgentBase.__init__"),
    "entry class": ({"agent": WITH_MODELS.replace("class Entry", "class Other")}, "agent.entry_class", "Entry"),
    "relationship to nobody": (
        {"models": in_models(
            "    other: Mapped[int] = mapped_column(ForeignKey('agentflow_broken_good.id'))\n"
            "    friend = relationship('NobodyAtAll')\n"
        )},
        "agent.mappers", "NobodyAtAll",
    ),
    "no primary key": (
        {"models": in_models("class BrokenKeyless(Base):\n    __tablename__ = 'agentflow_broken_keyless'\n"
                             "    name: Mapped[str]\n")},
        "agent.import", "primary key",
    ),
    "no tablename": (
        {"models": in_models("class BrokenNameless(OwnTable, Base):\n    pass\n")}, "agent.tablename", "BrokenNameless",
    ),
    "table of another": (
        {"models": in_models("class BrokenB(OwnTable, Base):\n    __tablename__ = 'agentflow_a1_history'\n")},
        "agent.table_owned", "agentflow_a1_history",
    ),
    "table of another, kept": (
        {"models": in_models(
            "class BrokenB(OwnTable, Base):\n    __tablename__ = 'agentflow_a1_history'\n"
            "    __table_args__ = {'keep_existing': True}\n")},
        "agent.table_prefix", "agentflow_a1_history",
    ),
    "shared table, kept": (
        {"models": in_models(
            "class BrokenB(OwnTable, Base):\n    __tablename__ = 'agentflow_shared_conversation_history'\n"
            "    __table_args__ = {'keep_existing': True}\n")},
        "agent.table_owned", "agentflow_shared_conversation_history",
    ),
    "shared table, extended": (
        {"models": in_models(
            "class BrokenB(OwnTable, Base):\n    __tablename__ = 'agentflow_shared_conversation_history'\n"
            "    __table_args__ = {'extend_existing': True}\n    more: Mapped[str]\n")},
        "agent.table_owned", "agentflow_shared_conversation_history",
    ),
    "shared model, extended": (
        {"models": in_models("SharedConversationHistory.more = mapped_column(String(3))\n")},
        "agent.table_owned", "agentflow_shared_conversation_history",
    ),
    "index on a shared table": (
        {"models": in_models("Index('ix_mine', SharedConversationHistory.role)\n")},
        "agent.table_owned", "agentflow_shared_conversation_history",
    ),
    "subclass of a shared model": (
        {"models": in_models("class BrokenB(SharedConversationHistory):\n    pass\n")},
        "agent.table_owned", "agentflow_shared_conversation_history",
    ),
    "backref on a shared model": (
        {"models": in_models(
            "    said: Mapped[int] = mapped_column(ForeignKey('agentflow_shared_conversation_history.id'))\n"
            "    saying = relationship(SharedConversationHistory, backref='broken')\n")},
        "agent.table_owned", "broken",
    ),
    "backref, and then a relationship to nobody": (
        {"models": in_models(
            "    said: Mapped[int] = mapped_column(ForeignKey('agentflow_shared_conversation_history.id'))\n"
            "    saying = relationship(SharedConversationHistory, backref='broken')\n"
            "class BrokenLast(OwnTable, Base):\n    __tablename__ = 'agentflow_broken_last'\n"
            "    friend = relationship('NobodyAtAll')\n")},
        "agent.mappers", "NobodyAtAll",
    ),
    "bare table": ({"models": in_models("Table('agentflow_broken_bare', Base.metadata, Column('id', Integer))\n"
                                        "raise OSError")}, "agent.import", "OSError at models/__init__.py:"),
    "another's package": ({"agent": WITH_MODELS + "import PACKAGE.zz_last.agent"}, "agent.dependency", "zz_last"),
    "config": ({"extra": "config:\n  key: ${NOT_THERE}\n"}, "agent.config", "NOT_THERE"),
    "yaml": ({"yaml": "name: [broken"}, "agent.yaml", "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_one_broken_agent_among_five_stops_no_other(way: str, folders: AgentFolders) -> None:
    # GIVEN five agents, the third of them broken
    files, code, told = WAYS[way]
    folders.add_history("a1", "A1")
    folders.add("a2")
    if "agent" in files:
        files = {
            "models": in_models(""),
            **files,
            "agent": files["agent"].replace("PACKAGE", folders.package),
        }
    folders.add("broken", **files)
    folders.add_history("x4", "X4")
    folders.add_history("zz_last", "ZzLast")
    before = mapped(), tables()
    attributes = {model: set(model.__mapper__.class_manager) for model in before[0]}

    # WHEN they are loaded
    registry = folders.load()

    # THEN the failure is told on that agent, with nothing of the exception's text or of its frames
    broken = registry.get("broken")
    assert broken is not None and broken.error is not None and broken.agent is None
    assert (broken.error.code, told in broken.error.detail) == (code, True), broken.error.detail
    assert "secret-text" not in broken.error.detail
    assert (broken.error.__cause__, broken.error.__context__, broken.error.__traceback__) == (
        None,
        None,
        None,
    )
    # AND the others work
    assert [one.name for one in registry.all() if one.agent is not None] == ["a1", "a2", "x4", "zz_last"]
    configure_mappers()
    own = [table for table in agent_tables(registry) if table.owner != "shared"]
    assert [table.owner for table in own] == ["a1", "x4", "zz_last"]
    assert all("SELECT" in str(select(table.model)) for table in agent_tables(registry))
    # AND nothing of the broken one is left
    assert {model.__module__ for model in mapped() - before[0]} == {
        f"{folders.package}.{name}.models.history" for name in ("a1", "x4", "zz_last")
    }
    assert {table.name for table in tables() - before[1]} == {table.name for table in own}
    assert all(set(model.__mapper__.class_manager) == names for model, names in attributes.items())
    assert not [name for name in sys.modules if name.startswith(f"{folders.package}.broken")]
    assert "BrokenGood" not in Base.registry._class_registry
    assert not hasattr(sys.modules[folders.package], "broken")


@pytest.mark.parametrize(
    "way",
    ["exit", "relationship to nobody", "shared table, extended", "backref on a shared model", "bare table"],
)
def test_a_mended_agent_is_imported_by_a_reload(way: str, folders: AgentFolders) -> None:
    files, code, _ = WAYS[way]
    folders.add("broken", **{"models": in_models(""), **files})
    folders.add_history("a1", "A1")
    failed = folders.load().get("broken")
    assert failed is not None and failed.error is not None and failed.error.code == code
    assert folders.reload("broken").error is not None
    folders.add("broken", models=in_models(""))
    mended = folders.reload("broken")
    assert mended.error is None
    assert mended.tables[0].name == "agentflow_broken_good"
    assert folders.loader is not None and folders.loader.registry.get("broken") is mended
    configure_mappers()


def test_ctrl_c_goes_on_and_leaves_nothing_behind(folders: AgentFolders) -> None:
    folders.add("broken", agent=WITH_MODELS + "raise KeyboardInterrupt", models=in_models(""))
    before = mapped(), tables()
    with pytest.raises(KeyboardInterrupt):
        folders.load()
    assert (mapped(), tables()) == before
    assert not [name for name in sys.modules if name.startswith(f"{folders.package}.broken")]
