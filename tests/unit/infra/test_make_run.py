"""What `make run` does around the walkthrough: ports, settings, what it prints, how it ends."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Self

import pytest

from infra.local.__main__ import free_port, port_note
from infra.local.folder import StateFolder
from infra.walkthrough import __main__ as make_run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_run, "ROOT", tmp_path)
    monkeypatch.setattr(make_run, "until_signal", lambda: lambda: None)


class Stack:
    """Stands for the local stack: keeps what it was made with."""

    url, s3_endpoint, logs_folder = "http://127.0.0.1:1", "http://127.0.0.1:2", Path("logs")
    admin_credential = "hp_admin:secret"

    def __init__(self, folder: Path, **options: Any) -> None:
        self.made: dict[str, Any] = {"folder": folder, **options}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Stack]:
    stacks: list[Stack] = []

    def make(folder: Path, **options: Any) -> Stack:
        stacks.append(Stack(folder, **options))
        return stacks[-1]

    monkeypatch.setattr(make_run, "LocalStack", make)
    return stacks


def walking(monkeypatch: pytest.MonkeyPatch, *, holds: bool) -> None:
    monkeypatch.setattr(make_run.Walkthrough, "run", lambda _: holds)


def test_a_second_one_says_who_has_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = StateFolder(tmp_path / ".local")
    first.open()
    try:
        assert make_run.main(["--serve"]) == 1
    finally:
        first.close()
    assert f"{tmp_path}/.local is in use by the stack with process id" in capsys.readouterr().err


@pytest.mark.parametrize("holds", [True, False])
def test_it_serves_whether_or_not_every_step_held(
    holds: bool, made: list[Stack], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walking(monkeypatch, holds=holds)
    assert make_run.main(["--serve"]) == (0 if holds else 1)
    told = capsys.readouterr().out
    assert (
        "export HOTPLUG_URL=http://127.0.0.1:1 HOTPLUG_CREDENTIAL=hp_admin:secret HOTPLUG_S3=http://127.0.0.1:2"
        in told
    )
    assert "export HELPDESK_URL=http://localhost:" in told


def test_the_demonstration_ends_without_serving(
    made: list[Stack], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walking(monkeypatch, holds=True)
    assert make_run.main([]) == 0
    assert "export" not in capsys.readouterr().out
    assert made[0].made["port"] == 0


def test_the_settings_of_the_shell_hold(made: list[Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    walking(monkeypatch, holds=True)
    monkeypatch.setenv("HOTPLUG_LLM_MODEL", "small")
    monkeypatch.setenv("HOTPLUG_PRIVATE_ENDPOINTS", "localhost:9099")
    monkeypatch.setenv("HOTPLUG_DATABASE_URL", "sqlite:////elsewhere.db")  # the stack itself reads it
    for name in ("HOTPLUG_CREDENTIAL", "HOTPLUG_ADMIN_API_KEY"):
        monkeypatch.setenv(name, "hp_of:another")
    assert make_run.main(["--serve"]) == 0
    given = made[0].made["environment"]
    assert given["HOTPLUG_LLM_MODEL"] == "small"
    assert given["HOTPLUG_PRIVATE_ENDPOINTS"].endswith(",localhost:9099")
    assert given["HOTPLUG_PRIVATE_ENDPOINTS"].count("localhost:") == 5
    assert not given.keys() & {"HOTPLUG_DATABASE_URL", "HOTPLUG_CREDENTIAL", "HOTPLUG_ADMIN_API_KEY"}


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert free_port(taken) == 0
    assert free_port(taken) == taken
    assert port_note(taken, 0) == f" (port {taken} is taken)"
    assert port_note(taken, taken) == port_note(0, 0) == ""
