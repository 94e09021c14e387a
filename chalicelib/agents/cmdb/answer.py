"""What the tool answered: of any form that the app's own document allows, so it is read with care."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What is kept of an answer and shown.
MOST_HOSTS = 20
MOST_SERVICES = 10
MAX_TEXT = 200


class UnexpectedAnswer(ValueError):
    """The tool does not answer as examples/agents/cmdb.yaml describes it."""


@dataclass(frozen=True)
class Hosts:
    """The first of the hosts that were found, and how many there are."""

    shown: tuple[Mapping[str, Any], ...]
    found: int

    def as_dict(self) -> dict[str, Any]:
        return {"hosts": [dict(host) for host in self.shown], "found": self.found}


def read_hosts(hosts: Any) -> Hosts:
    """Return what is shown of a list of hosts.

    Raises
    ------
    UnexpectedAnswer
    """
    if not isinstance(hosts, list):
        raise UnexpectedAnswer
    return Hosts(tuple(_host(host) for host in hosts[:MOST_HOSTS]), len(hosts))


def found_hosts(body: Any) -> Hosts:
    """Return the hosts of an answer to findHosts, `{"hosts": […]}`.

    Raises
    ------
    UnexpectedAnswer
    """
    return read_hosts(body.get("hosts") if isinstance(body, dict) else None)


def sentences(asked: Mapping[str, str], hosts: Hosts) -> str:
    """Return the hosts in words."""
    if not hosts.found:
        return f"I find no host for {_wanted(asked)}."
    lines = [
        f"{host['name']} ({host['environment']}) runs {_listed(host['services'])}; it belongs to {host['owner']}."
        for host in hosts.shown
    ]
    if hosts.found > len(hosts.shown):
        lines.append(f"… and {hosts.found - len(hosts.shown)} more.")
    return "\n".join(lines)


def _wanted(asked: Mapping[str, str]) -> str:
    return asked.get("host") or " in ".join(asked.values())


def _listed(services: Sequence[str]) -> str:
    return ", ".join(services) or "nothing"


def _host(host: Any) -> dict[str, Any]:
    if not isinstance(host, dict) or not isinstance(host.get("services"), list):
        raise UnexpectedAnswer
    services = [_text(service) for service in host["services"][:MOST_SERVICES]]
    return {
        **{member: _text(host.get(member)) for member in ("name", "environment")},
        "services": services,
        "owner": _text(host.get("owner")),
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnexpectedAnswer
    return value[:MAX_TEXT]
