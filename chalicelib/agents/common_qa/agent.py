"""common_qa: answers from a small base of questions and answers, offline; in words where a model is configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chalicelib.agents.base import AgentBase, Message, Reply
from chalicelib.agents.common_qa.base_file import Entry, read_base
from chalicelib.agents.common_qa.models import CommonQaConversationHistory
from chalicelib.agents.common_qa.search import Bm25, Hit
from chalicelib.core import telemetry
from chalicelib.core.errors import HotplugError
from chalicelib.core.llm.model import ChatMessage, ChatOptions

BASE = Path(__file__).parent / "base.json"
THRESHOLD, PASSAGES = 0.5, 4
# How many messages a model is reminded of, and of each how much: what it is sent costs tokens.
RECENT = 6
MAX_REMINDED = 2_000
MAX_ASKED = 8_000
# A question this short may lean on the one before: "and how do I undo it?"
SHORT = 60
# In the log, where a model answered with nothing.
EMPTY = "llm.empty"
UNKNOWN = "I do not know that."


class CommonQa(AgentBase):
    """Ranks the base's questions by BM25. Below the threshold it says that it does not know, and what comes nearest."""

    history_model = CommonQaConversationHistory

    def __init__(self) -> None:
        super().__init__("common_qa", "Answers questions about Hotplug.")
        self._base: tuple[Entry, ...] = read_base(BASE)
        self._index = Bm25((one.questions, one.answer) for one in self._base)
        self._topic = str(self.config.get("topic", "Hotplug"))
        self._system = self.load_prompt("system.md").replace("{topic}", self._topic)
        self._threshold = float(self.config.get("threshold", THRESHOLD))
        self._passages = int(self.config.get("passages", PASSAGES))

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Reply:
        """Answer a question; see `AgentBase.invoke`.

        `metadata` says where the answer is from: `sources`, the questions of the base that it is about, or
        `suggestions` where it knows none; `score` and `match` of the best one; `by` whom it was written.
        """
        hits = self._search(message)
        if not self._knows(hits):
            nearest = [self._entry(hit).questions[0] for hit in hits]
            hint = f"You could ask: {nearest[0]}" if nearest else f"I know a little about {self._topic}."
            return Reply(
                f"{UNKNOWN} {hint}",
                {"sources": [], "suggestions": nearest, **_measured(hits), "by": "nobody"},
            )
        told = {"sources": [self._entry(hit).questions[0] for hit in hits], **_measured(hits)}
        text = self._in_words(message, hits) if self.llm.configured else None
        if text is None:
            return Reply(self._entry(hits[0]).answer, {**told, "by": "base"})
        return Reply(text, {**told, "by": "model"})

    def _entry(self, hit: Hit) -> Entry:
        return self._base[hit.place]

    def _knows(self, hits: Sequence[Hit]) -> bool:
        return bool(hits) and hits[0].match >= self._threshold

    def _search(self, message: str) -> list[Hit]:
        """The nearest entries. A short message that says too little is looked for behind the user's last one."""
        hits = self._index.search(message, self._passages)
        if len(message) > SHORT or self._knows(hits):
            return hits
        before = [one.content for one in self.history.recent(RECENT) if one.role == "user"]
        if not before:
            return hits
        together = self._index.search(f"{before[-1]} {message}", self._passages)
        return together if self._knows(together) else hits

    def _in_words(self, message: str, hits: Sequence[Hit]) -> str | None:
        """The model's answer; None where it has none, since the base's is as true."""
        passages = "\n\n".join(f"{self._entry(hit).questions[0]}\n{self._entry(hit).answer}" for hit in hits)
        chat = [ChatMessage("system", f"{self._system}\n\nPassages:\n\n{passages}")]
        chat += [_reminder(one) for one in self.history.recent(RECENT) if one.role in ("user", "assistant")]
        chat.append(ChatMessage("user", message[:MAX_ASKED]))
        try:
            text = self.llm.chat(chat, ChatOptions(max_tokens=500)).text.strip()
        except HotplugError as error:
            telemetry.event("agent.model_failed", agent=self.name, code=error.code)
            return None
        if not text:
            telemetry.event("agent.model_failed", agent=self.name, code=EMPTY)
        return text or None


def _measured(hits: Sequence[Hit]) -> dict[str, float]:
    best = hits[0] if hits else Hit(0, 0.0, 0.0)
    return {"score": round(best.score, 3), "match": round(best.match, 3)}


def _reminder(message: Message) -> ChatMessage:
    return ChatMessage(message.role, message.content[:MAX_REMINDED])
