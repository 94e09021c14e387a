"""Published flows as tools: calling one is an express run of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.core.answers import wire_bytes
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Invalid
from chalicelib.core.hotcache import HotCache
from chalicelib.flows import offers
from chalicelib.flows.names import flow_id_of
from chalicelib.flows.runs.names import EXPRESS, SUCCEEDED
from chalicelib.mcp import names
from chalicelib.mcp.argument_schema import cleaned
from chalicelib.mcp.offers import Index, Key, Offer, ToolResult


@dataclass(frozen=True)
class FlowRuns:
    """Offers each flow that the caller may run, in its newest published version.

    A flow that asks a question is listed as well: to know it, its graph and those of its sub-flows would have to be
    read. Whoever calls it is told that it cannot be run this way.
    """

    database: DatabaseService
    cache: HotCache
    kind: str = "flow"

    def index(self, caller: Caller) -> Index:
        """Return the names; kept until any flow or licence changes."""
        place = ("mcp.flows", caller.app_id)
        known: Index | None = self.cache.get(place)
        if known is None:
            stamp = self.cache.stamp()
            found = offers.runnable_flows(self.cache, caller.app_id)
            named = names.assign(self.kind, (((str(one.flow_id),), (one.name,)) for one in found))
            known = Index(tuple(sorted(named)), named)
            self.cache.put(place, known, [("flows", "*")], stamp, weight=200 * len(known.names))
        return known

    def describe(self, caller: Caller, named: Sequence[tuple[str, Key]]) -> list[Offer]:
        """Return the offers of a page: those that are not in memory are read together."""
        found: dict[Key, Offer] = {
            key: known for _, key in named if (known := self.cache.get(_place(key))) is not None
        }
        missing = [int(key[0]) for _, key in named if key not in found]
        if missing:
            stamp = self.cache.stamp()
            with self.database.reads() as session:
                described = list(offers.describe(session, missing))
            for one in described:
                key = (str(one.flow_id),)
                offer = found[key] = _offer(one)
                weight = wire_bytes(offer.input_schema)
                self.cache.put(_place(key), offer, [("flows", key[0])], stamp, weight=weight)
        # What is not there was taken off between the index and this.
        return [replace(found[key], name=name) for name, key in named if key in found]

    def call(
        self, caller: Caller, key: Key, arguments: dict[str, Any], meta: Mapping[str, Any]
    ) -> ToolResult:
        """Run a flow within this request, as POST /flows/{flowId}/runs does with mode express.

        Whom a model speaks for is not known, so the run neither reads nor leaves a history.

        Raises
        ------
        errors.HotplugError
            Those of `plans.published` and `starting.begin`: `run.needs_durable` for a flow that asks a question.
        """
        from chalicelib.flows.runs import express, plans, starting
        from chalicelib.flows.services import flow_services

        flow_id = flow_id_of(key[0])
        if flow_id is None:
            raise AssertionError("the index names a flow by its id")
        runnable = plans.published(self.cache, caller, flow_id, None)
        wanted = starting.Wanted(arguments, mode=EXPRESS, keeps_history=False)
        try:
            begun = starting.begin(self.database, self.cache, caller, runnable, wanted)
        except Invalid as error:
            # They point to what a client of MCP does not write.
            error.errors = ()
            raise
        run = express.ExpressRun(self.database, self.cache, flow_services().kinds, begun)
        run.run()
        return _result(self.database.run(run.store))


def _place(key: Key) -> tuple[str, ...]:
    return ("mcp.flow_offer", *key)


def _offer(flow: offers.Described) -> Offer:
    return Offer(
        name="",
        title=flow.name,
        description=flow.description or f"Runs the flow {flow.name}.",
        input_schema={**cleaned(flow.input_schema), "type": "object"},
        annotations={"title": flow.name, "openWorldHint": True},
    )


def _result(run: Mapping[str, Any]) -> ToolResult:
    told = {"hotplug/runId": run["runId"], "hotplug/version": run["version"]}
    error = run["error"]
    if run["state"] == SUCCEEDED:
        return ToolResult([_text(run["content"])], run["outputs"], meta=told)
    text = f"{error['message']} ({error['code']})"
    if error["nodeId"] is not None:
        text += f" at {error['nodeId']}"
    return ToolResult([_text(text)], {**error, "state": run["state"]}, is_error=True, meta=told)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
