"""Colours and shapes of the kinds of nodes, for a light and a dark background."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.flows.dsl.model import BODY_ENDS, BODY_STARTS, END, START


@dataclass(frozen=True)
class Kind:
    """How nodes of a kind look: fill, line and text, each for light and dark."""

    name: str
    light: tuple[str, str, str]
    dark: tuple[str, str, str]


KINDS = (
    Kind("edge", ("#ecfdf5", "#10b981", "#047857"), ("#0b2a22", "#34d399", "#6ee7b7")),
    Kind("pick", ("#fffbeb", "#f59e0b", "#b45309"), ("#2f230a", "#fbbf24", "#fcd34d")),
    Kind("model", ("#f5f3ff", "#8b5cf6", "#6d28d9"), ("#211a3d", "#a78bfa", "#c4b5fd")),
    Kind("call", ("#eff6ff", "#3b82f6", "#1d4ed8"), ("#10233f", "#60a5fa", "#93c5fd")),
    Kind("text", ("#f8fafc", "#94a3b8", "#475569"), ("#1b2432", "#64748b", "#a8b5c7")),
    Kind("body", ("#fafafa", "#a1a1aa", "#52525b"), ("#18191d", "#71717a", "#b4b4bd")),
    Kind("odd", ("#fef2f2", "#ef4444", "#b91c1c"), ("#321416", "#f87171", "#fca5a5")),
)

_KIND_OF = {
    **dict.fromkeys((START, END, *BODY_STARTS, *BODY_ENDS), "edge"),
    **dict.fromkeys(("if-else", "decision-making", "question-answer"), "pick"),
    **dict.fromkeys(("llm", "agent", "extractor-parameter"), "model"),
    **dict.fromkeys(("plugin", "hotplug-plugin", "flow", "code"), "call"),
    **dict.fromkeys(("message", "text-joiner", "node-variable"), "text"),
    **dict.fromkeys(("iteration", "loop"), "body"),
}

STATES = {
    "succeeded": ("#16a34a", "#4ade80"),
    "failed": ("#dc2626", "#f87171"),
    "running": ("#2563eb", "#60a5fa"),
    "waiting": ("#d97706", "#fbbf24"),
    "skipped": ("#71717a", "#a1a1aa"),
}
"""States of a run's nodes and their colours, light and dark."""


def kind_of(node_type: str) -> str:
    """Return the kind of a type; `odd` for a type that there is not."""
    return _KIND_OF.get(node_type, "odd")


def style() -> str:
    """Return the style sheet of every drawing. Nothing in it is loaded from anywhere."""
    light = _colours(0) + _LIGHT
    return f"{_SHAPE}{light}@media(prefers-color-scheme:dark){{{_colours(1)}{_DARK}}}"


def _colours(theme: int) -> str:
    rules = []
    for kind in KINDS:
        fill, line, text = kind.light if theme == 0 else kind.dark
        rules.append(f".{kind.name} .s{{fill:{fill};stroke:{line}}}.{kind.name} .k{{fill:{text}}}")
    for state, colours in STATES.items():
        rules.append(f".{state} .s{{stroke:{colours[theme]}}}.{state} .k{{fill:{colours[theme]}}}")
    return "".join(rules)


_SHAPE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;unicode-bidi:isolate}"
    ".h{font-size:18px;font-weight:600}.d,.k,.l{font-size:11px}.k{letter-spacing:.02em}.a{font-weight:500}"
    ".s{stroke-width:1.5}.body>.s{stroke-dasharray:6 4}"
    ".p{fill:none;stroke-width:1.5}.p.fail{stroke-dasharray:5 4}.p.back{stroke-dasharray:2 4;stroke-linecap:round}"
    ".p.taken{stroke-width:2.5}.p.idle{opacity:.5}.l.idle{opacity:.75}.skipped{opacity:.6}"
    ".succeeded .s,.failed .s,.running .s,.waiting .s{stroke-width:2.5}.running .s{stroke-dasharray:8 4}"
)
_LIGHT = (
    ".bg{fill:#fff}.h,.a{fill:#18181b}.d{fill:#71717a}.l{fill:#52525b}.l.fail{fill:#b91c1c}.l.back{fill:#b45309}"
    ".p{stroke:#a1a1aa}.p.fail{stroke:#ef4444}.p.back{stroke:#d97706}.p.taken{stroke:#16a34a}"
    ".m{fill:#a1a1aa}.m.fail{fill:#ef4444}.m.back{fill:#d97706}.m.taken{fill:#16a34a}"
)
_DARK = (
    ".bg{fill:#0f1115}.h,.a{fill:#f4f4f5}.d{fill:#a1a1aa}.l{fill:#d4d4d8}.l.fail{fill:#fca5a5}.l.back{fill:#fcd34d}"
    ".p{stroke:#71717a}.p.fail{stroke:#f87171}.p.back{stroke:#fbbf24}.p.taken{stroke:#4ade80}"
    ".m{fill:#71717a}.m.fail{fill:#f87171}.m.back{fill:#fbbf24}.m.taken{fill:#4ade80}"
)
