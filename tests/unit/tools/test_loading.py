from __future__ import annotations

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.tools import loading
from chalicelib.tools.loading import LoadedVersion, plan_of
from chalicelib.tools.openapi.compile import Document
from tests.tool_documents import document


def loaded(count: int) -> LoadedVersion:
    operations = {f"op{number}": {"at": ("get", f"/{number}")} for number in range(count)}
    return LoadedVersion("tool@1", "V1.0", Document(document(**operations)))


def test_a_plan_is_made_once() -> None:
    version = loaded(1)
    assert version.plan("op0") is version.plan("op0")
    assert version.plan("op0").operation.path == "/0"


def test_a_bounded_number_of_plans_is_kept_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "KEPT_PLANS", 2)
    version = loaded(3)
    first, second, third = (version.plan(f"op{number}") for number in range(3))
    assert version.plan("op2") is third
    assert version.plan("op1") is second
    assert version.plan("op0") is not first


def test_an_unknown_operation_is_told_of_those_that_there_are() -> None:
    with pytest.raises(Invalid) as refused:
        loaded(1).plan("op1")
    [violation] = refused.value.errors
    assert (refused.value.code, violation.pointer) == ("tool.unknown_operation", "/operationId")
    assert violation.message == "is none of getPet, op0"


def test_of_many_operations_some_are_named() -> None:
    operations = {f"op{number}": {"at": ("get", f"/{number}")} for number in range(60)}
    with pytest.raises(Invalid) as refused:
        plan_of(Document(document(**operations)), "__proto__")
    message = refused.value.errors[0].message
    assert message.endswith(", …")
    assert message.count("op") == loading.MOST_NAMED - 1


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([1], [[0]]),
        ([4, 4, 2], [[0, 1, 2]]),
        ([4, 4, 3], [[0, 1], [2]]),
        ([11, 1], [[0], [1]]),
        ([1, 11, 1], [[0], [1], [2]]),
        ([10, 10], [[0], [1]]),
    ],
)
def test_documents_are_read_as_many_at_once_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], batches: list[list[int]]
) -> None:
    monkeypatch.setattr(loading, "READ_AT_ONCE_BYTES", 10)
    assert list(loading._batches(list(enumerate(sizes)))) == batches
