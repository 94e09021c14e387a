"""Small languages within a manifest: amounts of resources, licences."""

from __future__ import annotations

import re

_MIB = 1024**2
_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1024, "Mi": _MIB, "Gi": 1024**3}
_QUANTITY = re.compile(r"([0-9]{1,12})(Ki|Mi|Gi|k|M|G)?")
_CPU = re.compile(r"([0-9]{1,6})(m?)|([0-9]{1,3}\.[0-9]{1,3})")
BOUNDS = {
    "cpu": (1, 4_000, "1m to 4000m"),
    "memory": (_MIB, 2048 * _MIB, "1Mi to 2Gi"),
    "disk": (0, 512 * _MIB, "0 to 512Mi, what a function has"),
}
# The annex D grammar of SPDX 2.3 without its list of names, which grows with every release of SPDX.
_LICENSE_PART = re.compile(r"[A-Za-z0-9.-]+\+?|[()]")


def cpu_millis(value: str | float) -> int | None:
    """Thousandths of a processor in `100m`, `2` or `0.5`; None for anything else."""
    found = _CPU.fullmatch(str(value))
    if not found:
        return None
    if found[3]:
        return round(float(found[3]) * 1000)
    return int(found[1]) * (1 if found[2] else 1000)


def byte_count(value: str) -> int | None:
    """Bytes in `128Mi`, `50M` or `4096`; None for anything else."""
    found = _QUANTITY.fullmatch(value)
    return int(found[1]) * _UNITS[found[2] or ""] if found else None


def is_license(text: str) -> bool:
    """Whether `text` has the grammar of SPDX expressions: names, AND, OR, WITH, parentheses."""
    expects_name, depth = True, 0
    for part in text.replace("(", " ( ").replace(")", " ) ").split():
        if not _LICENSE_PART.fullmatch(part):
            return False
        is_operator = part in ("AND", "OR", "WITH")
        if part == "(" and expects_name:
            depth += 1
        elif part == ")" and not expects_name and depth:
            depth -= 1
        elif part in "()" or is_operator == expects_name:
            return False
        else:
            expects_name = is_operator
    return not expects_name and depth == 0
