"""A list in a database: a statement returns addresses in its first column."""

import sqlite3
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from drainer.errors import UsageError
from drainer.policy.census.address_table import AddressTable
from drainer.runtime import databases
from drainer.sources.recipients.list_spec import UNREADABLE, ListSpec
from drainer.sources.recipients.recipient_list import LoadedList

ANSWERS_WITHIN = 60.0
"""Seconds without an answer after which the server counts as lost."""
_TOGETHER = 1000


def read_database_list(spec: ListSpec, delimiters: str) -> LoadedList:
    """Return what the statement returns; raise UsageError if it cannot be run."""
    url = databases.with_password(databases.parse(spec.url), spec.password_file)
    name = databases.plain(url)
    if not spec.query:
        message = f"the list of recipients {name} has no query"
        hint = '{ url = "...", query = "SELECT address FROM users" } in [recipients]'
        raise UsageError(message, hint=f"{hint} lists")
    table, ignored = AddressTable(name, delimiters), 0
    try:
        engine = _engine(url)
        try:
            with engine.connect() as connection:
                for value in _rows(connection, spec.query):
                    ignored += not table.add(_text(value))
        finally:
            engine.dispose()
    except ImportError:
        message = f"the driver for {name} is not installed"
        raise UsageError(message, hint=databases.MISSING_DRIVER) from None
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        message = f"cannot read recipients from {name}: {databases.reason(error)}"
        raise UsageError(message, hint=UNREADABLE) from None
    return LoadedList(table, ignored)


def _engine(url: URL) -> sa.Engine:
    """Return an engine that changes nothing where the database can promise it."""
    if url.get_backend_name() == "sqlite":
        uri = f"file:{quote(url.database or '')}?mode=ro"
        return sa.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(uri, uri=True),
            hide_parameters=True,
        )
    engine = databases.server_engine(url, answers_within=ANSWERS_WITHIN)
    if url.get_backend_name() == "postgresql":
        return engine.execution_options(postgresql_readonly=True)
    return engine


def _rows(connection: sa.Connection, query: str) -> sa.ScalarResult[object]:
    """Return the first column; the text of the query goes to the server as it is."""
    options = {"no_parameters": True, "stream_results": True}
    result = connection.execution_options(**options).exec_driver_sql(query)
    return result.yield_per(_TOGETHER).scalars()


def _text(value: object) -> str:
    """Return a value as an address may be in it; MariaDB has texts as bytes too."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return str(value).strip()
