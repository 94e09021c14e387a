"""cmdb: asks a configuration database, which each app registers as its tool `cmdb`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from chalicelib.agents.base import AgentBase, Reply
from chalicelib.agents.cmdb.answer import Hosts, UnexpectedAnswer, found_hosts, read_hosts, sentences
from chalicelib.agents.cmdb.memory import Memory
from chalicelib.agents.cmdb.models import SharedConversationHistory
from chalicelib.agents.cmdb.question import ENVIRONMENTS, MAX_READ, Question, from_model, read
from chalicelib.core import telemetry
from chalicelib.core.errors import HotplugError, UpstreamFailed
from chalicelib.core.llm.model import ChatMessage, ChatOptions

TOOL = "cmdb"
CACHE_SECONDS = 60
MAX_USER = 128  # agentflow_shared_user_preferences.user_id
# In the log, where a model answered with something else.
NO_JSON = "llm.no_json"
_TEXT = {"type": "string", "maxLength": 64}
EXTRACTED = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"host": _TEXT, "service": _TEXT, "environment": {"enum": list(ENVIRONMENTS)}},
}
HELP = (
    "Ask me about hosts: `who owns db-7?`, `which hosts run nginx in prod?`. "
    "`use staging by default` remembers an environment."
)
NOBODY = "I remember an environment for a user: send who it is for as `userId` in the context."
REGISTER = (
    "Register the OpenAPI document of your configuration database as a tool of that name, with the operations "
    "findHosts and getHost as in examples/agents/cmdb.yaml."
)
# What the app has to mend, in words for whoever asked; any other failure of the tool is an error of the call.
MENDABLE = {
    "agent.tool_not_found": f"This app has no tool named `cmdb` yet. {REGISTER}",
    "tool.unknown_operation": f"The tool `cmdb` of this app is another one than I know. {REGISTER}",
}
UNEXPECTED = f"The tool `cmdb` of this app answers in another form than I know. {REGISTER}"


class Cmdb(AgentBase):
    """Understands a question by rules, or by a model where one is configured, and asks the tool."""

    history_model = SharedConversationHistory

    def __init__(self) -> None:
        super().__init__("cmdb", "Answers which hosts run what and who owns them.")
        self._prompt = self.load_prompt("extract.md")
        self._cached_for = timedelta(seconds=float(self.config.get("cache_seconds", CACHE_SECONDS)))

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Reply:
        """Answer a question; `userId` of the context, a text, says whose environment counts.

        `metadata` has `asked`, what the tool was asked, with the `hosts`, how many were `found` and whether that was
        `cached`; or the `error`.
        """
        question, user = self._understood(message), _user(context)
        memory = Memory(self.database, self._cached_for)
        if question.sets_default and question.environment:
            return _remembered(memory, user, question.environment)
        if not question.understood:
            return Reply(HELP, {"asked": None})
        asked = _asked(memory, user, question)
        try:
            hosts, cached = self._hosts(memory, thread_id, asked)
        except HotplugError as error:
            if error.code not in MENDABLE:
                raise
            return Reply(MENDABLE[error.code], {"asked": asked, "error": error.code})
        except UnexpectedAnswer:
            return Reply(UNEXPECTED, {"asked": asked, "error": "agent.tool_answer"})
        return Reply(sentences(asked, hosts), {"asked": asked, **hosts.as_dict(), "cached": cached})

    def _understood(self, message: str) -> Question:
        question = read(message)
        if question.understood or not self.llm.configured:
            return question
        chat = [ChatMessage("system", self._prompt), ChatMessage("user", message[:MAX_READ])]
        options = ChatOptions(max_tokens=200, temperature=0.0, json_schema=EXTRACTED)
        try:
            return from_model(json.loads(self.llm.chat(chat, options).text))
        except HotplugError as error:
            telemetry.event("agent.model_failed", agent=self.name, code=error.code)
        except (ValueError, RecursionError):
            telemetry.event("agent.model_failed", agent=self.name, code=NO_JSON)
        return question

    def _hosts(self, memory: Memory, thread_id: str, asked: Mapping[str, str]) -> tuple[Hosts, bool]:
        known = memory.answer(asked)
        if known is not None:
            hosts = Hosts(tuple(known["hosts"]), known["found"])
            memory.count(thread_id, hosts.found)
            return hosts, True
        hosts = self._asked_for(asked)
        memory.keep(thread_id, asked, hosts.as_dict(), hosts.found)
        return hosts, False

    def _asked_for(self, asked: Mapping[str, str]) -> Hosts:
        if "host" not in asked:
            return found_hosts(self.tools.call(TOOL, "findHosts", {"query": dict(asked)}))
        try:
            return read_hosts([self.tools.call(TOOL, "getHost", {"path": {"name": asked["host"]}})])
        except UpstreamFailed as error:
            if error.extensions.get("upstream", {}).get("status") == 404:
                return Hosts((), 0)
            raise


def _remembered(memory: Memory, user: str | None, environment: str) -> Reply:
    if user is None:
        return Reply(NOBODY, {"asked": None, "error": "agent.user_missing"})
    memory.remember(user, environment)
    return Reply(f"From now on I look in {environment} unless you name another.", {"asked": None})


def _asked(memory: Memory, user: str | None, question: Question) -> dict[str, str]:
    if question.host:
        return {"host": question.host}
    environment = question.environment or (memory.environment(user) if user else None)
    asked = {"service": question.service, "environment": environment}
    return {key: value for key, value in asked.items() if value}


def _user(context: Mapping[str, Any]) -> str | None:
    user = context.get("userId")
    if not isinstance(user, str) or not 0 < len(user.strip()) <= MAX_USER:
        return None
    return user.strip()
