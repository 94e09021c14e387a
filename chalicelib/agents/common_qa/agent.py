"""common_qa: answers from a small base of questions and answers, offline; in words where a model is configured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chalicelib.agents.base import AgentBase, Reply
from chalicelib.agents.common_qa.models import CommonQaConversationHistory
from chalicelib.agents.common_qa.search import Bm25, Hit
from chalicelib.core import telemetry
from chalicelib.core.errors import HotplugError
from chalicelib.core.llm import ChatMessage, ChatOptions

BASE = Path(__file__).parent / "base.json"
RECENT = 6
# A question this short may lean on the one before: "and how do I undo it?"
SHORT = 40
UNKNOWN = (
    "I do not know that. I know a little about Hotplug: plugins, tools, MCP, agents, apps and how to run it."
)


class CommonQa(AgentBase):
    """Ranks the base's questions by BM25. Below the threshold it says that it does not know, and what comes nearest."""

    history_model = CommonQaConversationHistory

    def __init__(self) -> None:
        super().__init__("common_qa", "Answers questions about Hotplug.")
        self._base = json.loads(BASE.read_text("utf-8"))
        self._index = Bm25((one["questions"], one["answer"]) for one in self._base)
        self._system = self.load_prompt("system.md")
        self._threshold = float(self.config["threshold"])
        self._passages = int(self.config["passages"])

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Reply:
        """Answer a question; see `AgentBase.invoke`."""
        hits = self._search(message)
        known = bool(hits) and hits[0].score >= self._threshold
        told = {
            "sources": [self._base[hit.place]["questions"][0] for hit in hits],
            "score": round(hits[0].score, 3) if hits else 0.0,
        }
        if known and self.llm.configured:
            text = self._in_words(message, hits)
            if text is not None:
                return Reply(text, {**told, "by": "model"})
        if known:
            return Reply(self._base[hits[0].place]["answer"], {**told, "by": "base"})
        return Reply(UNKNOWN, {**told, "by": "nobody"})

    def _search(self, message: str) -> list[Hit]:
        hits = self._index.search(message, self._passages)
        if len(message) > SHORT or (hits and hits[0].score >= self._threshold):
            return hits
        before = [one.content for one in self.history.recent(RECENT) if one.role == "user"]
        return self._index.search(f"{before[-1]} {message}", self._passages) if before else hits

    def _in_words(self, message: str, hits: Sequence[Hit]) -> str | None:
        """The model's answer; None where it has none, since the base's is as true."""
        passages = "\n\n".join(
            f"{self._base[hit.place]['questions'][0]}\n{self._base[hit.place]['answer']}" for hit in hits
        )
        chat = [ChatMessage("system", f"{self._system}\n\nPassages:\n\n{passages}")]
        chat += [
            ChatMessage(one.role, one.content)
            for one in self.history.recent(RECENT)
            if one.role in ("user", "assistant")
        ]
        try:
            completion = self.llm.chat([*chat, ChatMessage("user", message)], ChatOptions(max_tokens=500))
        except HotplugError as error:
            telemetry.exception("agent.model_failed", error, agent=self.name)
            return None
        return completion.text.strip() or None
