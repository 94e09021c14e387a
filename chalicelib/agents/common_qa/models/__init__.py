"""The tables of common_qa: a history of its own."""

from __future__ import annotations

from chalicelib.agents.common_qa.models.conversation_history import CommonQaConversationHistory

__all__ = ["CommonQaConversationHistory"]
