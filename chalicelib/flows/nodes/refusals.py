"""What a service's refusal means to the node that called it, in words for the flow's author."""

from __future__ import annotations

import time

from chalicelib.core.errors import HotplugError, UpstreamTimeout
from chalicelib.flows.engine.call import Call
from chalicelib.flows.engine.errors import NodeError, NodeTimeout, node_error
from chalicelib.flows.nodes.outputs import told

# What a server means by these: come again.
_COME_AGAIN = frozenset({408, 409, 425, 429})
# A service is told whole milliseconds, and its clock is another.
_EARLY_S = 0.1


def refused(error: HotplugError, code: int, call: Call) -> NodeError:
    """Return `node_error` with what the service knows besides: every violation, or the callee's own words.

    A service is given the time that the node has left. Where that is what has run out, it is the node that took too
    long. A server that says that the request is wrong (4xx) says so again when it is asked again.
    """
    if is_late(error, call):
        return NodeTimeout(call.node.retry.timeout_s)
    plain = node_error(error, code)
    message = plain.message
    if error.errors:
        message = f"{message}: {told(error.errors)}"
    own = own_words(error)
    if own:
        message = f"{message}: {own}"
    upstream = error.extensions.get("upstream")
    status = upstream.get("status") if isinstance(upstream, dict) else None
    final = isinstance(status, int) and 400 <= status < 500 and status not in _COME_AGAIN
    return NodeError(code, message, is_transient=plain.is_transient and not final)


def is_late(error: HotplugError, call: Call) -> bool:
    """Whether an error is that of a node whose time is over."""
    return isinstance(error, UpstreamTimeout) and time.monotonic() >= call.deadline - _EARLY_S


def own_words(error: HotplugError) -> str:
    """Return the message of what was called, '' where it said none."""
    own = error.extensions.get("error")
    return str(own["message"]) if isinstance(own, dict) and own.get("message") else ""
