"""Requests for pictures of flows that no honest client sends."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.hostile import Hostile

PICTURE = "/api/v1/flows/1/diagram.svg"


def flow_requests() -> Iterator[Hostile]:
    """Return the requests, each under a name of its own."""
    lost = {
        "none": PICTURE,
        "above 64 bits": "/api/v1/flows/9999999999999999999/diagram.svg",
        "traversal": "/api/v1/flows/..%2f1/diagram.svg",
        "another ending": "/api/v1/flows/1/diagram.svgz",
        "nul after the ending": f"{PICTURE}%00",
        "a path below": f"{PICTURE}/x",
        "a script for an id": "/api/v1/flows/%3Cscript%3E/diagram.svg",
    }
    for name, target in lost.items():
        yield Hostile(f"picture: {name}", frozenset({404}), target=target)
    refused = {
        "a version that is none": "version=latest",
        "an empty version": "version=",
        "two versions": "version=v1&version=v2",
        "a version of other digits": "version=%D9%A1",
        "a version and a line feed": "version=v1%0a",
        "a style": "style=%3C/style%3E",
    }
    for name, query in refused.items():
        yield Hostile(f"picture: {name}", frozenset({400}), target=f"{PICTURE}?{query}")
    yield Hostile("picture: written to", frozenset({405}), "PUT", target=PICTURE)
