"""What a package means for a name that may be taken already: a pure function, so every case is a test line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from chalicelib.core.errors import Conflict, Invalid, Violation
from chalicelib.core.semver import parse_version


class Act(Enum):
    """What is to be written."""

    CREATE = "create"
    ADD_VERSION = "add_version"
    ACTIVATE_EXISTING = "activate_existing"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Offer:
    """A package that asks to be registered."""

    name: str
    version: str
    checksum: str


@dataclass(frozen=True)
class Installed:
    """What the app has under the package's name, or under the id that an update names."""

    plugin_id: str
    name: str
    version: str
    checksum: str


@dataclass(frozen=True)
class Terms:
    """How the package came.

    Parameters
    ----------
    target
        The plugin id that an update names; None for an install.
    updates
        True where a name that exists is updated instead of refused (a dropped object).
    allow_downgrade
        An update may go back in versions.
    """

    target: str | None = None
    updates: bool = False
    allow_downgrade: bool = False


def decide(
    offer: Offer,
    terms: Terms,
    installed: Installed | None,
    version_checksum: str | None,
    tombstone_checksum: str | None,
) -> Act:
    """Return what to do with a package.

    Parameters
    ----------
    installed
        The plugin that the app has under this name (or that the update names); None where there is none.
    version_checksum
        Digest of that plugin's stored version of the offered number; None where it has none.
    tombstone_checksum
        Digest under which (app, name, version) was ever registered.

    Raises
    ------
    errors.Conflict
        `plugin.already_installed`, or `plugin.version_exists` for other bytes under a used number.
    errors.Invalid
        An update with another name, or one that does not rise.
    """
    if terms.target is not None and installed is not None and offer.name != installed.name:
        message = f"the package is called {offer.name}, the plugin {installed.name}"
        raise Invalid(
            "An update must carry the plugin's name.",
            code="plugin.name_differs",
            errors=[Violation("/name", "update.name", message)],
        )
    if installed is not None and (installed.version, installed.checksum) == (offer.version, offer.checksum):
        return Act.NOTHING
    if installed is not None and terms.target is None and not terms.updates:
        raise Conflict(
            f"{offer.name} is installed already; update it under its id.",
            code="plugin.already_installed",
            extensions={"pluginId": installed.plugin_id, "version": installed.version},
        )
    if tombstone_checksum is not None and tombstone_checksum != offer.checksum:
        raise Conflict(
            f"{offer.name} {offer.version} was registered with other bytes; raise the version.",
            code="plugin.version_exists",
        )
    if installed is None:
        return Act.CREATE
    if not terms.allow_downgrade and not parse_version(offer.version) > parse_version(installed.version):
        message = f"{offer.version} does not come after {installed.version}"
        raise Invalid(
            "The version must rise; allowDowngrade lifts this.",
            code="plugin.version_not_raised",
            errors=[Violation("/version", "update.version", message)],
        )
    return Act.ADD_VERSION if version_checksum is None else Act.ACTIVATE_EXISTING
