"""Packages as attackers and careless tools make them, each with the rule that refuses it, and good ones.

Hostile cases name every rule that may speak: the one they were made for, and in `also` those that cannot help
it.
"""

from __future__ import annotations

from tests.corpus.cases import Case
from tests.corpus.good_packages import GOOD
from tests.corpus.hostile_contents import CONTENTS
from tests.corpus.hostile_manifests import JSON, RULES
from tests.corpus.hostile_names import KINDS, NAMES
from tests.corpus.hostile_structure import STRUCTURE

HOSTILE_ZIPS: list[Case] = [*NAMES, *KINDS, *STRUCTURE, *CONTENTS]
HOSTILE: list[Case] = [*HOSTILE_ZIPS, *JSON, *RULES]

__all__ = ["GOOD", "HOSTILE", "HOSTILE_ZIPS", "JSON", "RULES", "Case"]
