"""Where everything of a flow stands: a layered layout from left to right, bodies as boxes with a layout within.

The layout knows no flow, only names of boxes, links between them, and which boxes have a body. Bodies are laid out from
inside to outside, since a box must be as large as its body, and then put in place from outside to inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chalicelib.flows.diagram.arrangement import Arrangement, Link, arrange
from chalicelib.flows.diagram.limits import MAX_LANES

Point = tuple[int, int]

BOX_WIDTH, BOX_HEIGHT = 208, 52
HEADER, PADDING = 56, 24
"""Of a box with a body: room above the body, and at its other sides."""
FLOW = ""
"""Stands for the owner of what belongs to no body."""


@dataclass(frozen=True)
class Box:
    """A box, its top left corner and its size in pixels; `has_body` says that other boxes stand within."""

    x: int
    y: int
    width: int
    height: int
    has_body: bool = False


@dataclass(frozen=True)
class Route:
    """The way of a link.

    Parameters
    ----------
    points
        From the right side of a box over pairs of places, between which it runs straight through a layer, to the left
        side of another. With `turned` the arrow stands at the first point: the link leads back.
    """

    link: Link
    points: tuple[Point, ...]
    turned: bool


@dataclass
class Layout:
    """A layout; boxes and routes of a body come after those of the graph around it.

    Parameters
    ----------
    work
        What it cost: how many boxes, lanes and pieces of links were looked at.
    """

    boxes: dict[str, Box] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    width: int = 0
    height: int = 0
    work: int = 0


def lay_out(bodies: Mapping[str, Sequence[str]], links: Mapping[str, Sequence[Link]]) -> Layout:
    """Lay out a flow.

    Parameters
    ----------
    bodies
        By the box that has it, or `FLOW`, the names of a body's boxes. Each box stands in one body, and none within
        itself.
    links
        By the same, the links between boxes of that body.
    """
    owners = _from_outside(bodies)
    found: dict[str, Arrangement] = {}
    sizes: dict[str, tuple[int, int]] = {}
    layout, lanes = Layout(), MAX_LANES
    for owner in reversed(owners):
        names = bodies[owner]
        inner = arrange(
            names, [sizes.get(name, (BOX_WIDTH, BOX_HEIGHT)) for name in names], links.get(owner, ()), lanes
        )
        found[owner] = inner
        lanes -= inner.lanes
        layout.work += inner.work
        sizes[owner] = (max(BOX_WIDTH, inner.width + 2 * PADDING), inner.height + HEADER + PADDING)
    layout.width, layout.height = found[FLOW].width, found[FLOW].height
    for owner in owners:
        _put(owner, found[owner], bodies, layout)
    return layout


def _from_outside(bodies: Mapping[str, Sequence[str]]) -> list[str]:
    owners = [FLOW]
    for owner in owners:  # grows while it is walked
        owners.extend(name for name in bodies[owner] if bodies.get(name))
    return owners


def _put(owner: str, inner: Arrangement, bodies: Mapping[str, Sequence[str]], layout: Layout) -> None:
    """Move what was laid out by itself to where its owner stands."""
    left = top = 0
    if owner != FLOW:
        around = layout.boxes[owner]
        # A box may be higher than its body needs, for the sake of its ports.
        left = around.x + (around.width - inner.width) // 2
        top = around.y + HEADER + (around.height - HEADER - PADDING - inner.height) // 2
    for name, place in zip(bodies[owner], inner.places, strict=True):
        x, y, width, height = place
        layout.boxes[name] = Box(left + x, top + y, width, height, has_body=bool(bodies.get(name)))
    for way in inner.ways:
        points = tuple((left + x, top + y) for x, y in way.points)
        layout.routes.append(Route(way.link, points, way.turned))
