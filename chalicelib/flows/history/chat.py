"""A conversation: whose rows are meant in a table of what flows remember."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table

from chalicelib.flows.history.octets import octets


@dataclass(frozen=True)
class Chat:
    """Of an app, with a flow, of a person, in a conversation.

    Parameters
    ----------
    app_id
        The app that runs the flow.
    uid, chat_id
        As the run names them, at most 255 characters; '' where it names none.
    """

    app_id: int
    flow_id: int
    uid: str
    chat_id: str

    def conditions(self, table: Table) -> list[ColumnElement[bool]]:
        """Return what holds for the rows of the conversation in a table, in the order of its index."""
        columns = table.c
        return [
            columns.app_id == self.app_id,
            columns.flow_id == str(self.flow_id),
            columns.uid == self.uid,
            columns.chat_id == self.chat_id,
            # MySQL's collations call 'ann' and 'ann ' equal; they are two people.
            octets(columns.uid) == len(self.uid.encode()),
            octets(columns.chat_id) == len(self.chat_id.encode()),
        ]
