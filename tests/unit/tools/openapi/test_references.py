from __future__ import annotations

from typing import Any

import pytest

from chalicelib.tools.openapi.references import MAX_HOPS, at, resolve, resolve_path_item, target_of

VALUE: dict[str, Any] = {
    "a": [{"b": 1}],
    "": {"": 2},
    "x/y~z": {"%": 3},
    "0": 4,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", VALUE),
        ("/a/0/b", 1),
        ("//", 2),
        ("/x~1y~0z/%", 3),
        ("/0", 4),
    ],
)
def test_a_pointer_leads_to_its_value(pointer: str, value: Any) -> None:
    assert at(VALUE, pointer) == value


@pytest.mark.parametrize(
    "pointer",
    ["/b", "/a/1", "/a/-", "/a/00", "/a/-1", "/a/0/b/c", "/a/b", "/a/1" + "0" * 9_000, "/a/²", "/x/y~z"],
)
def test_a_pointer_to_nothing(pointer: str) -> None:
    with pytest.raises(LookupError):
        at(VALUE, pointer)


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ({"$ref": "#"}, ""),
        ({"$ref": "#/a"}, "/a"),
        ({"$ref": "#/x~1y%7Ez"}, "/x~1y~z"),
        ({"$ref": "#a"}, None),
        ({"$ref": "x#/a"}, None),
        ({"$ref": "https://a.example/#/a"}, None),
        ({"$ref": 5}, None),
        ({}, None),
        ("#/a", None),
    ],
)
def test_the_target_of_a_reference(value: Any, target: str | None) -> None:
    assert target_of(value) == target


def spec(version: str, **parameters: Any) -> dict[str, Any]:
    return {"openapi": version, "p": parameters}


def test_references_are_followed_to_an_object() -> None:
    value = spec("3.1.0", a={"$ref": "#/p/b"}, b={"$ref": "#/p/c"}, c={"name": "c"})
    assert resolve(value, "/p/a", value["p"]["a"]) == ("/p/c", {"name": "c"})
    assert resolve(value, "/p/c", value["p"]["c"]) == ("/p/c", {"name": "c"})


def test_what_stands_beside_a_reference() -> None:
    links = {
        "a": {"$ref": "#/p/b", "description": "outer", "name": "ignored"},
        "b": {"$ref": "#/p/c", "description": "inner", "summary": "s"},
        "c": {"name": "c", "description": "own"},
    }
    new, old = spec("3.1.0", **links), spec("3.0.3", **links)
    assert resolve(new, "/p/a", new["p"]["a"])[1] == {"name": "c", "description": "outer", "summary": "s"}
    assert resolve(old, "/p/a", old["p"]["a"])[1] == {"name": "c", "description": "own"}


def test_what_stands_beside_the_reference_of_a_path_item_wins() -> None:
    value = spec(
        "3.0.3", a={"$ref": "#/p/b", "get": 1}, b={"$ref": "#/p/c", "get": 2, "put": 3}, c={"post": 4}
    )
    assert resolve_path_item(value, "/p/a", value["p"]["a"]) == ("/p/a", {"post": 4, "get": 1, "put": 3})
    plain = spec("3.1.0", a={"$ref": "#/p/b"}, b={"get": 1})
    assert resolve_path_item(plain, "/p/a", plain["p"]["a"]) == ("/p/b", {"get": 1})


@pytest.mark.parametrize("follow", [resolve, resolve_path_item])
@pytest.mark.parametrize("ref", ["#/p/a", "#/p/none", "#x", "https://a.example"])
def test_references_that_lead_nowhere(follow: Any, ref: str) -> None:
    value = spec("3.1.0", a={"$ref": ref})
    with pytest.raises(LookupError):
        follow(value, "/p/a", value["p"]["a"])


@pytest.mark.parametrize("follow", [resolve, resolve_path_item])
def test_the_length_of_a_chain(follow: Any) -> None:
    chain = {f"c{n}": {"$ref": f"#/p/c{n + 1}"} for n in range(MAX_HOPS + 1)}
    value = spec("3.1.0", **chain, **{f"c{MAX_HOPS + 1}": {}})
    assert follow(value, "/p/c1", chain["c1"])[1] == {}
    with pytest.raises(LookupError):
        follow(value, "/p/c0", chain["c0"])
