"""How large a flow may be. Each bound keeps what a stranger sends from costing more than the service has."""

from __future__ import annotations

MAX_DATA_BYTES = 5 * 1024 * 1024
"""Of a flow's data as compact UTF-8 JSON; a MEDIUMTEXT column holds three times as much."""
MAX_DEPTH = 64
"""Levels of JSON. Only what descends along these levels may recurse, never what follows edges."""

MAX_NODES = 10_000
MAX_EDGES = 50_000
MAX_INPUTS = 200
"""Inputs, and likewise outputs, of one node."""
MAX_ID_LENGTH = 255
"""Characters of a node id: what `workflow_node_history.node_id` holds."""
MAX_NAME_LENGTH = 128
"""Characters of the name of an input or an output."""
MAX_STEPS = 64
"""Names and indices in one path (`a.b[1]` has three): no value is nested deeper."""

MAX_TEMPLATE_BYTES = 64 * 1024
MAX_RENDERED = 4 * 1024 * 1024
"""Characters of a rendered template. One name may stand in it thousands of times, with a value of megabytes."""

MAX_REPORTED = 1_000
"""Violations that one answer holds, and likewise warnings."""
MAX_EXPLAINED = 10_000
"""Objects of invalid parts whose reasons are looked for, about 50 µs each; the parts beyond are only named."""

MAX_SUBFLOWS = 200
"""Different published flows that one flow may reach; each may be megabytes to load."""

MAX_DURABLE_OPERATIONS = 2_500
"""Worst case above which a durable run is refused: the service ends an execution at 3,000 operations."""
ITERATION_OPERATIONS = 200
"""What an iteration spends itself at most, however many its items are; beyond, they become chained executions."""
MAX_LOOP_COUNT = 1_000
"""Largest `maxCount` of a loop."""
