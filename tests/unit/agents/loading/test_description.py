"""agent.yaml: what is read, what is refused, and that all of it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.agents.loading import description
from chalicelib.agents.spec import LoadError
from tests.agent_folders import AgentFolders

GOOD = "name: qa\nversion: 1.0.0\ndescription: Answers.\nentry_class: Entry\n"


def read(tmp_path: Path, text: str | bytes) -> dict[str, object]:
    (tmp_path / "agent.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    document = description.read(tmp_path)
    description.check(document)
    return document


def refused(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(LoadError) as caught:
        read(tmp_path, text)
    assert caught.value.code == "agent.yaml"
    return caught.value.detail


def test_all_that_it_may_say_reaches_the_agent(folders: AgentFolders) -> None:
    folders.environment["TOKEN"] = "t"
    extra = (
        "author: Ann\nenabled: true\ndependencies: [b]\nplugins: [plugin_a_1]\ntools: [weather]\n"
        "config:\n  deep: [{token: '${TOKEN}'}]\n"
    )
    folders.add("a", extra=extra)
    folders.add("b")
    loaded = folders.load().get("a")
    assert loaded is not None and loaded.agent is not None and loaded.spec is not None
    assert loaded.agent.config == {"deep": [{"token": "t"}]}
    assert (loaded.spec.author, loaded.spec.dependencies, loaded.spec.version) == ("Ann", ("b",), "1.0.0")
    assert (loaded.spec.plugins, loaded.spec.tools) == ({"plugin_a_1"}, {"weather"})
    assert (loaded.spec.folder.name, loaded.spec.module) == ("a", f"{folders.package}.a")


def test_every_violation_is_told(tmp_path: Path) -> None:
    text = "name: Not-A-Name\nversion: one\nentry_class: 1x\nenabled: 'no'\nconfig: []\ncolour: red\ntools: [a, a]\n"
    told = refused(tmp_path, text)
    for pointer in ("/name", "/version", "/entry_class", "/enabled", "/config", "/colour", "/tools"):
        assert f"{pointer} " in told
    assert "'description' is a required property" in told


@pytest.mark.parametrize(
    "version", ["1", "1.2", "1.2.3", "v1.2.3", "1.2.3-rc.1", "1.2.3+build.5", "2024.1.1.7"]
)
def test_versions_are_what_people_write(version: str, tmp_path: Path) -> None:
    assert read(tmp_path, GOOD.replace("1.0.0", f"'{version}'"))["version"] == version


@pytest.mark.parametrize(
    "version", ["", "x", "1.", "1.2.3.4.5", "1.2.3 ", "1.2.3\\n", "1-", "1.0.0" + "1" * 64]
)
def test_other_versions_are_refused(version: str, tmp_path: Path) -> None:
    assert "/version" in refused(tmp_path, GOOD.replace("1.0.0", f'"{version}"'))


def test_a_name_does_not_end_in_a_line_feed(tmp_path: Path) -> None:
    assert "/name" in refused(tmp_path, GOOD.replace("qa", '"qa\\n"'))
    assert not description.is_name("qa\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "is not a mapping"),
        (b"- a list", "is not a mapping"),
        (b"name: \xff", "is not UTF-8"),
        (b"name: qa\x00", "is not YAML"),
        (b"a: b: c", "is not YAML"),
        (b"a: !!python/object:os.system ls", "is not YAML: could not determine a constructor"),
        (b"a: 1\n---\nb: 2", "is not YAML"),
        (b"name: a\nname: b", "gives name twice (line 2)"),
        (b"config: {x: [{y: 1, y: 2}]}", "gives y twice"),
        (b"a: &x 1", "has an anchor or an alias (line 1)"),
        (b"a: &x [1]\nb: *x", "has an anchor or an alias"),
        (b"a: " + b"[" * 21 + b"]" * 21, "is nested deeper than 20 levels"),
        (b"[" * 60_000, "nest"),
        (b"a: 2024-01-02", "has a value at /a that JSON has not"),
        (b"a: 2024-99-99", "has a value that cannot be read"),
        (b"a: {1: b}", "has a value at /a that JSON has not"),
        (b"? [a]\n: b", "is not YAML"),
        (b"a: !!binary aGk=", "has a value at /a that JSON has not"),
        (b"#" * (64 * 1024 + 1), "has more than 65536 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_description_is_refused(text: bytes, told: str, tmp_path: Path) -> None:
    assert told in refused(tmp_path, text)


def test_the_lines_of_a_broken_file_are_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refused(tmp_path, "config:\n  password: hunter2\n  more: [hunter2\n")


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").mkdir()
    with pytest.raises(LoadError, match="cannot be read"):
        description.read(tmp_path)


def test_sixty_four_kibibytes_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD + "#" * (64 * 1024 - len(GOOD)))["name"] == "qa"


def test_a_disabled_agent_is_neither_checked_nor_imported(folders: AgentFolders, lines) -> None:
    folders.add("off", yaml="enabled: false\nname: off\nnonsense: true\n", agent="raise SystemExit")
    folders.add("odd", yaml="enabled: false\nname: [no name]\n", agent="raise SystemExit")
    registry = folders.load()
    off = registry.get("off")
    assert off is not None and (off.agent, off.error, off.tables) == (None, None, ())
    assert registry.names() == ["odd", "off"]
    assert {"loaded": 0, "failed": 0, "disabled": 2}.items() <= lines()[-1].items()
