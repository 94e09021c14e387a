"""Layers of a directed graph: which edges are turned round so that it has no cycle, and how far from the start each
node stands. Everything looks at each node and edge a fixed number of times, and nothing recurses.

A graph is a number of nodes and a list of pairs; no pair joins a node with itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

Pair = tuple[int, int]


def turned(count: int, pairs: Sequence[Pair]) -> list[bool]:
    """Say of each pair whether it must be turned round: those that lead back to a node that led to theirs.

    Nodes that nothing leads to are walked from first, so an edge back to the start is the one that is turned.
    """
    out: list[list[int]] = [[] for _ in range(count)]
    entered = bytearray(count)
    for number, (source, target) in enumerate(pairs):
        out[source].append(number)
        entered[target] = 1
    found = [False] * len(pairs)
    # 0 not met, 1 on the way from the root to here, 2 done
    state = bytearray(count)
    for root in sorted(range(count), key=lambda node: entered[node]):
        if state[root]:
            continue
        state[root] = 1
        way = [(root, iter(out[root]))]
        while way:
            node, leaving = way[-1]
            for number in leaving:
                target = pairs[number][1]
                if state[target] == 1:
                    found[number] = True
                elif state[target] == 0:
                    state[target] = 1
                    way.append((target, iter(out[target])))
                    break
            else:
                state[node] = 2
                way.pop()
    return found


def layers(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return the layer of each node of a graph without cycles: 0 or more, and more than those that lead to it.

    The longest path decides, as a network simplex would end too for most flows; a node that then has room and
    more edges out than in moves towards what it leads to, so a chain that joins late does not begin early.
    """
    out: list[list[int]] = [[] for _ in range(count)]
    entering = [0] * count
    for source, target in pairs:
        out[source].append(target)
        entering[target] += 1
    waiting = entering[:]
    ready = deque(node for node in range(count) if not entering[node])
    layer = [0] * count
    order = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for target in out[node]:
            layer[target] = max(layer[target], layer[node] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for node in reversed(order):
        if len(out[node]) > entering[node]:
            layer[node] = max(layer[node], min(layer[target] for target in out[node]) - 1)
    # A component that hangs on nothing may have moved as a whole, away from the first layer.
    least = min(layer, default=0)
    return [one - least for one in layer]
