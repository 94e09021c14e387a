"""Who is calling: the result of authentication, handed to every service function that needs to know."""

from __future__ import annotations

from dataclasses import dataclass

# Each role includes those before it: a viewer reads, a caller executes, a publisher installs and edits, an admin
# manages apps, keys and all tenants.
ROLES = ("viewer", "caller", "publisher", "admin")


@dataclass(frozen=True)
class Caller:
    """An authenticated credential.

    Parameters
    ----------
    app_id
        app.id, the tenant.
    alias_id
        The tenant's name in the API, in storage keys and in logs.
    credential_id
        The credential's id; recorded as the author of a change.
    role
        One of `ROLES`.
    request_id
        Finds the request in the log and in audit rows.
    audits_reads
        True where the app's audit policy asks for a row per read.
    """

    app_id: int
    alias_id: str
    credential_id: int
    role: str
    request_id: str
    audits_reads: bool = False

    def may(self, role: str) -> bool:
        """True where this caller's role includes `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)
