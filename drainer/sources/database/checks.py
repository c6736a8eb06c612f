"""Check before sending whether a mapping can be used as the operator asked.

Binding has checked that its columns exist and fit (database_mapping).
"""

import sqlalchemy as sa

from drainer.errors import UsageError
from drainer.runtime import databases
from drainer.sources.database.mapping import TRY_IT, BoundMapping, TableMapping, refuse

_SECRET = 1345
"""MariaDB's error number for what it does not show about a view."""


def check_use(mapping: TableMapping, acknowledge: str, leases: str) -> None:
    """Refuse what cannot be acknowledged or leased as the operator asked."""
    if acknowledge == "mark" and not ("state" in mapping.columns and mapping.finish):
        refuse("ack = mark needs state, pending and finish", 'or use ack = "keep"')
    if acknowledge == "mark" and mapping.finish in (*mapping.pending, mapping.claim):
        refuse(f"finish = {mapping.finish!r} is also a value of rows to send")
    if acknowledge == "delete" and not mapping.table:
        refuse("ack = delete needs table: a query has no rows to delete")
    if acknowledge == "mark" and not mapping.table:
        refuse("ack = mark needs table", 'with a query use ack = "statement"')
    if (acknowledge == "statement") != bool(mapping.statement):
        refuse("set both ack = statement and the key statement, or neither")
    if acknowledge == "statement" and ":id" not in mapping.statement:
        refuse("the statement does not contain :id, the id of the finished row")
    if mapping.claim and leases != "table":
        refuse("claim needs leases: a dead drainer's rows would stay claimed",
                'allow tables of ours beside it with leases = "table"')  # fmt: skip


def check_ids(
    connection: sa.Connection, bound: BoundMapping, mapping: TableMapping
) -> None:
    """Raise UsageError when an id means several of the rows to send, or none.

    A join with a table of recipients gives a row for each. drainer would send only one
    of them, and then mark them all.
    """
    name = mapping.columns["id"]
    if isinstance(bound.source, sa.Table) and _is_unique(connection, mapping, name):
        return
    id_, rows = bound["id"], sa.func.count()
    query = sa.select(id_, rows).select_from(bound.source).where(*bound.is_open)
    several = sa.or_(id_.is_(None), rows > 1)
    found = connection.execute(query.group_by(id_).having(several).limit(1)).first()
    if found is None:
        return
    what = f"{str(found[0])[:60]!r} is in {found[1]} rows"
    what = "it is NULL in a row" if found[0] is None else what
    message = f"id = {name!r}: {what}, but an id must name one row"
    raise UsageError(message, hint="map a unique column, and recipients as a table")


def check_statement(connection: sa.Connection, mapping: TableMapping) -> None:
    """Raise UsageError when the operator's statement cannot be run.

    The database explains how it would run it, which changes nothing. It cannot explain
    a procedure call, nor what MariaDB hides about a view.
    """
    verb = mapping.statement.partition(" ")[0].upper()
    if verb not in ("UPDATE", "DELETE", "INSERT"):
        return
    try:
        connection.execute(sa.text(f"EXPLAIN {mapping.statement}"), {"id": None})
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "args", ())[:1] != (_SECRET,):
            refuse(f"the statement fails: {databases.reason(error)}", TRY_IT)


def _is_unique(connection: sa.Connection, mapping: TableMapping, name: str) -> bool:
    """Return whether the database keeps the values of the column unique."""
    area, _, bare = mapping.table.rpartition(".")
    inspector = sa.inspect(connection)
    key = inspector.get_pk_constraint(bare, area or None)["constrained_columns"]
    return [name] == list(key)
