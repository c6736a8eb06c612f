"""Whether the ledger can be written, checked without leaving anything behind."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from drainer.errors import LedgerError
from drainer.ledger import engine, schema
from drainer.runtime import databases
from drainer.runtime.private_files import (
    make_private_folder,
    remove_private,
    remove_private_folder,
)

_BUSY_MS = 1000
"""A drain holds the ledger for milliseconds."""


def try_writing(url: URL) -> str:
    """Write a row in a transaction and roll it back; return '' when that works.

    Parts of an SQLite ledger that do not exist yet are made beside its place and
    removed. Returns words when the answer is unknown: a drain holds the ledger, or a
    server's database has no tables yet. Raises LedgerError when it cannot be written.
    """
    if engine.is_file(url):
        path = Path(str(url.database))
        if path.exists() and path.stat().st_size:
            return _write(engine.connect(url, create=False))
        with _beside(path) as made:
            return _write(engine.connect(url.set(database=str(made)), create=True))
    return _write_on_server(url)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a place for a ledger in the folder of another, or where that will be."""
    folder = next(each for each in path.parents if each.is_dir())
    made = folder / f".drainer-doctor-{uuid.uuid4().hex}"
    try:
        make_private_folder(made)
        try:
            yield made / path.name
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                remove_private(made / f"{path.name}{suffix}")
            remove_private_folder(made)
    except OSError as error:
        message = f"{folder} cannot be written: {databases.reason(error)}"
        raise LedgerError(message) from error


def _write_on_server(url: URL) -> str:
    try:
        return _write(engine.connect(url, create=False))
    except LedgerError as error:
        if "empty database" in str(error):
            return "the database is empty: the first drain makes its tables"
        raise


def _write(database: sa.Engine) -> str:
    shown = databases.safe_url(database.url)
    row = {"name": "doctor", "value": ""}
    try:
        with database.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")
            connection.execute(sa.insert(schema.meta), [row])
            connection.rollback()
    except SQLAlchemyError as error:
        if isinstance(error, OperationalError) and "locked" in str(error):
            return "it is locked: a drain is writing, or hangs"
        message = f"{shown} cannot be written: {databases.reason(error)}"
        raise LedgerError(message) from error
    finally:
        database.dispose()
    return ""
