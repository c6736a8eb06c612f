"""A SQLAlchemy Core statement compiled once per dialect, executed with plain rows.

Core builds each row's parameters again at every execution, which costs more than the
database does. Ours are numbers and text that need no conversion, so the compiled text
and a tuple per row suffice. Measured on the group commits: a third of the time of
``Connection.execute``.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from drainer.ledger.records import Row

_Shape = tuple[str, Callable[[Row], Any] | None]


class PreparedStatement:
    """An INSERT or UPDATE with named parameters, for many rows at once."""

    def __init__(self, statement: sa.Insert | sa.Update) -> None:
        """Keep the statement; it is compiled when a dialect is known."""
        self._statement = statement
        self._shapes: dict[str, _Shape] = {}

    def __call__(self, connection: sa.Connection, rows: Sequence[Row]) -> int:
        """Execute with every row; return how many rows of the table it touched."""
        dialect = connection.dialect
        text, extract = self._shapes.get(dialect.name) or self._compile(dialect)
        parameters = list(rows) if extract is None else [extract(row) for row in rows]
        return connection.exec_driver_sql(text, parameters).rowcount

    def _compile(self, dialect: sa.Dialect) -> _Shape:
        compiled = self._statement.compile(dialect=dialect)
        names = getattr(compiled, "positiontup", None)
        shape = str(compiled), itemgetter(*names) if names else None
        self._shapes[dialect.name] = shape
        return shape


def inserting(table: sa.Table, *, without: str = "") -> sa.Insert:
    """Return an INSERT of every column but those that the database fills."""
    names = (
        column.name
        for column in table.columns
        if column.name != without and column.server_default is None
    )
    values: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    return sa.insert(table).values(values).inline()  # no RETURNING: many rows at once
