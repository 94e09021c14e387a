# ruff: noqa: E501 - a table of cases reads best with one case a line
"""What a package means for a name that may be taken already: every case a line."""

from __future__ import annotations

import pytest

from chalicelib.core.errors import Conflict, HotplugError, Invalid
from chalicelib.plugins.decision import Act, Installed, Offer, Terms, decide

A, B = "a" * 64, "b" * 64
INSTALL = Terms()
UPDATE = Terms(target="plugin_x_000000")
DOWNGRADE = Terms(target="plugin_x_000000", allow_downgrade=True)
DROP = Terms(updates=True)


def offer(version: str = "1.0.0", checksum: str = A, name: str = "x") -> Offer:
    return Offer(name, version, checksum)


def installed(version: str = "1.0.0", checksum: str = A) -> Installed:
    return Installed("plugin_x_000000", "x", version, checksum)


@pytest.mark.parametrize(
    ("given", "terms", "there", "version_checksum", "tombstone", "act"),
    [
        pytest.param(offer(), INSTALL, None, None, None, Act.CREATE, id="a new name"),
        pytest.param(offer(), DROP, None, None, None, Act.CREATE, id="a dropped new name"),
        pytest.param(offer(), INSTALL, None, None, A, Act.CREATE, id="installed again after an uninstall"),
        pytest.param(offer(), INSTALL, installed(), A, A, Act.NOTHING, id="the very same, delivered twice"),
        pytest.param(offer(), UPDATE, installed(), A, A, Act.NOTHING, id="an update to what is active"),
        pytest.param(offer("2.0.0", B), UPDATE, installed(), None, None, Act.ADD_VERSION, id="an update"),
        pytest.param(offer("2.0.0", B), DROP, installed(), None, None, Act.ADD_VERSION, id="a dropped update"),
        pytest.param(
            offer("1.0.0"), DOWNGRADE, installed("2.0.0", B), A, A, Act.ACTIVATE_EXISTING, id="back to a kept one"
        ),
        pytest.param(
            offer("2.0.0", B), UPDATE, installed(), B, B, Act.ACTIVATE_EXISTING, id="forward to a kept one"
        ),
        pytest.param(
            offer("0.9.0", B), DOWNGRADE, installed(), None, None, Act.ADD_VERSION, id="a new lower number, allowed"
        ),
        pytest.param(
            offer("1.10.0", B), UPDATE, installed("1.9.0"), None, None, Act.ADD_VERSION, id="numbers, not text"
        ),
        pytest.param(
            offer("1.0.0", B), UPDATE, installed("1.0.0-rc.1"), None, None, Act.ADD_VERSION, id="after a release candidate"
        ),
    ],
)  # fmt: skip
def test_what_is_done(
    given: Offer,
    terms: Terms,
    there: Installed | None,
    version_checksum: str | None,
    tombstone: str | None,
    act: Act,
) -> None:
    assert decide(given, terms, there, version_checksum, tombstone) is act


@pytest.mark.parametrize(
    ("given", "terms", "there", "version_checksum", "tombstone", "error", "code"),
    [
        pytest.param(offer("2.0.0", B), INSTALL, installed(), None, None, Conflict, "plugin.already_installed", id="name taken"),
        pytest.param(offer(checksum=B), INSTALL, installed(), A, A, Conflict, "plugin.already_installed", id="other bytes"),
        pytest.param(offer(checksum=B), UPDATE, installed(), A, A, Conflict, "plugin.version_exists", id="number reused"),
        pytest.param(offer(checksum=B), DROP, installed(), A, A, Conflict, "plugin.version_exists", id="number reused, dropped"),
        pytest.param(offer(checksum=B), INSTALL, None, None, A, Conflict, "plugin.version_exists", id="number reused after an uninstall"),
        pytest.param(offer("0.9.0", B), UPDATE, installed(), None, None, Invalid, "plugin.version_not_raised", id="lower"),
        pytest.param(offer("1.0.0+b", B), UPDATE, installed(), None, None, Invalid, "plugin.version_not_raised", id="build metadata is no order"),
        pytest.param(offer("0.9.0", B), DROP, installed(), None, None, Invalid, "plugin.version_not_raised", id="lower, dropped"),
        pytest.param(offer("2.0.0", B, "y"), UPDATE, installed(), None, None, Invalid, "plugin.name_differs", id="another name"),
        pytest.param(offer("1.0.0", A, "y"), UPDATE, installed(), A, A, Invalid, "plugin.name_differs", id="another name, same number"),
    ],
)  # fmt: skip
def test_what_is_refused(
    given: Offer,
    terms: Terms,
    there: Installed | None,
    version_checksum: str | None,
    tombstone: str | None,
    error: type[HotplugError],
    code: str,
) -> None:
    with pytest.raises(error) as raised:
        decide(given, terms, there, version_checksum, tombstone)
    assert raised.value.code == code


def test_a_taken_name_tells_where_to_update() -> None:
    with pytest.raises(Conflict) as raised:
        decide(offer("2.0.0", B), INSTALL, installed(), None, None)
    assert raised.value.extensions == {"pluginId": "plugin_x_000000", "version": "1.0.0"}
