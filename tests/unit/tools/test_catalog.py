from __future__ import annotations

import pytest

from chalicelib.core.errors import Invalid, NotFound
from chalicelib.tools.catalog import Registration, not_found
from chalicelib.tools.models import PRIVATE, SERVER, SHARED, TOOL
from tests.plugin_rows import OTHER, OWNER, caller


def tool(visibility: str = PRIVATE) -> Registration:
    versions = {(2, 0, 0, 0): 22, (1, 10, 0, 0): 21, (1, 9, 0, 0): 20}
    return Registration("tool@1", OWNER, TOOL, visibility, None, versions)


@pytest.mark.parametrize(
    ("visibility", "app_id", "visible"),
    [(PRIVATE, OWNER, True), (PRIVATE, OTHER, False), (SHARED, OWNER, True), (SHARED, OTHER, True)],
)
def test_who_sees_a_tool(visibility: str, app_id: int, visible: bool) -> None:
    assert tool(visibility).visible_to(caller(app_id)) is visible


@pytest.mark.parametrize(
    ("version", "row_id"), [(None, 22), ("V2", 22), ("2.0.0", 22), ("V1.10", 21), ("1.9", 20)]
)
def test_the_row_of_a_version(version: str | None, row_id: int) -> None:
    assert tool().row_of(version) == row_id


def test_a_version_that_is_not_live_and_one_that_is_none() -> None:
    with pytest.raises(NotFound) as missing:
        tool().row_of("V3")
    assert missing.value.code == "tool.version_not_found"
    with pytest.raises(Invalid) as wrong:
        tool().row_of("latest", "/query/version")
    assert wrong.value.errors[0].pointer == "/query/version"


@pytest.mark.parametrize(("kind", "code"), [(TOOL, "tool.not_found"), (SERVER, "mcp.server_not_found")])
def test_what_is_said_of_what_is_not_there(kind: str, code: str) -> None:
    assert not_found(kind).code == code
