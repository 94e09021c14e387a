"""What an agent may call: the tools and plugins that its agent.yaml names, as the calling app, and nothing else.

agent.yaml is written once for all apps, so it may name a tool: whose tool that is, each app decides by what it has
registered. Whatever looks like an id is one, and never a name: else a stranger could share a tool that is named like
the id which an agent's author meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.agents.base import CALL_TIMEOUT_MS
from chalicelib.agents.time_left import TimeLeft
from chalicelib.core.caller import Caller
from chalicelib.core.errors import Forbidden, Invalid, NotFound, Violation
from chalicelib.core.instances import Heartbeat
from chalicelib.core.strict_json import escape
from chalicelib.plugins import actions, execution
from chalicelib.plugins import catalog as plugin_catalog
from chalicelib.plugins import execution_log as plugin_log
from chalicelib.plugins.names import PLUGIN_ID_PATTERN
from chalicelib.plugins.services import Services as PluginServices
from chalicelib.tools import catalog as tool_catalog
from chalicelib.tools import execution_log as tool_log
from chalicelib.tools import operations, running
from chalicelib.tools.binding.arguments import ABSENT, Arguments
from chalicelib.tools.calling import MAX_TIMEOUT_MS, Options
from chalicelib.tools.names import TOOL_ID_PATTERN
from chalicelib.tools.services import Services as ToolServices

_GROUPS = ("path", "query", "header", "cookie", "body")
_MAX_TOLD = 100


@dataclass(frozen=True)
class ToolAccess:
    """The tools of an agent in one invocation; see `base.AgentTools`.

    Parameters
    ----------
    allowed
        `tools` of agent.yaml: ids, or names of tools that the app owns or is let use.
    """

    services: ToolServices
    caller: Caller
    allowed: frozenset[str]
    left: TimeLeft = field(default_factory=TimeLeft)

    def call(
        self,
        tool: str,
        operation_id: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = CALL_TIMEOUT_MS,
    ) -> Any:
        """Call an operation of the newest version, keep its row, and return the answer's body. Not inside a unit.

        Parameters
        ----------
        arguments
            In the groups path, query, header, cookie and body; the agent is the business, not the model: it may give
            whatever the document does not fix.
        timeout_ms
            Milliseconds for the call with all its attempts, 1..25,000.

        Raises
        ------
        errors.Forbidden
            `agent.tool_not_allowed`; nothing was looked up.
        errors.NotFound
            `agent.tool_not_found`: the app has no such tool.
        errors.Invalid
            `tool.invalid_arguments`, `tool.unknown_operation`; nothing was sent.
        errors.HotplugError
            Those of `tools.running.run`.
        """
        if tool not in self.allowed:
            raise Forbidden(
                f"The agent's agent.yaml does not name the tool {tool[:_MAX_TOLD]}.",
                code="agent.tool_not_allowed",
            )
        given = _arguments(arguments or {})
        answer, call = running.run(
            self.services,
            self.caller,
            self._id_of(tool),
            version=None,
            operation_id=operation_id,
            arguments=lambda _: given,
            options=Options(timeout_ms=self.left.milliseconds(max(1, min(timeout_ms, MAX_TIMEOUT_MS)))),
        )
        self.services.database.run(lambda session: tool_log.store(session, call))
        return answer.checked.body

    def _id_of(self, tool: str) -> str:
        cache = self.services.cache
        if re.fullmatch(TOOL_ID_PATTERN, tool):
            try:
                return tool_catalog.find(cache, self.caller, tool).tool_id
            except NotFound:
                raise _tool_not_found(tool) from None
        found = operations.tools_by_name(cache, self.caller.app_id).get(tool)
        if found is None:
            raise _tool_not_found(tool)
        return found


@dataclass(frozen=True)
class PluginAccess:
    """The plugins of an agent in one invocation; see `base.AgentPlugins`.

    Parameters
    ----------
    allowed
        `plugins` of agent.yaml: ids, or names of plugins that the app owns or is let use.
    """

    services: PluginServices
    heartbeat: Heartbeat
    caller: Caller
    allowed: frozenset[str]
    left: TimeLeft = field(default_factory=TimeLeft)

    def execute(self, plugin: str, params: Any = None, *, action: str | None = None) -> Any:
        """Run an action, keep its row, and return its result. Not inside a unit.

        The time is what the plugin's manifest says, 25 s at most.

        Raises
        ------
        errors.Forbidden
            `agent.plugin_not_allowed`; nothing was looked up.
        errors.NotFound
            `agent.plugin_not_found`: the app has no such plugin, or none of that name that is enabled.
        errors.HotplugError
            Those of `plugins.execution.execute`.
        """
        if plugin not in self.allowed:
            raise Forbidden(
                f"The agent's agent.yaml does not name the plugin {plugin[:_MAX_TOLD]}.",
                code="agent.plugin_not_allowed",
            )
        run = execution.execute(
            self.services,
            self.heartbeat,
            self.caller,
            self._id_of(plugin),
            action=action or execution.DEFAULT_ACTION,
            params={} if params is None else params,
            within_ms=self.left.milliseconds(execution.MAX_TIMEOUT_MS),
        )
        self.services.database.run(lambda session: plugin_log.store(session, run))
        return run.result

    def _id_of(self, plugin: str) -> str:
        cache = self.services.cache
        if re.fullmatch(PLUGIN_ID_PATTERN, plugin):
            try:
                return plugin_catalog.find(cache, self.caller, plugin).plugin_id
            except NotFound:
                raise _plugin_not_found(plugin) from None
        found = actions.plugins_by_name(cache, self.caller.app_id).get(plugin)
        if found is None:
            raise _plugin_not_found(plugin)
        return found


def _tool_not_found(tool: str) -> NotFound:
    return NotFound(f"The app has no tool {tool[:_MAX_TOLD]}.", code="agent.tool_not_found")


def _plugin_not_found(plugin: str) -> NotFound:
    return NotFound(f"The app has no enabled plugin {plugin[:_MAX_TOLD]}.", code="agent.plugin_not_found")


def _arguments(given: Mapping[str, Any]) -> Arguments:
    found = list(_violations(given))
    if found:
        raise Invalid("The arguments do not hold.", code="tool.invalid_arguments", errors=found[:100])
    return Arguments(
        path=given.get("path", {}),
        query=given.get("query", {}),
        header=given.get("header", {}),
        cookie=given.get("cookie", {}),
        body=given.get("body", ABSENT),
    )


def _violations(given: Mapping[str, Any]) -> Iterator[Violation]:
    for name in given:
        if name not in _GROUPS:
            pointer = f"/{escape(str(name))}"[:200]
            yield Violation(pointer, "argument.unknown", f"is none of {', '.join(_GROUPS)}")
        elif name != "body" and not isinstance(given[name], Mapping):
            yield Violation(f"/{name}", "schema.type", "is no object")
