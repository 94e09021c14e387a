"""What an agent may call: the tools and plugins that its agent.yaml names, as the calling app, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.errors import Forbidden, Invalid, NotFound, Violation
from chalicelib.core.instances import Heartbeat
from chalicelib.core.strict_json import escape
from chalicelib.plugins import actions, execution
from chalicelib.plugins import execution_log as plugin_log
from chalicelib.plugins.services import Services as PluginServices
from chalicelib.tools import execution_log, operations, running
from chalicelib.tools.binding.arguments import ABSENT, Arguments
from chalicelib.tools.calling import Options
from chalicelib.tools.services import Services as ToolServices

DEFAULT_TIMEOUT_MS = 15_000
_GROUPS = ("path", "query", "header", "cookie", "body")


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

    def call(
        self,
        tool: str,
        operation_id: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
    ) -> Any:
        """Call an operation and return the answer's body. Not inside a unit.

        Parameters
        ----------
        arguments
            In the groups path, query, header, cookie and body.
        timeout_ms
            Milliseconds for the call.

        Raises
        ------
        errors.Forbidden
            `agent.tool_not_allowed`; nothing was looked up.
        errors.NotFound
            `agent.tool_not_found`: the app has no such tool.
        errors.HotplugError
            Those of `tools.running.run`.
        """
        if tool not in self.allowed:
            raise Forbidden(f"agent.yaml does not name the tool {tool}.", code="agent.tool_not_allowed")
        given = _arguments(arguments or {})
        answer, call = running.run(
            self.services,
            self.caller,
            self._id_of(tool),
            version=None,
            operation_id=operation_id,
            arguments=lambda _: given,
            options=Options(timeout_ms=timeout_ms),
        )
        self.services.database.run(lambda session: execution_log.store(session, call))
        return answer.checked.body

    def _id_of(self, tool: str) -> str:
        found = operations.callable_tools(self.services.database, self.services.cache, self.caller.app_id)
        named = ((one.tool_id, one.name) for one in found)
        return _one_of(tool, named, "agent.tool_not_found", "tool")


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

    def execute(self, plugin: str, params: Any = None, *, action: str | None = None) -> Any:
        """Run an action and return its result. Not inside a unit.

        Raises
        ------
        errors.Forbidden
            `agent.plugin_not_allowed`; nothing was looked up.
        errors.NotFound
            `agent.plugin_not_found`: the app has no enabled plugin of that name.
        errors.HotplugError
            Those of `plugins.execution.execute`.
        """
        if plugin not in self.allowed:
            raise Forbidden(f"agent.yaml does not name the plugin {plugin}.", code="agent.plugin_not_allowed")
        run = execution.execute(
            self.services,
            self.heartbeat,
            self.caller,
            self._id_of(plugin),
            action=action or execution.DEFAULT_ACTION,
            params={} if params is None else params,
        )
        self.services.database.run(lambda session: plugin_log.store(session, run))
        return run.result

    def _id_of(self, plugin: str) -> str:
        found = actions.runnable(self.services.database, self.services.cache, self.caller.app_id)
        named = ((one.plugin_id, one.name) for one in found)
        return _one_of(plugin, named, "agent.plugin_not_found", "plugin")


def _one_of(wanted: str, named: Iterable[tuple[str, str]], code: str, kind: str) -> str:
    """The id of what is wanted by its id or its name; of several of one name the app's own, which come first."""
    for thing_id, name in named:
        if wanted in (thing_id, name):
            return thing_id
    raise NotFound(f"The app has no {kind} {wanted}.", code=code)


def _arguments(given: Mapping[str, Any]) -> Arguments:
    unknown = [name for name in given if name not in _GROUPS]
    if unknown:
        found = [
            Violation(f"/{escape(name)}"[:200], "argument.unknown", f"is none of {', '.join(_GROUPS)}")
            for name in unknown
        ]
        raise Invalid("The arguments do not hold.", code="tool.invalid_arguments", errors=found)
    return Arguments(
        path=given.get("path", {}),
        query=given.get("query", {}),
        header=given.get("header", {}),
        cookie=given.get("cookie", {}),
        body=given.get("body", ABSENT),
    )
