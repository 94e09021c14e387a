"""What one drawing may cost. Chosen by measurement, see docs/decisions/0024-flow-diagrams.md."""

from __future__ import annotations

MAX_NODES = 10_000
"""Nodes of a drawing; nobody reads one of this size, but nobody needs to guess whether theirs is drawn either."""
MAX_LANES = 10_000
"""Places that long edges get between the boxes that they pass, in one drawing; the shortest edges get theirs first, and
what is left runs behind the boxes. A node with an edge to each of the 10,000 that follow it would need 50 million."""
ORDER_WORK = 400_000
"""Nodes, lanes and pieces of edges that are looked at to have fewer crossings, in one graph: small graphs are swept
`MAX_SWEEPS` times, very large ones less often."""
MAX_SWEEPS = 12
PLACE_WORK = 600_000
"""The same for moving boxes towards what they are connected with."""
MAX_PASSES = 8

MAX_SVG_BYTES = 5_500_000
"""Of an SVG as a JSON text in ASCII, which is the longest that an answer of a function can become of it: a function's
answer has at most 6 MiB, its headers included."""
DETAILED_NODES = 2_000
"""Above, the full texts that pointing at a box shows are left out: they are half of the bytes."""
