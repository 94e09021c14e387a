"""Texts with places for values: `Hello {{user.name}}, your first order was {{orders[0].id}}`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.flows.dsl.limits import MAX_RENDERED, MAX_TEMPLATE_BYTES
from chalicelib.flows.dsl.paths import Path, PathError, parse_path
from chalicelib.flows.dsl.values import MISSING, descend

# Quotes, colons, braces and line feeds never stand in a name, and make of `{{` what prompts are full of: JSON.
# Possessive and without `{` inside: after a failure no character is looked at more than once again.
_PLACE = re.compile(r"""\{\{([^{}"':\n]++)\}\}""")


class TemplateError(ValueError):
    """A template that cannot be read or rendered; the message names the place and never a value."""


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Parameters
    ----------
    parts
        In turn a plain text and the path of a place: the first and the last are texts.
    """

    parts: tuple[str | Path, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template in one pass.

        A place is `{{`, a path and `}}`; blanks around the path do not count. Braces around anything with quotes,
        colons, braces or line feeds are text, so that a prompt may hold JSON.

        Raises
        ------
        TemplateError
            It has more than 64 KiB, or something between braces is neither a path nor such a text.
        """
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
            raise TemplateError(f"has more than {MAX_TEMPLATE_BYTES} bytes")
        parts: list[str | Path] = []
        position = 0
        for found in _PLACE.finditer(text):
            inside = found[1].strip()
            if not inside:
                continue
            parts.append(text[position : found.start()])
            try:
                parts.append(parse_path(inside))
            except PathError as error:
                raise TemplateError(f"{{{{{inside[:60]}}}}} {error}") from None
            position = found.end()
        return cls((*parts, text[position:]))

    @property
    def names(self) -> tuple[str, ...]:
        """The names that values are needed for, each once, in the order of the text."""
        return tuple(dict.fromkeys(str(path[0]) for path in self.parts[1::2]))

    def render(self, values: Mapping[str, Any]) -> str:
        """The text with its values.

        A text stands as it is, and what stands in it is never looked at for places again; any other value as
        compact JSON.

        Raises
        ------
        TemplateError
            A name, key or index is not there, or the text would have more than 4 Mi characters.
        """
        rendered: dict[Path, str] = {}
        pieces: list[str] = []
        length = 0
        for part in self.parts:
            if isinstance(part, str):
                piece = part
            else:
                # A large object that stands in the text a thousand times is written once.
                if part not in rendered:
                    rendered[part] = _text(_resolve(values, part))
                piece = rendered[part]
            length += len(piece)
            if length > MAX_RENDERED:
                raise TemplateError(f"renders to more than {MAX_RENDERED} characters")
            pieces.append(piece)
        return "".join(pieces)


def _resolve(values: Mapping[str, Any], path: Path) -> Any:
    value: Any = values
    for step in path:
        value = descend(value, step)
        if value is MISSING:
            raise TemplateError(f"{{{{{_spelt(path)}}}}} does not resolve at {_step(step)}")
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _spelt(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:101]


def _step(step: str | int) -> str:
    return f"index {step}" if isinstance(step, int) else step[:60]
