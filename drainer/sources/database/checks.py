"""Whether a mapping can be used as was asked for, seen before anything is sent.

That its columns are there and fit was seen when it was bound (database_mapping).
"""

import sqlalchemy as sa

from drainer.errors import UsageError
from drainer.runtime import databases
from drainer.sources.database.mapping import TRY_IT, BoundMapping, TableMapping, refuse

_SECRET = 1345
"""MariaDB's number for what it does not tell of a view."""


def check_use(mapping: TableMapping, acknowledge: str, leases: str) -> None:
    """Refuse what cannot be acknowledged or leased as was asked for."""
    if acknowledge == "mark" and not ("state" in mapping.columns and mapping.finish):
        refuse("ack = mark needs state, pending and finish", 'or use ack = "keep"')
    if acknowledge == "mark" and mapping.finish in (*mapping.pending, mapping.claim):
        refuse(f"finish = {mapping.finish!r} is also a value of rows to be sent")
    if acknowledge == "delete" and not mapping.table:
        refuse("ack = delete needs table: a query cannot be deleted from")
    if acknowledge == "mark" and not mapping.table:
        refuse("ack = mark needs table", 'with a query use ack = "statement"')
    if (acknowledge == "statement") != bool(mapping.statement):
        refuse("ack = statement and the key statement go together")
    if acknowledge == "statement" and ":id" not in mapping.statement:
        refuse("the statement does not contain :id, the row that it is about")
    if mapping.claim and leases != "table":
        refuse("claim needs leases: a dead drainer's rows would stay claimed",
                'allow tables of ours beside it with leases = "table"')  # fmt: skip


def check_ids(
    connection: sa.Connection, bound: BoundMapping, mapping: TableMapping
) -> None:
    """Raise UsageError when an id means several of the rows to be sent, or none.

    Whoever joins a table of recipients gets a row for each: all but one would be
    passed over, and all be marked when that one is sent.
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
    what = f"{str(found[0])[:60]!r} stands in {found[1]} rows"
    what = "it is NULL in a row" if found[0] is None else what
    message = f"id = {name!r}: {what}, an id is that of one row"
    raise UsageError(message, hint="map a unique column, and recipients as a table")


def check_statement(connection: sa.Connection, mapping: TableMapping) -> None:
    """Raise UsageError when the operator's statement cannot be run.

    The database is asked how it would do it, which changes nothing. What calls a
    procedure it cannot tell, nor what MariaDB keeps secret of a view.
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
    """Whether the database sees to it that a value of the column is there once."""
    area, _, bare = mapping.table.rpartition(".")
    inspector = sa.inspect(connection)
    key = inspector.get_pk_constraint(bare, area or None)["constrained_columns"]
    return [name] == list(key)
