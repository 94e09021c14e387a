"""Which addresses a connection may use: a host is resolved once, and everything it resolves to is judged."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from chalicelib.core.errors import Forbidden, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.addresses import Endpoint, Network, Target, is_never_reachable, is_public
from chalicelib.core.outbound.deadline import Deadline

# A resolver that hangs holds a thread until its own timeout; further look-ups time out in the queue.
CONCURRENT_LOOKUPS = 16

Resolver = Callable[[str, int], Sequence[str]]  # host, port → IP addresses; OSError where there are none


def system(host: str, port: int) -> tuple[str, ...]:
    """Resolve with the operating system."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


class Lookup:
    """Resolves hosts, and refuses what is not public.

    Parameters
    ----------
    resolver
        How names become addresses.
    private
        What may be reached although it is not public.
    closed
        Further ranges that are not public.
    timeout_s
        Of one look-up.
    """

    def __init__(
        self,
        resolver: Resolver,
        private: frozenset[Endpoint],
        closed: tuple[Network, ...],
        timeout_s: float,
    ) -> None:
        self._resolver = resolver
        self._private = private
        self._closed = closed
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(CONCURRENT_LOOKUPS, thread_name_prefix="hotplug-dns")

    def pin(self, target: Target, deadline: Deadline) -> Sequence[str]:
        """Return the addresses that the connection may use, all of them checked.

        Raises
        ------
        errors.Forbidden
            `http.forbidden_address`.
        errors.UpstreamFailed
            `http.connect_failed`: the name does not resolve.
        errors.UpstreamTimeout
            It was not resolved in time.
        """
        found = (target.address,) if target.address else self._resolve(target, deadline)
        if not found:
            raise UpstreamFailed("The host name does not resolve.", code="http.connect_failed")
        if Endpoint(target.host, target.port) in self._private:
            reachable = not any(map(is_never_reachable, found))
        else:
            # One bad address among good ones refuses the name: which is connected to is the attacker's throw.
            reachable = all(is_public(address, self._closed) for address in found)
        if not reachable:
            raise Forbidden(
                "The URL does not lead to a public address, nor to one that HOTPLUG_PRIVATE_ENDPOINTS opens.",
                code="http.forbidden_address",
            )
        return found

    def _resolve(self, target: Target, deadline: Deadline) -> Sequence[str]:
        lookup = self._threads.submit(self._resolver, target.host, target.port)
        try:
            return lookup.result(deadline.bound(self._timeout_s))
        except TimeoutError as error:
            lookup.cancel()
            raise UpstreamTimeout("The host name was not resolved in time.") from error
        except (OSError, UnicodeError) as error:
            raise UpstreamFailed("The host name does not resolve.", code="http.connect_failed") from error
