"""What a question asks of the configuration database: by rules, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What stands further behind is not read: the rules are for questions of a line.
MAX_READ = 2_000
ENVIRONMENTS = ("prod", "staging", "dev")
_NAMES = {
    "prod": "prod", "production": "prod", "live": "prod", "生产": "prod", "线上": "prod",
    "staging": "staging", "stage": "staging", "预发": "staging",
    "dev": "dev", "development": "dev", "开发": "dev",
}  # fmt: skip
# With re.ASCII a Chinese character is no part of a word, so `db-7的` ends where `db-7` does.
_FLAGS = re.IGNORECASE | re.ASCII
_NAMED = re.compile("|".join(rf"\b{name}\b" if name.isascii() else name for name in _NAMES), _FLAGS)
_WORD = r"[a-z][a-z0-9_.-]{0,63}"
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", _FLAGS)
_SERVICE_NAME = re.compile(_WORD, _FLAGS)
# A letter, then a number behind a hyphen: db-7, web-01.
_HOST = re.compile(r"\b[a-z][a-z0-9]{0,20}(?:-[a-z0-9]{1,20}){0,3}-[0-9]{1,6}\b", _FLAGS)
_OWNED = re.compile(r"\b(?:owns|owner of|responsible for)\s+([a-z][a-z0-9-]{0,63})\b", _FLAGS)
_SERVICES = (
    re.compile(
        r"\b(?:run|runs|running|have|has|with|use|uses|using|serve|serves|serving|for)\s+"
        rf"(?:(?:a|an|the|any)\s+)?({_WORD})",
        _FLAGS,
    ),
    re.compile(rf"\bwhere\s+(?:is|are|does|do)\s+(?:(?:a|an|the)\s+)?({_WORD})", _FLAGS),
    re.compile(rf"(?:运行|部署|安装|跑)(?:着|了|的)?\s*({_WORD})", _FLAGS),
    re.compile(rf"\b({_WORD})\s*(?:运行|部署|安装|跑)?在哪", _FLAGS),
)
_MACHINES = re.compile(r"\b(?:hosts?|servers?|machines?|instances?)\b|主机|服务器|机器", _FLAGS)
_DEFAULT = re.compile(r"\bdefault\b|默认", _FLAGS)
# What stands behind `run` or `with` and is no service.
_COMMON = """
a an and any are at by do does each every host hosts in is it machine machines me my of on or our out server servers
some that the their them there these this those to us what which who you your
"""
_NO_SERVICE = frozenset(_COMMON.split()) | set(_NAMES)


@dataclass(frozen=True)
class Question:
    """What is asked; None for what is left open.

    Parameters
    ----------
    about_machines
        It speaks of hosts, so that an environment alone is a question.
    sets_default
        The user names the environment that is meant from now on where none is named.
    """

    host: str | None = None
    service: str | None = None
    environment: str | None = None
    about_machines: bool = False
    sets_default: bool = False

    @property
    def understood(self) -> bool:
        """Whether there is anything to ask, or to remember."""
        alone = self.environment is not None and (self.about_machines or self.sets_default)
        return bool(self.host or self.service or alone)


def read(message: str) -> Question:
    """Return what a message asks."""
    text = message[:MAX_READ]
    named = _NAMED.search(text)
    environment = _NAMES[named[0].lower()] if named else None
    asks = "?" in text or "？" in text
    return Question(
        host=_host(text),
        service=_service(text),
        environment=environment,
        about_machines=_MACHINES.search(text) is not None,
        sets_default=environment is not None and not asks and _DEFAULT.search(text) is not None,
    )


def from_model(found: Any) -> Question:
    """Return the question that a model has read out of a message: it may have answered anything, so what is no name
    is left out."""
    if not isinstance(found, Mapping):
        return Question()
    environment = found.get("environment")
    return Question(
        host=_name(found.get("host"), _HOST_NAME),
        service=_name(found.get("service"), _SERVICE_NAME),
        environment=environment if environment in ENVIRONMENTS else None,
        about_machines=True,
    )


def _host(text: str) -> str | None:
    host = _HOST.search(text)
    if host is not None:
        return host[0].lower()
    owned = (match[1].lower() for match in _OWNED.finditer(text))
    return next((name for name in owned if name not in _NO_SERVICE), None)


def _service(text: str) -> str | None:
    for pattern in _SERVICES:
        for match in pattern.finditer(text):
            name = match[1].lower().rstrip(".-")
            if name not in _NO_SERVICE:
                return name
    return None


def _name(value: Any, pattern: re.Pattern[str]) -> str | None:
    if not isinstance(value, str) or not pattern.fullmatch(value.strip()):
        return None
    return value.strip().lower()
