"""The tables of cmdb: three that all agents share, and one of its own."""

from __future__ import annotations

from chalicelib.agents.cmdb.models.query_cache import CmdbQueryCache
from chalicelib.agents.shared.models import (
    SharedAnalyticsEvents,
    SharedConversationHistory,
    SharedUserPreferences,
)

__all__ = ["CmdbQueryCache", "SharedAnalyticsEvents", "SharedConversationHistory", "SharedUserPreferences"]
