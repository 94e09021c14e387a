from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.flows.dsl.limits import MAX_RENDERED, MAX_TEMPLATE_BYTES
from chalicelib.flows.dsl.paths import PathError, parse_path
from chalicelib.flows.dsl.templates import Template, TemplateError

VALUES: dict[str, Any] = {
    "name": "Zoë 王",
    "用户": {"名": "李"},
    "a": {"b": [{"c": 1}, {"c": 2.5}]},
    "t": True,
    "nothing": None,
    "braces": "{{name}} {{braces}}",
    "0": "zero",
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain", "plain"),
        ("Hi {{name}}!", "Hi Zoë 王!"),
        ("{{用户.名}}{{ 用户 }}", '李{"名":"李"}'),
        ("{{a.b[1].c}} {{a.b}}", '2.5 [{"c":1},{"c":2.5}]'),
        ("{{t}} {{nothing}} {{0}}", "true null zero"),
        ("{{braces}}", "{{name}} {{braces}}"),
        ("{{{name}}}", "{Zoë 王}"),
        ("{{{{name}}}}", "{{Zoë 王}}"),
        ("{{}} {{ }} {{", "{{}} {{ }} {{"),
        ('{"a":{"b":{{t}}}} {{"x"}}', '{"a":{"b":true}} {{"x"}}'),
        ("{{name} }", "{{name} }"),
        ("{{a:b}} {{\n}}", "{{a:b}} {{\n}}"),
    ],
)
def test_places_become_values_in_one_pass(text: str, rendered: str) -> None:
    assert Template.parse(text).render(VALUES) == rendered


def test_names_are_the_first_steps() -> None:
    assert Template.parse("{{b.x}} {{a[0]}} {{b}}").names == ("b", "a")


@pytest.mark.parametrize(
    "text", ["{{a b}}", "{{a.}}", "{{.a}}", "{{a[}}", "{{a[-1]}}", "{{[0]}}", "{{a|upper}}"]
)
def test_what_looks_like_a_place_must_be_one(text: str) -> None:
    with pytest.raises(TemplateError, match="is no path"):
        Template.parse(text)


@pytest.mark.parametrize(
    "path", ["x", "a.x", "a.b.c", "a.b[2]", "a.b[0][0]", "a[0]", "name.x", "name[0]", "a.b.0"]
)
def test_what_does_not_resolve_fails(path: str) -> None:
    with pytest.raises(TemplateError, match="does not resolve"):
        Template.parse(f"{{{{{path}}}}}").render(VALUES)


def test_an_error_holds_no_value() -> None:
    with pytest.raises(TemplateError) as caught:
        Template.parse("{{secret.x}}").render({"secret": "hunter2"})
    assert str(caught.value) == "{{secret.x}} does not resolve at x"


def test_a_template_has_a_size() -> None:
    assert Template.parse("é" * (MAX_TEMPLATE_BYTES // 2)).parts
    with pytest.raises(TemplateError, match="bytes"):
        Template.parse("é" * (MAX_TEMPLATE_BYTES // 2) + "e")


def test_what_is_rendered_has_a_size() -> None:
    big = Template.parse("{{x}}" * 1_000)
    assert len(big.render({"x": "a" * 4_000})) == 4_000_000
    with pytest.raises(TemplateError, match=str(MAX_RENDERED)):
        big.render({"x": "a" * 5_000})


class Dumped(dict[str, Any]):
    times = 0

    def items(self) -> Any:
        Dumped.times += 1
        return super().items()


def test_a_value_is_written_once_however_often_it_stands_there() -> None:
    Dumped.times = 0
    Template.parse("{{x}}" * 1_000).render({"x": {"in": Dumped(a=1)}})
    assert Dumped.times <= 1


@given(st.text(alphabet='{}ab.[]0 "\n:é', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        template = Template.parse(text)
    except TemplateError:
        return
    # Texts and places together are the template again, so nothing is lost and nothing read twice.
    plain = "".join(part if isinstance(part, str) else "☃" for part in template.parts)
    pattern = re.escape(plain).replace("☃", r"\{\{[^{}]*\}\}")
    assert re.fullmatch(pattern, text)


@given(st.dictionaries(st.sampled_from("ab"), st.text(), min_size=2))
def test_a_value_is_never_a_template(values: dict[str, str]) -> None:
    assert Template.parse("{{a}}|{{b}}").render(values) == f"{values['a']}|{values['b']}"


@pytest.mark.parametrize(
    "text", ["{" * 60_000, "{{" + "a" * 60_000, "{{a" * 20_000, "{{a}" * 15_000, "{{a " * 15_000]
)
def test_openings_without_end_are_text(text: str) -> None:
    assert Template.parse(text).parts == (text,)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a", ("a",)),
        ("a.b[1].c", ("a", "b", 1, "c")),
        ("a[0][1]", ("a", 0, 1)),
        ("a.0", ("a", "0")),
        ("名.é", ("名", "é")),
    ],
)
def test_paths(text: str, steps: tuple[str | int, ...]) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize(
    "text", ["", ".", "a.", "a..b", "a[", "a[x]", "a[1]b", "a b", "[0]", "a[٣]", "a" + ".a" * 64]
)
def test_texts_that_are_no_paths(text: str) -> None:
    with pytest.raises(PathError):
        parse_path(text)
