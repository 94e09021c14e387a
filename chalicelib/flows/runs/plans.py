"""What a run is to do: the flow in the version that it began with, made ready, and who its parts work for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chalicelib.apps.models import App
from chalicelib.core import audit
from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError, Invalid
from chalicelib.core.hotcache import Dependency, HotCache
from chalicelib.flows import catalog, licensing
from chalicelib.flows.dao import PublishedFlow
from chalicelib.flows.dsl.check import check_flow
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import SUBFLOW_FAILED, NodeError, node_error
from chalicelib.flows.engine.plan import Plan, plan_of
from chalicelib.flows.engine.questions import QUESTION
from chalicelib.flows.names import flow_id_of

# A plan takes about this many bytes for each character of the data.
_BYTES_A_CHARACTER = 20
MAX_SUBFLOWS_LOOKED_AT = 200


@dataclass(frozen=True)
class Runnable:
    """A flow that may be run.

    Parameters
    ----------
    version
        "" for a draft.
    author_id
        The app that owns it.
    text
        The data as JSON; `digest` is that of the data in canonical form.
    operations
        Durable operations in the worst case.
    """

    flow_id: int
    version: str
    author_id: int
    text: str
    digest: str
    operations: int
    plan: Plan


def published(cache: HotCache, caller: Caller, flow_id: int, version: str | None) -> Runnable:
    """Return a published flow that the caller may run; the licence is looked at each time.

    Raises
    ------
    errors.NotFound
        `flow.not_found`, `flow.not_published`
    errors.Forbidden
        `flow.not_licensed`
    """
    found = catalog.find_usable(cache, caller, flow_id, version)
    licensing.check(cache, caller.alias_id, flow_id)
    return _runnable(cache, found)


def draft(session: Session, caller: Caller, flow_id: int) -> Runnable:
    """Return the draft of a flow of the caller's.

    Raises
    ------
    errors.NotFound
    errors.Invalid
        `flow.invalid` with every violation.
    """
    found = catalog.read_draft(session, caller, flow_id)
    return of_data(json.loads(found.text), flow_id, caller.app_id)


def of_data(data: Any, flow_id: int, author_id: int) -> Runnable:
    """Return a flow that is not published.

    Raises
    ------
    errors.Invalid
    """
    checked = check_flow(data)
    if checked.flow is None:
        raise Invalid(
            "The flow does not hold.",
            code="flow.invalid",
            errors=[one.violation() for one in checked.violations],
            extensions={"violations": checked.total},
        )
    text = _text(data)
    return Runnable(
        flow_id, "", author_id, text, str(audit.digest(data)), checked.operations, plan_of(checked.flow)
    )


def plan_of_text(cache: HotCache, text: str, digest: str, flow_id: int) -> Plan:
    """Return the plan of data that was sound when it was stored."""
    return _plan(cache, flow_id, digest, json.loads(text), len(text))


def asks_questions(cache: HotCache, runnable: Runnable) -> bool:
    """Whether the flow, or one that it runs as a sub-flow, has a question: then it must be able to wait."""
    seen: set[tuple[str, str | None]] = set()
    pending = [runnable.plan]
    while pending:
        for node in pending.pop().flow.nodes.values():
            if node.type == QUESTION:
                return True
            if node.type != "flow":
                continue
            named = (node.params["flowId"], node.params.get("version") or None)
            flow_id = flow_id_of(named[0])
            if named in seen or flow_id is None or len(seen) >= MAX_SUBFLOWS_LOOKED_AT:
                continue
            seen.add(named)
            found = catalog.published(cache, flow_id, named[1])
            if found is not None:
                pending.append(_runnable(cache, found).plan)
    return False


def resolve_subflow(cache: HotCache, call: Call) -> tuple[Result, str]:
    """Return which version a sub-flow node runs, and the data of that version as JSON.

    It is the author of the flow around it who must be licensed: whoever runs that flow need not know what it is made
    of.

    Raises
    ------
    NodeError
        22801
    """
    author, params = call.scope.author, call.node.params
    flow_id = flow_id_of(params["flowId"])
    try:
        if flow_id is None:
            raise NodeError(SUBFLOW_FAILED, "there is no such flow", is_transient=False)
        cache.refresh()
        found = published(cache, author, flow_id, params.get("version") or None)
    except HotplugError as error:
        raise node_error(error, SUBFLOW_FAILED) from error
    about = {"flowId": flow_id, "digest": found.digest, "authorId": found.author_id}
    return Result(about), found.text


def author_of(cache: HotCache, caller: Caller, author_id: int) -> Caller:
    """Return the app that owns a flow as a caller, so that its tools and keys are found."""
    if author_id == caller.app_id:
        return caller
    return app_of(cache, author_id, caller.credential_id, caller.request_id)


def app_of(cache: HotCache, app_id: int, credential_id: int, request_id: str) -> Caller:
    """Return an app as a caller, on behalf of a request that was made with a credential."""

    def read(session: Session) -> tuple[str, list[Dependency]]:
        alias = session.scalar(select(App.alias_id).where(App.id == app_id))
        return alias or "", [("apps", str(app_id))]

    alias_id = cache.load(("app_alias", app_id), read)
    return Caller(app_id, alias_id, credential_id, "caller", request_id)


def _runnable(cache: HotCache, found: PublishedFlow) -> Runnable:
    plan = _plan(cache, found.flow_id, found.checksum, found.data, found.size)
    return Runnable(
        found.flow_id,
        found.version,
        found.app_id,
        _text(found.data),
        found.checksum,
        found.operations,
        plan,
    )


def _plan(cache: HotCache, flow_id: int, digest: str, data: Mapping[str, Any], size: int) -> Plan:
    name = ("flow_plan", digest)
    kept: Plan | None = cache.get(name)
    if kept is not None:
        return kept
    stamp = cache.stamp()
    checked = check_flow(data)
    if checked.flow is None:
        # It was checked when it was stored; a release since then has become stricter.
        raise Invalid("The flow does not hold to the rules of this release.", code="flow.invalid")
    plan = plan_of(checked.flow)
    cache.put(name, plan, [("flows", str(flow_id))], stamp, weight=size * _BYTES_A_CHARACTER)
    return plan


def _text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
