"""The tables that all agents share."""

from __future__ import annotations

from chalicelib.agents.shared.models.analytics_events import SharedAnalyticsEvents
from chalicelib.agents.shared.models.conversation_history import SharedConversationHistory
from chalicelib.agents.shared.models.user_preferences import SharedUserPreferences

__all__ = ["SharedAnalyticsEvents", "SharedConversationHistory", "SharedUserPreferences"]
