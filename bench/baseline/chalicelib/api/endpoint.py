"""Endpoint declarations of the baseline, in the form that the function table reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    name: str
    method: str
    path: str
    timeout_s: int = 10
    memory_mb: int = 256
    rights: tuple[str, ...] = ("database",)


ENDPOINTS: list[Endpoint] = []
