"""What parameters look like on the wire: OpenAPI's style tables ("Style Examples"), RFC 6570 and RFC 6265, by hand.

Each row is one operation with one parameter, `color`. `sent` is what the whole request has in its one place: behind
`/{case}/` in the path, behind `/{case}` in the query, or in the one header line. None means that nothing is sent for
it, a `Refused` that the argument is refused before anything is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STRING, ARRAY, OBJECT = "blue", ["blue", "black", "brown"], {"R": 100, "G": 200, "B": 150}
HARD = "a b/c?d&e=f#ü%~"
HARD_SENT = "a%20b%2Fc%3Fd%26e%3Df%23%C3%BC%25~"
HARD_ARRAY, HARD_OBJECT = ["a,b", "c;d", "e=f&|"], {"k 1": "v,1", "ü": "="}


@dataclass(frozen=True)
class Refused:
    """The rule that an argument breaks."""

    rule: str


@dataclass(frozen=True)
class Case:
    """One parameter, one value, and what is sent."""

    id: str
    location: str
    value: Any
    sent: str | Refused | None
    parameter: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/{self.id}/{{color}}" if self.location == "path" else f"/{self.id}"

    @property
    def declared(self) -> dict[str, Any]:
        """The parameter object."""
        required = {"required": True} if self.location == "path" else {}
        schema = {} if "content" in self.parameter else {"schema": _schema(self.value)}
        return {"name": "color", "in": self.location, **required, **schema, **self.parameter}


def _schema(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"type": "array", "items": {}}
    return {"type": "object"} if isinstance(value, dict) else {}


_EMPTY_PATH, _CLIMBS = Refused("argument.path"), Refused("argument.path")
_SPLITS, _NESTED = Refused("argument.delimiter"), Refused("argument.nested")

# (location, style, explode), then what is sent for "", STRING, ARRAY, OBJECT, [], {}, HARD, HARD_ARRAY, HARD_OBJECT.
_VALUES = {
    "empty": "",
    "string": STRING,
    "array": ARRAY,
    "object": OBJECT,
    "empty-array": [],
    "empty-object": {},
    "hard": HARD,
    "hard-array": HARD_ARRAY,
    "hard-object": HARD_OBJECT,
}
_H1, _H2, _H3 = "a%2Cb", "c%3Bd", "e%3Df%26%7C"
_TABLE: dict[tuple[str, str, bool], tuple[str | Refused | None, ...]] = {
    ("path", "simple", False): (
        _EMPTY_PATH, "blue", "blue,black,brown", "R,100,G,200,B,150", _EMPTY_PATH, _EMPTY_PATH,
        HARD_SENT, f"{_H1},{_H2},{_H3}", "k%201,v%2C1,%C3%BC,%3D",
    ),
    ("path", "simple", True): (
        _EMPTY_PATH, "blue", "blue,black,brown", "R=100,G=200,B=150", _EMPTY_PATH, _EMPTY_PATH,
        HARD_SENT, f"{_H1},{_H2},{_H3}", "k%201=v%2C1,%C3%BC=%3D",
    ),
    # "." alone is a dot segment, which every server takes away (RFC 3986, 5.2.4).
    ("path", "label", False): (
        _CLIMBS, ".blue", ".blue,black,brown", ".R,100,G,200,B,150", _EMPTY_PATH, _EMPTY_PATH,
        f".{HARD_SENT}", f".{_H1},{_H2},{_H3}", ".k%201,v%2C1,%C3%BC,%3D",
    ),
    ("path", "label", True): (
        _CLIMBS, ".blue", ".blue.black.brown", ".R=100.G=200.B=150", _EMPTY_PATH, _EMPTY_PATH,
        f".{HARD_SENT}", f".{_H1}.{_H2}.{_H3}", ".k%201=v%2C1.%C3%BC=%3D",
    ),
    ("path", "matrix", False): (
        ";color", ";color=blue", ";color=blue,black,brown", ";color=R,100,G,200,B,150", _EMPTY_PATH, _EMPTY_PATH,
        f";color={HARD_SENT}", f";color={_H1},{_H2},{_H3}", ";color=k%201,v%2C1,%C3%BC,%3D",
    ),
    ("path", "matrix", True): (
        ";color", ";color=blue", ";color=blue;color=black;color=brown", ";R=100;G=200;B=150", _EMPTY_PATH, _EMPTY_PATH,
        f";color={HARD_SENT}", f";color={_H1};color={_H2};color={_H3}", ";k%201=v%2C1;%C3%BC=%3D",
    ),
    ("query", "form", False): (
        "?color=", "?color=blue", "?color=blue,black,brown", "?color=R,100,G,200,B,150", None, None,
        f"?color={HARD_SENT}", f"?color={_H1},{_H2},{_H3}", "?color=k%201,v%2C1,%C3%BC,%3D",
    ),
    ("query", "form", True): (
        "?color=", "?color=blue", "?color=blue&color=black&color=brown", "?R=100&G=200&B=150", None, None,
        f"?color={HARD_SENT}", f"?color={_H1}&color={_H2}&color={_H3}", "?k%201=v%2C1&%C3%BC=%3D",
    ),
    ("query", "spaceDelimited", False): (
        "?color=", "?color=blue", "?color=blue%20black%20brown", "?color=R%20100%20G%20200%20B%20150", None, None,
        f"?color={HARD_SENT}", f"?color={_H1}%20{_H2}%20{_H3}", _SPLITS,
    ),
    ("query", "spaceDelimited", True): (
        "?color=", "?color=blue", "?color=blue&color=black&color=brown", "?R=100&G=200&B=150", None, None,
        f"?color={HARD_SENT}", f"?color={_H1}&color={_H2}&color={_H3}", "?k%201=v%2C1&%C3%BC=%3D",
    ),
    ("query", "pipeDelimited", False): (
        "?color=", "?color=blue", "?color=blue%7Cblack%7Cbrown", "?color=R%7C100%7CG%7C200%7CB%7C150", None, None,
        f"?color={HARD_SENT}", _SPLITS, "?color=k%201%7Cv%2C1%7C%C3%BC%7C%3D",
    ),
    ("query", "pipeDelimited", True): (
        "?color=", "?color=blue", "?color=blue&color=black&color=brown", "?R=100&G=200&B=150", None, None,
        f"?color={HARD_SENT}", f"?color={_H1}&color={_H2}&color={_H3}", "?k%201=v%2C1&%C3%BC=%3D",
    ),
    # The specification leaves all but the object open: what most frameworks read.
    ("query", "deepObject", False): (
        "?color=", "?color=blue", "?color%5B0%5D=blue&color%5B1%5D=black&color%5B2%5D=brown",
        "?color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150", None, None,
        f"?color={HARD_SENT}", f"?color%5B0%5D={_H1}&color%5B1%5D={_H2}&color%5B2%5D={_H3}",
        "?color%5Bk%201%5D=v%2C1&color%5B%C3%BC%5D=%3D",
    ),
    ("query", "deepObject", True): (
        "?color=", "?color=blue", "?color%5B0%5D=blue&color%5B1%5D=black&color%5B2%5D=brown",
        "?color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150", None, None,
        f"?color={HARD_SENT}", f"?color%5B0%5D={_H1}&color%5B1%5D={_H2}&color%5B2%5D={_H3}",
        "?color%5Bk%201%5D=v%2C1&color%5B%C3%BC%5D=%3D",
    ),
    # Never percent-encoded; what is not ASCII is one octet of Latin-1 (RFC 9110, 5.5).
    ("header", "simple", False): (
        "color: ", "color: blue", "color: blue,black,brown", "color: R,100,G,200,B,150", None, None,
        f"color: {HARD}", "color: a,b,c;d,e=f&|", "color: k 1,v,1,ü,=",
    ),
    ("header", "simple", True): (
        "color: ", "color: blue", "color: blue,black,brown", "color: R=100,G=200,B=150", None, None,
        f"color: {HARD}", "color: a,b,c;d,e=f&|", "color: k 1=v,1,ü==",
    ),
    # Each pair is a cookie of its own (RFC 6265, 5.4): `&` separates nothing there.
    ("cookie", "form", False): (
        "Cookie: color=", "Cookie: color=blue", "Cookie: color=blue,black,brown", "Cookie: color=R,100,G,200,B,150",
        None, None, f"Cookie: color={HARD_SENT}", f"Cookie: color={_H1},{_H2},{_H3}",
        "Cookie: color=k%201,v%2C1,%C3%BC,%3D",
    ),
    ("cookie", "form", True): (
        "Cookie: color=", "Cookie: color=blue", "Cookie: color=blue; color=black; color=brown",
        "Cookie: R=100; G=200; B=150", None, None, f"Cookie: color={HARD_SENT}",
        f"Cookie: color={_H1}; color={_H2}; color={_H3}", "Cookie: k%201=v%2C1; %C3%BC=%3D",
    ),
}  # fmt: skip


def _of_table() -> list[Case]:
    return [
        Case(
            f"{location}-{style}-{str(explode).lower()}-{kind}",
            location,
            value,
            sent,
            {"style": style, "explode": explode},
        )
        for (location, style, explode), row in _TABLE.items()
        for (kind, value), sent in zip(_VALUES.items(), row, strict=True)
    ]


_JSON = {"content": {"application/json": {"schema": {}}}}
_PLAIN = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_DEEP = {"a": [1, "x y"], "b": None, "c": "ü"}
_DEEP_SENT = "%7B%22a%22%3A%5B1%2C%22x%20y%22%5D%2C%22b%22%3Anull%2C%22c%22%3A%22%C3%BC%22%7D"
_RESERVED = {"allowReserved": True}
_MOST = "a b/?:@!$'()*,;=&#+[]%41%zü"
_MOST_SENT = "a%20b/?:@!$'()*,;=%26%23%2B%5B%5D%41%25z%C3%BC"
_COMMAS = {"style": "form", "explode": False, **_RESERVED}

CASES: tuple[Case, ...] = (
    *_of_table(),
    # The defaults of each location: simple, not exploded; form, exploded.
    Case("path-default", "path", ARRAY, "blue,black,brown"),
    Case("path-default-object", "path", OBJECT, "R,100,G,200,B,150"),
    Case("query-default", "query", ARRAY, "?color=blue&color=black&color=brown"),
    Case("header-default-object", "header", OBJECT, "color: R,100,G,200,B,150"),
    Case("cookie-default", "cookie", STRING, "Cookie: color=blue"),
    # Scalars that are no strings (RFC 8785, 3.2.2.3 for numbers).
    *(
        Case(f"query-scalar-{name}", "query", value, f"?color={text}")
        for name, value, text in (
            ("true", True, "true"), ("false", False, "false"), ("zero", 0, "0"), ("minus", -7, "-7"),
            ("integral", 1.0, "1"), ("fraction", 0.1, "0.1"), ("large", 1e20, "100000000000000000000"),
            ("huge", 1e21, "1e%2B21"), ("tiny", 1e-7, "1e-7"), ("long", 9007199254740993, "9007199254740993"),
            ("null", None, ""),
        )
    ),
    Case("query-null-in-array", "query", ["a", None, "b"], "?color=a&color=b"),
    Case("query-null-in-object", "query", {"a": None, "b": 1}, "?b=1"),
    Case("path-mixed-array", "path", [True, 2, "c"], "true,2,c"),
    # RFC 6570's reserved expansion, without what would change the meaning of a query.
    Case("query-reserved", "query", _MOST, f"?color={_MOST_SENT}", _RESERVED),
    Case("query-reserved-exploded", "query", ["a/b", "c&d"], "?color=a/b&color=c%26d", _RESERVED),
    Case("query-reserved-commas", "query", ["a/b", "c,d"], "?color=a/b,c%2Cd", _COMMAS),
    Case("query-reserved-pipes", "query", ["a/b", "c"], "?color=a/b%7Cc",
         {"style": "pipeDelimited", "explode": False, **_RESERVED}),
    Case("query-reserved-spaces", "query", ["a/b", "c"], "?color=a/b%20c",
         {"style": "spaceDelimited", "explode": False, **_RESERVED}),
    Case("query-reserved-deep", "query", {"k/": "a/b"}, "?color%5Bk%2F%5D=a/b", {"style": "deepObject", **_RESERVED}),
    # `content` instead of `schema`: one text of that type.
    Case("path-json", "path", _DEEP, _DEEP_SENT, _JSON),
    Case("query-json", "query", _DEEP, f"?color={_DEEP_SENT}", _JSON),
    Case("query-json-string", "query", "x y", "?color=%22x%20y%22", _JSON),
    Case("header-json", "header", _DEEP, 'color: {"a":[1,"x y"],"b":null,"c":"\\u00fc"}', _JSON),
    Case("cookie-json", "cookie", _DEEP, f"Cookie: color={_DEEP_SENT}", _JSON),
    Case("query-plain", "query", HARD, f"?color={HARD_SENT}", _PLAIN),
    Case("header-plain", "header", "x y", "color: x y", _PLAIN),
    Case("cookie-plain", "cookie", "x-y/z", "Cookie: color=x-y/z", _PLAIN),
    # Nested, which only deepObject carries.
    Case("query-deep-nested", "query", {"a": {"b": [1, {"c": 2}]}},
         "?color%5Ba%5D%5Bb%5D%5B0%5D=1&color%5Ba%5D%5Bb%5D%5B1%5D%5Bc%5D=2", {"style": "deepObject"}),
    Case("query-nested", "query", [["a"]], _NESTED),
    Case("path-nested", "path", {"a": {}}, _NESTED),
    Case("header-nested", "header", [{"a": 1}], _NESTED),
    Case("cookie-nested", "cookie", {"a": [1]}, _NESTED),
    # What could not be read back.
    Case("path-label-dots", "path", ["a.b", "c"], _SPLITS, {"style": "label", "explode": True}),
    Case("query-spaces-in-spaces", "query", ["a b", "c"], _SPLITS, {"style": "spaceDelimited", "explode": False}),
    Case("query-deep-brackets", "query", {"a[b]": 1}, _SPLITS, {"style": "deepObject"}),
    # What would begin a line, or lead elsewhere.
    *(
        Case(f"header-line-{number}", "header", text, Refused("argument.header_value"))
        for number, text in enumerate(("a\r\nX: y", "a\nb", "a\x00", " a", "a\t", "\u4e2d"))
    ),
    *(
        Case(f"path-climbs-{number}", "path", text, _CLIMBS)
        for number, text in enumerate(
            (".", "..", "../x", "a/../b", "..\\x", "%2e%2e", "..%2f", "%252e%252e%252f", "..;a", "a/..", "./x")
        )
    ),
    # Everything else of a path stays one segment: encoded, it cannot begin another, a query, or a host.
    *(
        Case(f"path-stays-{number}", "path", text, sent)
        for number, (text, sent) in enumerate((
            ("//evil.example/x", "%2F%2Fevil.example%2Fx"), ("@evil.example", "%40evil.example"),
            ("\\\\evil.example", "%5C%5Cevil.example"), ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
            ("?a=b", "%3Fa%3Db"), ("#x", "%23x"), ("http://evil.example", "http%3A%2F%2Fevil.example"),
            ("%2f", "%252f"), ("\x00", "%00"), ("...", "..."), (";", "%3B"),
        ))
    ),
    Case("cookie-splits", "cookie", "a; b=c\r\n", "Cookie: color=a%3B%20b%3Dc%0D%0A"),
    Case("query-splits", "query", "a&b=c#d\r\n", "?color=a%26b%3Dc%23d%0D%0A"),
)  # fmt: skip
