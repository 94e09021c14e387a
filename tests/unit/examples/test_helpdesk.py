"""The helpdesk that the documentation calls: its document is good, and nothing in it is left out."""

from __future__ import annotations

import httpx
import pytest

from chalicelib.tools.drafts import draft, read_checked
from chalicelib.tools.loading import plan_of
from examples.tools.helpdesk import Helpdesk, document

URL = "http://localhost:1234"
OPERATIONS = ("listTickets", "openTicket", "getTicket", "attachFile", "getFile", "deskStatus", "whoAmI")


def test_the_document_names_the_server_that_sends_it() -> None:
    helpdesk = Helpdesk()
    try:
        text = httpx.get(f"{helpdesk.url}/openapi.yaml").text
    finally:
        helpdesk.close()
    assert text == document(helpdesk.url)
    assert draft(text).origins == [helpdesk.url]


def test_every_operation_is_described() -> None:
    assert tuple(one["operationId"] for one in draft(document(URL)).operations) == OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_of_it_is_enforced(operation: str) -> None:
    assert plan_of(read_checked(document(URL)), operation).operation.warnings == ()


def test_whoever_has_no_key_learns_nothing() -> None:
    helpdesk = Helpdesk()
    try:
        answers = [httpx.get(f"{helpdesk.url}{path}") for path in ("/me", "/tickets/1", "/nowhere")]
        wrong = httpx.get(f"{helpdesk.url}/me", headers={"X-Desk-Key": "another"})
    finally:
        helpdesk.close()
    assert [answer.status_code for answer in (*answers, wrong)] == [401] * 4
