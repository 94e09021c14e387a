"""cmdb: asks a configuration database, which each app registers as its tool `cmdb`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from chalicelib.agents.base import AgentBase, Reply
from chalicelib.agents.cmdb.models import (
    CmdbQueryCache,
    SharedAnalyticsEvents,
    SharedConversationHistory,
    SharedUserPreferences,
)
from chalicelib.agents.cmdb.question import Question, read
from chalicelib.core import telemetry
from chalicelib.core.database import is_duplicate
from chalicelib.core.errors import HotplugError, NotFound, UpstreamFailed
from chalicelib.core.llm import ChatMessage, ChatOptions

TOOL = "cmdb"
DEFAULT_ENVIRONMENT = "environment"
ANYONE = "anyone"
MOST_SHOWN = 20
_TEXT = {"type": "string", "maxLength": 64}
EXTRACTED = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"host": _TEXT, "service": _TEXT, "environment": {"enum": ["prod", "staging", "dev"]}},
}
HELP = (
    "Ask me about hosts: `who owns db-7?`, `which hosts run nginx in prod?`. "
    "`use staging by default` remembers an environment."
)
NOT_REGISTERED = (
    "This app has no tool named `cmdb` yet. Register the OpenAPI document of your configuration database under that "
    "name, with the operations findHosts and getHost."
)


class Cmdb(AgentBase):
    """Understands a question by rules, or by a model where one is configured, and asks the tool."""

    history_model = SharedConversationHistory

    def __init__(self) -> None:
        super().__init__("cmdb", "Answers which hosts run what and who owns them.")
        self._prompt = self.load_prompt("extract.md")
        self._cached_for = timedelta(seconds=float(self.config["cache_seconds"]))

    def invoke(self, message: str, thread_id: str, context: Mapping[str, Any]) -> Reply:
        """Answer a question; `userId` of the context says whose preferences count."""
        user = str(context.get("userId") or ANYONE)[:128]
        question = self._understood(message)
        if question.sets_default and question.environment:
            self._remember(user, question.environment)
            return Reply(
                f"From now on I look in {question.environment} unless you name another.", {"asked": None}
            )
        if not question.understood:
            return Reply(HELP, {"asked": None})
        asked = self._asked(user, question)
        try:
            hosts, cached = self._hosts(asked)
        except NotFound as error:
            if error.code != "agent.tool_not_found":
                raise
            return Reply(NOT_REGISTERED, {"asked": asked, "error": error.code})
        self._count(thread_id, len(hosts))
        return Reply(_told(asked, hosts), {"asked": asked, "hosts": hosts[:MOST_SHOWN], "cached": cached})

    # -- understanding ---------------------------------------------------------------------------------------

    def _understood(self, message: str) -> Question:
        question = read(message)
        if question.understood or not self.llm.configured:
            return question
        chat = [ChatMessage("system", self._prompt), ChatMessage("user", message)]
        try:
            text = self.llm.chat(
                chat, ChatOptions(max_tokens=200, temperature=0.0, json_schema=EXTRACTED)
            ).text
            found = json.loads(text)
        except (HotplugError, ValueError) as error:
            telemetry.exception("agent.model_failed", error, agent=self.name)
            return question
        if not isinstance(found, dict):
            return question
        texts = {
            key: found[key] for key in ("host", "service", "environment") if isinstance(found.get(key), str)
        }
        return Question(**texts)

    def _asked(self, user: str, question: Question) -> dict[str, str]:
        if question.host:
            return {"host": question.host}
        environment = question.environment or self._preferred(user)
        asked = {"service": question.service, "environment": environment}
        return {key: value for key, value in asked.items() if value}

    # -- asking ----------------------------------------------------------------------------------------------

    def _hosts(self, asked: Mapping[str, str]) -> tuple[list[dict[str, Any]], bool]:
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        now = datetime.now(UTC)
        with self.database.reads() as session:
            known = session.scalars(
                select(CmdbQueryCache).where(
                    CmdbQueryCache.query_digest == digest, CmdbQueryCache.expires_at > now
                )
            ).one_or_none()
        if known is not None:
            return list(known.hosts), True
        hosts = self._asked_for(asked)
        self._write(lambda session: _keep(session, digest, hosts, now + self._cached_for))
        return hosts, False

    def _asked_for(self, asked: Mapping[str, str]) -> list[dict[str, Any]]:
        if "host" not in asked:
            return list(self.tools.call(TOOL, "findHosts", {"query": dict(asked)})["hosts"])
        try:
            return [self.tools.call(TOOL, "getHost", {"path": {"name": asked["host"]}})]
        except UpstreamFailed as error:
            if error.extensions.get("upstream", {}).get("status") == 404:
                return []
            raise

    # -- remembering -----------------------------------------------------------------------------------------

    def _preferred(self, user: str) -> str | None:
        query = select(SharedUserPreferences.value).where(
            SharedUserPreferences.user_id == user, SharedUserPreferences.name == DEFAULT_ENVIRONMENT
        )
        with self.database.reads() as session:
            return session.scalars(query).one_or_none()

    def _remember(self, user: str, environment: str) -> None:
        def work(session: Any) -> None:
            row = session.scalars(
                select(SharedUserPreferences)
                .where(
                    SharedUserPreferences.user_id == user, SharedUserPreferences.name == DEFAULT_ENVIRONMENT
                )
                .with_for_update()
            ).one_or_none()
            if row is None:
                row = SharedUserPreferences(user_id=user, name=DEFAULT_ENVIRONMENT)
                session.add(row)
            row.value = environment

        self._write(work)

    def _write(self, work: Callable[[Any], None]) -> None:
        """Run a unit that changes a row or adds it, again where another one has added it meanwhile."""
        try:
            self.database.run(work)
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            self.database.run(work)

    def _count(self, thread_id: str, found: int) -> None:
        event = {"event_name": "lookup", "thread_id": thread_id, "properties": {"found": found}}
        self.database.run(lambda session: session.add(SharedAnalyticsEvents(**event)))


def _keep(session: Any, digest: str, hosts: list[dict[str, Any]], until: datetime) -> None:
    row = session.scalars(
        select(CmdbQueryCache).where(CmdbQueryCache.query_digest == digest).with_for_update()
    ).one_or_none()
    if row is None:
        row = CmdbQueryCache(query_digest=digest)
        session.add(row)
    row.hosts, row.expires_at = hosts, until


def _told(asked: Mapping[str, str], hosts: list[dict[str, Any]]) -> str:
    if not hosts:
        wanted = asked.get("host") or " in ".join(asked.values())
        return f"I find no host for {wanted}."
    lines = [
        f"{host['name']} ({host['environment']}) runs {', '.join(host['services'])}; it belongs to {host['owner']}."
        for host in hosts[:MOST_SHOWN]
    ]
    if len(hosts) > MOST_SHOWN:
        lines.append(f"… and {len(hosts) - MOST_SHOWN} more.")
    return "\n".join(lines)
