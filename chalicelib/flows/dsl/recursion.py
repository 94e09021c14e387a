"""Flows that call flows: whether one can come to call itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from chalicelib.flows.dsl.findings import Findings, shown
from chalicelib.flows.dsl.graph import Graph, components, cycle, is_cyclic, reach
from chalicelib.flows.dsl.limits import MAX_SUBFLOWS
from chalicelib.flows.dsl.reading import Draft
from chalicelib.flows.dsl.spelling import Spelling
from chalicelib.flows.dsl.structure import is_valid, spelling
from chalicelib.flows.dsl.versions import version_key

Subflow = Callable[[str, str | None], Any | None]

_PART = "nodeParam flow"
_DATA = Spelling({"node_param": "nodeParam"})


class _Calls:
    """What calls what: flows in their versions, numbered as they are met. 0 is the flow that is checked."""

    def __init__(self, flow_id: str | None, subflow: Subflow) -> None:
        self.out: list[list[int]] = [[]]
        self.names = [f"flow {flow_id}" if flow_id else "this flow"]
        self.missing: set[int] = set()
        self._subflow = subflow
        # The flow under check is what its latest version will be once it is published.
        self._numbers = {(flow_id, ""): 0} if flow_id else {}
        self._loaded: deque[tuple[int, Any]] = deque()

    def add(self, caller: int, flow_id: str, version: str) -> int | None:
        """Note a call and return the number of what is called; None where there would be too many."""
        key = (flow_id, version_key(version) if version else "")
        number = self._numbers.get(key)
        if number is None:
            if len(self.out) > MAX_SUBFLOWS:
                return None
            number = self._numbers[key] = len(self.out)
            self.out.append([])
            self.names.append(f"flow {shown(flow_id)} {version}".rstrip())
            data = self._subflow(flow_id, version or None)
            if data is None:
                self.missing.add(number)
            else:
                self._loaded.append((number, data))
        self.out[caller].append(number)
        return number

    def follow(self) -> bool:
        """Note the calls of all that is called; False where there are too many."""
        complete = True
        while self._loaded:
            caller, data = self._loaded.popleft()
            for flow_id, version in dict.fromkeys(_calls_in(data)):
                complete = self.add(caller, flow_id, version) is not None and complete
        return complete


def check_recursion(draft: Draft, flow_id: str | None, subflow: Subflow, findings: Findings) -> None:
    """Report sub-flows that there are not, those that come to call themselves, and more than 200 of them.

    Parameters
    ----------
    flow_id
        The flow's own id as its data would name it; None where it has none yet.
    subflow
        The data of a published flow in a version, None for the latest; None where there is none. It is asked once
        for each.
    """
    calls = _Calls(flow_id, subflow)
    callers: list[tuple[int, int]] = []
    complete = True
    for number, node in enumerate(draft.nodes):
        if node.type == "flow" and node.params is not None:
            called = calls.add(0, node.params["flowId"], node.params.get("version", ""))
            complete = complete and called is not None
            if called is not None:
                callers.append((number, called))
    if not calls.follow() or not complete:
        message = f"reaches more than {MAX_SUBFLOWS} other flows"
        findings.add("flow.recursion", "", "nodes", message, ("nodes",))
    endless = _endless(calls.out)
    for number, called in callers:
        node, steps = draft.nodes[number], draft.nodes[number].steps("nodeParam", "flowId")
        if called in calls.missing:
            message = f"there is no published {calls.names[called]}"
            findings.add("param.schema", node.id, "nodeParam.flowId", message, steps)
        elif called in endless:
            way = " → ".join(calls.names[step] for step in endless[called][:10])
            findings.add("flow.recursion", node.id, "nodeParam.flowId", f"never ends: {way}", steps)


def _endless(out: Graph) -> dict[int, list[int]]:
    """Of what leads to a cycle, the cycle that it leads to."""
    into: list[list[int]] = [[] for _ in out]
    for caller, targets in enumerate(out):
        for target in targets:
            into[target].append(caller)
    found: dict[int, list[int]] = {}
    seen: set[int] = set()
    for component in components(out):
        if is_cyclic(out, component):
            found.update(dict.fromkeys(reach(into, component, seen), cycle(out, component)))
    return found


def _calls_in(data: Any) -> Iterator[tuple[str, str]]:
    """The sub-flows of a published flow's data, however it is shaped."""
    nodes = data.get("nodes") if isinstance(data, dict) else None
    for raw in nodes if isinstance(nodes, list) else ():
        body = raw.get("data") if isinstance(raw, dict) else None
        if isinstance(body, dict) and str(raw.get("id")).startswith("flow::"):
            params = spelling(_PART).apply(_DATA.apply(body).get("nodeParam"))
            if is_valid(_PART, params):
                yield params["flowId"], params.get("version", "")
