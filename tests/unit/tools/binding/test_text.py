from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.tools.binding import text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("true", "true"),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-17.0, "-17"),
        (1.5, "1.5"),
        (-0.25, "-0.25"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (123456789012345680.0, "123456789012345680"),
        (0.1, "0.1"),
        (0.000001, "0.000001"),
        (0.0000001, "1e-7"),
        (1.25e-9, "1.25e-9"),
        (5e-324, "5e-324"),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_a_scalar_as_text(value: object, expected: str) -> None:
    assert text.scalar_text(value) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_itself(value: float) -> None:
    written = text.number_text(value)
    assert float(written) == value
    assert not written.endswith(".0")


@given(st.floats(min_value=-1e20, max_value=1e20).filter(float.is_integer))
def test_a_number_without_fraction_is_an_integer(value: float) -> None:
    written = text.number_text(value)
    assert written.lstrip("-").isdigit()
    assert float(written) == value


@pytest.mark.parametrize(
    ("value", "plain", "reserved", "form"),
    [
        ("azAZ09-._", "azAZ09-._", "azAZ09-._", "azAZ09-._"),
        ("~", "~", "~", "%7E"),
        ("*", "%2A", "*", "*"),
        (" ", "%20", "%20", "+"),
        ("+", "%2B", "%2B", "%2B"),
        ("a&b=c", "a%26b%3Dc", "a%26b=c", "a%26b%3Dc"),
        ("#?[]", "%23%3F%5B%5D", "%23?%5B%5D", "%23%3F%5B%5D"),
        ("a/b:c@d", "a%2Fb%3Ac%40d", "a/b:c@d", "a%2Fb%3Ac%40d"),
        ("!$'();,", "%21%24%27%28%29%3B%2C", "!$'();,", "%21%24%27%28%29%3B%2C"),
        ("100%", "100%25", "100%25", "100%25"),
        ("%2F%2f", "%252F%252f", "%2F%2f", "%252F%252f"),
        ("%2%zz%", "%252%25zz%25", "%252%25zz%25", "%252%25zz%25"),
        ("é€😀", "%C3%A9%E2%82%AC%F0%9F%98%80", "%C3%A9%E2%82%AC%F0%9F%98%80", "%C3%A9%E2%82%AC%F0%9F%98%80"),
        ("\r\n\0", "%0D%0A%00", "%0D%0A%00", "%0D%0A%00"),
        ("|^`{}\"<>\\", "%7C%5E%60%7B%7D%22%3C%3E%5C", "%7C%5E%60%7B%7D%22%3C%3E%5C", "%7C%5E%60%7B%7D%22%3C%3E%5C"),
    ],
)  # fmt: skip
def test_percent_encoding(value: str, plain: str, reserved: str, form: str) -> None:
    assert (text.encode(value), text.encode_reserved(value), text.form_encode(value)) == (
        plain,
        reserved,
        form,
    )


def test_reserved_expansion_leaves_no_delimiter() -> None:
    assert text.encode_reserved("a,b;c", ",") == "a%2Cb;c"


@given(TEXTS)
def test_what_is_encoded_decodes_to_itself(value: str) -> None:
    assert unquote(text.encode(value), errors="strict") == value
    assert parse_qsl(f"x={text.form_encode(value)}", keep_blank_values=True) == [("x", value)]


@given(TEXTS)
def test_reserved_expansion_keeps_within_the_parameter(value: str) -> None:
    assert not set(text.encode_reserved(value)) & set("#&+[] \r\n")


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("/a/b", "/a/b"),
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/100%", "/100%25"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/v1:run;x=(1)", "/v1:run;x=(1)"),
        ("/a\\b", "/a%5Cb"),
    ],
)
def test_the_literal_part_of_a_path(literal: str, expected: str) -> None:
    assert text.encode_path_literal(literal) == expected


@pytest.mark.parametrize(
    "segment",
    [
        ".",
        "..",
        "%2e%2e",
        "%2E.",
        "..%2Fadmin",
        "a%2F..%2Fb",
        "a%2F..",
        "..%5Cadmin",
        "%252e%252e",
        "%252e%252e%252fadmin",
        "..;x",
        "..%3Bx%2Fadmin",
        "a/../b",
        ".%2F",
    ],
)
def test_a_segment_that_climbs(segment: str) -> None:
    assert text.climbs(segment)


@pytest.mark.parametrize(
    "segment", ["", "a", "...", "..a", "a..b", ".hidden", "a%2Fb", "%2F", "1.0", "%", "%25"]
)
def test_a_segment_that_does_not(segment: str) -> None:
    assert not text.climbs(segment)


@given(TEXTS.filter(lambda value: "." not in value and "%" not in value))
def test_what_has_no_dot_does_not_climb(value: str) -> None:
    assert not text.climbs(quote(value, safe=""))
