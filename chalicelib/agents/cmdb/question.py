"""What a question asks of the configuration database: by rules, in English and Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_READ = 2_000
_ENVIRONMENTS = {
    "prod": "prod", "production": "prod", "live": "prod", "生产": "prod", "线上": "prod",
    "staging": "staging", "预发": "staging", "dev": "dev", "development": "dev", "开发": "dev",
}  # fmt: skip
_NAMED = re.compile(
    "|".join(rf"\b{name}\b" if name.isascii() else name for name in _ENVIRONMENTS), re.IGNORECASE
)
# A letter, then a number behind a hyphen: db-7, web-01.
_HOST = re.compile(r"\b[a-z][a-z0-9]{0,20}(?:-[a-z0-9]{1,20}){0,3}-[0-9]{1,6}\b", re.IGNORECASE)
_SERVICE = re.compile(
    r"\b(?:run|runs|running|have|has|use|uses|serve|serves)\s+([a-z][a-z0-9_.-]{1,40})|运行\s*([a-z][a-z0-9_.-]{1,40})",
    re.IGNORECASE,
)
_DEFAULT = re.compile(r"\bby default\b|\bdefault\b|默认", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """What is asked; None for what is left open.

    Parameters
    ----------
    sets_default
        The user names the environment that is meant from now on where none is named.
    """

    host: str | None = None
    service: str | None = None
    environment: str | None = None
    sets_default: bool = False

    @property
    def understood(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self.host or self.service or (self.environment and self.sets_default))


def read(message: str) -> Question:
    """Return what a message asks."""
    text = message[:MAX_READ]
    named = _NAMED.search(text)
    environment = _ENVIRONMENTS[named[0].lower()] if named else None
    host = _HOST.search(text)
    found = _SERVICE.search(text)
    service = (found[1] or found[2]).lower().rstrip(".") if found else None
    return Question(
        host=host[0].lower() if host else None,
        service=None if service in _ENVIRONMENTS else service,
        environment=environment,
        sets_default=environment is not None and _DEFAULT.search(text) is not None,
    )
