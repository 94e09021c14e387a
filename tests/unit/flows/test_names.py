from __future__ import annotations

import pytest

from chalicelib.flows.names import flow_id_of


@pytest.mark.parametrize(("text", "flow_id"), [("1", 1), ("9223372036854775807", 2**63 - 1)])
def test_what_a_flow_id_looks_like(text: str, flow_id: int) -> None:
    assert flow_id_of(text) == flow_id


@pytest.mark.parametrize(
    "text", ["", "0", "01", "-1", "1.0", "x", "1\n", "٣", "9223372036854775808", "1" * 5000]
)
def test_what_no_flow_can_have(text: str) -> None:
    assert flow_id_of(text) is None
