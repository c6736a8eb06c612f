"""Whether a ledger is whole: its file, its tables, its sums and its references.

It only reads. A ledger that fails a check still has what it has: restore a backup, or
ask before you drain with it again.
"""

from collections.abc import Callable, Iterator

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from drainer.ledger import engine, schema
from drainer.policy.recipient.state import State
from drainer.runtime import databases

_M, _R = schema.messages.c, schema.recipients.c
_SHOWN = 3
"""The most complaints of a database that are printed."""


class LedgerFinding(Struct, frozen=True, kw_only=True):
    """The result of one check."""

    check: str
    #: What is wrong; '' when nothing is.
    problem: str
    #: What was checked, or found, in words.
    found: str = ""


class _Damage(Exception):
    """A check failed; the text says what is wrong."""


def check_ledger(url: URL) -> Iterator[LedgerFinding]:
    """Yield the result of each check of an existing ledger.

    Raises LedgerError when it cannot be opened at all, or has another version.
    """
    with engine.open_reader(url) as connection:
        for name, check in _CHECKS.items():
            yield _result(name, check, connection)


def _result(
    name: str, check: Callable[[sa.Connection], str], connection: sa.Connection
) -> LedgerFinding:
    try:
        return LedgerFinding(check=name, problem="", found=check(connection))
    except _Damage as damage:
        return LedgerFinding(check=name, problem=str(damage))
    except SQLAlchemyError as error:
        return LedgerFinding(check=name, problem=databases.reason(error))


def _check_storage(connection: sa.Connection) -> str:
    """Let the database check what it stored; PostgreSQL checks each page it reads."""
    dialect = connection.dialect.name
    if dialect == "sqlite":
        rows = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
        _refuse([str(row) for row in rows if row != "ok"])
        return "SQLite finds no damage in the file"
    if dialect == "postgresql":
        return "left to PostgreSQL: pg_amcheck finds damage in indexes"
    names = ", ".join(f"`{name}`" for name in schema.metadata.tables)
    found = connection.exec_driver_sql(f"CHECK TABLE {names}").mappings()
    _refuse(
        [
            f"{row['Table']}: {row['Msg_text']}"
            for row in found
            if row["Msg_type"] in ("error", "warning")
        ]
    )
    return "MariaDB finds no damage in the tables"


def _check_tables(connection: sa.Connection) -> str:
    """Compare the columns with those that this version of drainer uses."""
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    lacking = [name for name in schema.metadata.tables if name not in present]
    for name, table in schema.metadata.tables.items():
        if name in present:
            columns = {column["name"] for column in inspector.get_columns(name)}
            wanted = {column.name for column in table.columns}
            lacking += [f"{name}.{each}" for each in sorted(wanted - columns)]
    _refuse([f"{name} is missing" for name in lacking])
    return f"{len(schema.metadata.tables)} tables of version {schema.VERSION}"


def _check_sums(connection: sa.Connection) -> str:
    """Count the recipients of each message: promise P1, message by message."""
    wrong = (
        sa.select(_M.id)
        .outerjoin(schema.recipients, _R.message == _M.seq)
        .group_by(_M.seq, _M.id, _M.recipients)
        .having(sa.func.count(_R.n) != _M.recipients)
    )
    _refuse(
        [
            f"message {each[:12]} lacks recipients, or has too many"
            for each in connection.execute(wrong).scalars()
        ]
    )
    odd = sa.select(_R.state).where(_R.state.not_in([s.value for s in State]))
    _refuse([f"{each!r} is not a state" for each in connection.scalars(odd.distinct())])
    messages, recipients = (
        connection.scalar(sa.select(sa.func.count()).select_from(table))
        for table in (schema.messages, schema.recipients)
    )
    return f"{recipients} recipients of {messages} messages, as the scans recorded them"


def _check_references(connection: sa.Connection) -> str:
    """Find rows about messages that are gone."""
    lost = []
    for table in schema.ABOUT_MESSAGES:
        column = table.c.message
        orphans = (
            sa.select(sa.func.count())
            .select_from(table.outerjoin(schema.messages, column == _M.seq))
            .where(column.is_not(None), _M.seq.is_(None))
        )
        if count := connection.scalar(orphans):
            lost.append(f"{count} rows of {table.name} are about no message")
    _refuse(lost)
    return "every row is about a message that the ledger has"


def _refuse(complaints: list[str]) -> None:
    if complaints:
        more = len(complaints) - _SHOWN
        words = "; ".join(complaints[:_SHOWN])
        raise _Damage(f"{words}; and {more} more" if more > 0 else words)


_CHECKS: dict[str, Callable[[sa.Connection], str]] = {
    "storage": _check_storage,
    "tables": _check_tables,
    "sums": _check_sums,
    "references": _check_references,
}
