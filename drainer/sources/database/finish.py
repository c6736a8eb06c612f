"""Finish rows: mark them, delete them, or run the operator's statement."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from drainer.errors import SourceError
from drainer.sources.database.mapping import BoundMapping, TableMapping, value_of


class RowFinisher:
    """Finishes rows within the transaction of its caller."""

    def __init__(self, mapping: TableMapping, acknowledge: str) -> None:
        """``acknowledge`` is 'mark', 'delete', 'statement' or 'keep'."""
        self._mapping = mapping
        self._acknowledge = acknowledge

    def finish(
        self,
        connection: sa.Connection,
        bound: BoundMapping,
        rows: Sequence[Any],
        value: str,
    ) -> None:
        """Remove these rows by their ids from those to send; ``value`` marks them."""
        mapping = self._mapping
        if self._acknowledge == "statement":
            connection.execute(
                sa.text(mapping.statement), [{"id": row} for row in rows]
            )
            return
        children = bound.children
        if children is not None:
            self._finish_children(connection, children, rows)
        if self._acknowledge == "mark":
            set_state(connection, bound, value, rows)
            return
        table = bound.source
        assert isinstance(table, sa.Table)  # noqa: S101 - check_use has checked it
        connection.execute(sa.delete(table).where(bound["id"].in_(list(rows))))

    def _finish_children(
        self, connection: sa.Connection, children: sa.Table, rows: Sequence[Any]
    ) -> None:
        mapping = self._mapping
        mine = children.c[mapping.recipients_message].in_(list(rows))
        if self._acknowledge == "delete":
            connection.execute(sa.delete(children).where(mine))
        elif mapping.recipients_finish and mapping.recipients_state:
            column = children.c[mapping.recipients_state]
            value = value_of(column, mapping.recipients_finish, "recipients_finish")
            # A recipient that was done before keeps its state.
            states = [value_of(column, text, "recipients_pending")
                      for text in mapping.recipients_pending]  # fmt: skip
            connection.execute(
                sa.update(children)
                .where(mine, column.in_(states))
                .values({column: value})
            )


def set_state(
    connection: sa.Connection, bound: BoundMapping, text: str, rows: Sequence[Any]
) -> None:
    """Set the state of rows to a value that the mapping gives as text."""
    table = bound.source
    if not isinstance(table, sa.Table):
        message = "drainer cannot set the state of a query's rows"
        raise SourceError(message, hint="map the table itself")
    value = value_of(bound["state"], text, "state")
    changed = sa.update(table).where(bound["id"].in_(list(rows)))
    connection.execute(changed.values({bound["state"].name: value}))
