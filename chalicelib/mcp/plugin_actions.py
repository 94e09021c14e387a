"""The actions of plugins as tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError, Violation
from chalicelib.core.instances import Heartbeat
from chalicelib.mcp import names
from chalicelib.mcp.argument_schema import Arguments, arguments_of, cleaned
from chalicelib.mcp.offers import Index, Key, Offer, ToolResult
from chalicelib.plugins import actions, catalog, execution, execution_log
from chalicelib.plugins.actions import Action
from chalicelib.plugins.services import Services

_PARAMS = "/params"
_ARGUMENTS = "/arguments"


@dataclass(frozen=True)
class PluginActions:
    """Offers each action of the caller's enabled plugins, and of those that others share with it."""

    services: Services
    heartbeat: Heartbeat
    kind: str = "plugin"

    def index(self, caller: Caller) -> Index:
        """Return the names; kept until any plugin changes."""
        cache, place = self.services.cache, ("mcp.plugins", caller.app_id)
        known: Index | None = cache.get(place)
        if known is None:
            stamp = cache.stamp()
            known = self._made(caller)
            cache.put(place, known, [("plugins", "*")], stamp)
        return known

    def _made(self, caller: Caller) -> Index:
        found = actions.runnable(self.services.database, self.services.cache, caller.app_id)
        things = (((one.plugin_id, action), (one.name, action)) for one in found for action in one.actions)
        named = names.assign(self.kind, things)
        return Index(tuple(sorted(named)), named)

    def describe(self, caller: Caller, named: Sequence[tuple[str, Key]]) -> list[Offer]:
        """Return the offers of a page."""
        plugin_ids = [key[0] for _, key in named]
        found = actions.actions_of(self.services.database, self.services.cache, plugin_ids)
        return [
            _offer(name, found[plugin_id][action])
            for name, (plugin_id, action) in named
            if action in found.get(plugin_id, {})
        ]

    def call(
        self, caller: Caller, key: Key, arguments: dict[str, Any], meta: Mapping[str, Any]
    ) -> ToolResult:
        """Run an action and keep its row, as POST /plugins/{pluginId}/execute does.

        Raises
        ------
        errors.HotplugError
            Those of `execution.execute`; `database.outcome_unknown` where it ran and its row may be lost.
        """
        plugin_id, action = key
        taken = self._arguments(caller, key)
        try:
            run = execution.execute(
                self.services,
                self.heartbeat,
                caller,
                plugin_id,
                action=action,
                params=taken.params(arguments),
            )
        except HotplugError as error:
            error.errors = tuple(_in_arguments(one, taken) for one in error.errors)
            raise
        self.services.database.run(lambda session: execution_log.store(session, run))
        told = {"hotplug/executionId": run.execution_id, "hotplug/version": run.version}
        return ToolResult([_text(run.result)], run.result, meta=told)

    def _arguments(self, caller: Caller, key: Key) -> Arguments:
        plugin_id, action = key
        resource = catalog.find(self.services.cache, caller, plugin_id).resource
        return arguments_of(resource["actions"].get(action, {}).get("paramsSchema", resource["paramsSchema"]))


def _offer(name: str, action: Action) -> Offer:
    title = f"{action.plugin_name}: {action.name}"
    returns = action.returns_schema
    return Offer(
        name=name,
        title=title,
        description=action.description or f"Runs {action.name} of the plugin {action.plugin_name}.",
        input_schema=arguments_of(action.params_schema).schema,
        output_schema=cleaned(returns) if isinstance(returns, dict) else None,
        # All that is known of what it does: whether it can reach anything but its own memory.
        annotations={"title": title, "openWorldHint": action.reaches_out},
    )


def _text(result: Any) -> dict[str, Any]:
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"type": "text", "text": text}


def _in_arguments(violation: Violation, taken: Arguments) -> Violation:
    """Let a violation of the params point to where the client wrote them."""
    pointer = violation.pointer
    if pointer != _PARAMS and not pointer.startswith(f"{_PARAMS}/"):
        return violation
    place = f"{_ARGUMENTS}{_PARAMS}" if taken.wrapped else _ARGUMENTS
    return replace(violation, pointer=place + pointer.removeprefix(_PARAMS))
