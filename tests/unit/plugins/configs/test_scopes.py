"""Whom a config is for."""

from __future__ import annotations

from chalicelib.plugins.configs import scopes


def test_subjects_of_two_apps_are_filed_apart() -> None:
    assert scopes.scope_id("user", 1, "1") != scopes.scope_id("user", 11, "")
    assert scopes.scope_id("user", 1, "23") != scopes.scope_id("user", 12, "3")
    assert len(scopes.scope_id("user", 2**63 - 1, "s" * 100)) <= 128
