"""Directed graphs of numbered nodes: order, reach, cycles, ancestors.

`out[n]` are the nodes that edges of `n` lead to. Nothing here recurses (a chain may have 10,000 nodes), and
everything looks at each node and edge a fixed number of times, so no path is ever enumerated: 16 layers of two
nodes each have 32,768 of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

Graph = Sequence[Sequence[int]]


def reach(out: Graph, starts: Iterable[int], seen: set[int]) -> list[int]:
    """The nodes that can be reached from `starts`, these included, in the order they are met.

    Parameters
    ----------
    seen
        Nodes that are not entered; those that are found are added.
    """
    found: list[int] = []
    for start in starts:
        if start not in seen:
            seen.add(start)
            found.append(start)
    for node in found:  # grows while it is walked
        for target in out[node]:
            if target not in seen:
                seen.add(target)
                found.append(target)
    return found


def topological(out: Graph) -> list[int]:
    """All nodes so that each follows those with an edge to it; ties go by number. Nodes on and behind cycles are
    left out."""
    waiting = [0] * len(out)
    for targets in out:
        for target in targets:
            waiting[target] += 1
    ready = deque(node for node, count in enumerate(waiting) if count == 0)
    order = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for target in out[node]:
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    return order


def components(out: Graph) -> list[list[int]]:
    """The strongly connected components, each after all that it leads to (Tarjan 1972)."""
    index: list[int] = [-1] * len(out)
    low: list[int] = [0] * len(out)
    open_nodes: list[int] = []
    is_open = bytearray(len(out))
    found: list[list[int]] = []
    count = 0
    for root in range(len(out)):
        if index[root] >= 0:
            continue
        pending = [(root, iter(out[root]))]
        index[root] = low[root] = count
        count += 1
        open_nodes.append(root)
        is_open[root] = 1
        while pending:
            node, targets = pending[-1]
            for target in targets:
                if index[target] < 0:
                    index[target] = low[target] = count
                    count += 1
                    open_nodes.append(target)
                    is_open[target] = 1
                    pending.append((target, iter(out[target])))
                    break
                if is_open[target]:
                    low[node] = min(low[node], index[target])
            else:
                pending.pop()
                if pending:
                    parent = pending[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    found.append(_closed(node, open_nodes, is_open))
    return found


def _closed(node: int, open_nodes: list[int], is_open: bytearray) -> list[int]:
    members = []
    while True:
        member = open_nodes.pop()
        is_open[member] = 0
        members.append(member)
        if member == node:
            return members


def is_cyclic(out: Graph, component: Sequence[int]) -> bool:
    """Whether a component holds a cycle: more than one node, or an edge of its node to itself."""
    return len(component) > 1 or component[0] in out[component[0]]


def cycle(out: Graph, component: Sequence[int]) -> list[int]:
    """A shortest cycle through the smallest node of a cyclic component; it ends where it begins."""
    inside, start = set(component), min(component)
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for target in out[node]:
            if target == start:
                way = [start, node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target in inside and target not in came_from:
                came_from[target] = node
                queue.append(target)
    raise ValueError("the component has no cycle")


def ancestors(out: Graph, parts: Sequence[Sequence[int]], wanted: Iterable[int]) -> Ancestors:
    """Which of the `wanted` nodes lead to which nodes.

    Parameters
    ----------
    parts
        The components of the graph, as `components` gives them.
    wanted
        The nodes that will be asked about; each costs one bit a component.
    """
    bit = {node: position for position, node in enumerate(dict.fromkeys(wanted))}
    part_of = [0] * len(out)
    for number, members in enumerate(parts):
        for node in members:
            part_of[node] = number
    # Parts come after what they lead to, so from the last to the first everything that leads to one is done before.
    before = [0] * len(parts)
    for number in range(len(parts) - 1, -1, -1):
        members = parts[number]
        own = 0
        for node in members:
            if node in bit:
                own |= 1 << bit[node]
        if is_cyclic(out, members):
            before[number] |= own
        passed = before[number] | own
        for node in members:
            for target in out[node]:
                if part_of[target] != number:
                    before[part_of[target]] |= passed
    return Ancestors(bit, part_of, before)


class Ancestors:
    """What `ancestors` found."""

    def __init__(self, bit: Mapping[int, int], part_of: Sequence[int], before: Sequence[int]) -> None:
        self._bit, self._part_of, self._before = bit, part_of, before

    def leads(self, source: int, target: int) -> bool:
        """Whether a path of at least one edge leads from `source`, one of those wanted, to `target`."""
        return bool(self._before[self._part_of[target]] >> self._bit[source] & 1)
