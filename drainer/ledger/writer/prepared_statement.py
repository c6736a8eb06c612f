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

from drainer.ledger.records import Row, Values

_Shape = tuple[str, Callable[[Any], Any] | None]


class PreparedStatement:
    """An INSERT or UPDATE with named parameters, for many rows at once."""

    def __init__(
        self, statement: sa.Insert | sa.Update, names: Sequence[str] = ()
    ) -> None:
        """Keep the statement; it is compiled when a dialect is known.

        With ``names``, a row is a tuple of the values of these parameters; without, it
        has them by name. A tuple travels to the writer in a third of the time.
        """
        self._statement = statement
        self._names = tuple(names)
        self._shapes: dict[str, _Shape] = {}

    def __call__(
        self, connection: sa.Connection, rows: Sequence[Row] | Sequence[Values]
    ) -> int:
        """Execute with every row; return how many rows of the table it touched."""
        dialect = connection.dialect
        text, extract = self._shapes.get(dialect.name) or self._compile(dialect)
        parameters = list(rows) if extract is None else list(map(extract, rows))
        return connection.exec_driver_sql(text, parameters).rowcount

    def _compile(self, dialect: sa.Dialect) -> _Shape:
        compiled = self._statement.compile(dialect=dialect)
        shape = str(compiled), self._extraction(getattr(compiled, "positiontup", None))
        self._shapes[dialect.name] = shape
        return shape

    def _extraction(self, wanted: list[str] | None) -> Callable[[Any], Any] | None:
        """Return what makes parameters of a row; None: it is as it must be.

        ``wanted``: the driver takes tuples, in this order; None: it takes dicts.
        """
        names = self._names
        if not names:
            return itemgetter(*wanted) if wanted else None
        if not wanted:
            return lambda row: dict(zip(names, row, strict=True))
        if tuple(wanted) == names:
            return None
        return itemgetter(*map(names.index, wanted))


def columns_to_insert(table: sa.Table, *, without: str = "") -> tuple[str, ...]:
    """Return the names of every column but those that the database fills."""
    return tuple(
        column.name
        for column in table.columns
        if column.name != without and column.server_default is None
    )


def build_insert(table: sa.Table, *, without: str = "") -> sa.Insert:
    """Return an INSERT of every column but those that the database fills."""
    names = columns_to_insert(table, without=without)
    values: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    return sa.insert(table).values(values).inline()  # no RETURNING: many rows at once
