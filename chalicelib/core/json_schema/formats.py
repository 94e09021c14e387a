"""The `format`s that are asserted; others are notes for people.

A list of our own, because what the validator library checks depends on which optional packages are installed.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from chalicelib.core import errors
from chalicelib.core.json_schema.patterns import compile_pattern

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    re.IGNORECASE,
)
_DURATION = re.compile(
    r"P(?=[0-9T])([0-9]+W|([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T(?=[0-9])([0-9]+H)?([0-9]+M)?([0-9]+S)?)?)"
)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_URI_TEXT = re.compile(r"([A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


def is_date(text: str) -> bool:
    """RFC 3339 full-date."""
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_date_time(text: str) -> bool:
    """RFC 3339 date-time, with its offset."""
    return len(text) > 11 and text[10] in "Tt " and is_date(text[:10]) and is_time(text[11:])


def is_time(text: str) -> bool:
    """RFC 3339 full-time."""
    return _TIME.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """RFC 1123: labels of 1 to 63 letters, digits and inner hyphens, 253 in all."""
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def is_email(text: str) -> bool:
    """RFC 5321 without quoted local parts and address literals."""
    local, at, domain = text.rpartition("@")
    return bool(at) and len(local) <= 64 and _EMAIL_LOCAL.fullmatch(local) is not None and is_hostname(domain)


def is_uri_reference(text: str) -> bool:
    """RFC 3986, characters and authority."""
    if not _URI_TEXT.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        return parts.port is None or parts.port >= 0
    except ValueError:
        return False


def is_uri(text: str) -> bool:
    """RFC 3986 with a scheme."""
    return _SCHEME.match(text) is not None and is_uri_reference(text)


def is_regex(text: str) -> bool:
    """An expression that `core.patterns` takes."""
    try:
        compile_pattern(text)
    except errors.Invalid:
        return False
    return True


def is_uuid(text: str) -> bool:
    """RFC 9562 in its hyphenated form."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _is_address(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return "%" not in text

    return check


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": is_date,
    "date-time": is_date_time,
    "time": is_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": is_email,
    "hostname": is_hostname,
    "ipv4": _is_address(ipaddress.IPv4Address),
    "ipv6": _is_address(ipaddress.IPv6Address),
    "json-pointer": lambda text: _POINTER.fullmatch(text) is not None,
    "regex": is_regex,
    "uri": is_uri,
    "uri-reference": is_uri_reference,
    "uuid": is_uuid,
}
