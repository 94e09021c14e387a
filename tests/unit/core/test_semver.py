from __future__ import annotations

import itertools

import pytest

from chalicelib.core import errors, semver
from chalicelib.core.semver import parse_version

# SemVer 2.0 §11, and neighbours that a comparison of texts gets wrong.
RISING = [
    "0.9.10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]


def test_precedence_is_that_of_the_standard() -> None:
    for low, high in itertools.combinations(RISING, 2):
        older, newer = parse_version(low), parse_version(high)
        assert older < newer and newer > older and older <= newer and newer >= older and older != newer
    assert sorted(map(parse_version, reversed(RISING))) == [parse_version(text) for text in RISING]


def test_build_metadata_has_no_precedence_but_is_kept() -> None:
    one, other = parse_version("1.0.0+a"), parse_version("1.0.0+b.1")
    assert one == other and hash(one) == hash(other) and not one < other and one <= other
    assert (one.text, other.build) == ("1.0.0+a", ("b", "1"))
    assert parse_version("1.2.3-rc.1").prerelease == ("rc", "1")
    assert one != "1.0.0+a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "v1.2.3",
        "1.2.3\n",
        " 1.2.3",
        "01.2.3",
        "1.2.3-01",
        "1.2.3-",
        "1.2.3+",
        "1.2.3-a..b",
        "١.2.3",
        "1.2.3.4",
        "-1.0.0",
        "1.0.0-" + "a" * 27,
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        parse_version(text)
    assert [violation.rule for violation in caught.value.errors] == ["semver.version"]


def test_a_version_of_32_characters_is_accepted() -> None:
    assert parse_version("1.0.0-" + "a" * 26).text == "1.0.0-" + "a" * 26


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("^1.2", ["1.2.0", "1.9.9"], ["1.1.9", "2.0.0", "2.0.0-rc.1", "1.5.0-rc.1"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "1.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0"]),
        (">= 1.0.0   <2.0.0 || 3.x", ["1.0.0", "3.9.0"], ["2.0.0", "4.0.0"]),
        ("1.2.3 - 2.0.0", ["1.2.3", "2.0.0"], ["2.0.1", "1.2.3-rc.1"]),
        ("*", ["0.0.1", "9.9.9"], ["1.0.0-rc.1"]),
        ("", ["1.0.0"], []),
        ("=1.0.0", ["1.0.0", "1.0.0+b"], ["1.0.1"]),
        ("^1.2.3-beta", ["1.2.3-beta", "1.2.3-rc.1", "1.2.3", "1.5.0"], ["1.2.3-alpha", "1.5.0-rc.1"]),
    ],
)
def test_ranges_are_those_of_npm(text: str, inside: list[str], outside: list[str]) -> None:
    semver.check_range(text)
    assert [v for v in inside + outside if semver.satisfies(parse_version(v), text)] == inside


@pytest.mark.parametrize(
    "text",
    [
        "latest",
        ">=1.0.0,<2",
        "==1.0.0",
        "^",
        "1.2.3.4",
        "^1.0.0\n",
        "^٣.0.0",
        "1 - ",
        "^1 || x y z",
        "*" * 257,
    ],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        semver.satisfies(parse_version("1.0.0"), text)
    assert [violation.rule for violation in caught.value.errors] == ["semver.range"]
