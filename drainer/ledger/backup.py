"""A consistent copy of a ledger, also while drains write to it.

SQLite copies itself page by page (its backup API). Servers have programs of their own.
"""

import os
import shlex
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy.engine import URL

from drainer.errors import LedgerError, UsageError
from drainer.ledger import engine
from drainer.runtime import databases
from drainer.runtime.owned_sqlite import sqlite_arguments
from drainer.runtime.private_files import open_private, remove_private

_PAGES = 1000
"""Pages copied at a time; drains write in between, and SQLite copies those again."""
_TIMEOUT = 30.0
"""Seconds to wait for a drain that has the ledger locked."""


def dump_command(url: URL) -> list[str]:
    """Return the command that copies a ledger on a server; [] for a file.

    It has no password: the program takes that from ~/.pgpass or ~/.my.cnf.
    """
    if engine.is_file(url):
        return []
    is_postgresql = url.get_backend_name() == "postgresql"
    where = [
        f"--{name}={value}"
        for name, value in (
            ("host", url.host),
            ("port", url.port),
            ("username" if is_postgresql else "user", url.username),
        )
        if value
    ]
    if is_postgresql:
        return ["pg_dump", "--format=custom", *where, str(url.database)]
    return ["mariadb-dump", "--single-transaction", *where, str(url.database)]


def back_up(url: URL, target: Path) -> int:
    """Copy a ledger in a file to a new private file; return the size in bytes.

    The copy is complete and durable on return; without success there is none. Raises
    UsageError for a ledger on a server and for a target that exists or cannot be
    written; LedgerError, LedgerLost as ``engine.connect`` does.
    """
    if command := dump_command(url):
        message = f"{databases.safe_url(url)} is a ledger on a database server"
        hint = f"run: {shlex.join(command)} > {shlex.quote(str(target))}"
        raise UsageError(message, hint=hint)
    with engine.open_reader(url) as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - for mypy
        return _copy(driver, target)


def _copy(source: sqlite3.Connection, target: Path) -> int:
    try:
        descriptor = open_private(target, os.O_RDWR | os.O_EXCL | os.O_NOFOLLOW)
    except FileExistsError:
        message = f"{target} exists"
        raise UsageError(message, hint="name a new file for the backup") from None
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise UsageError(message, hint="name a file in another folder") from None
    try:
        arguments = sqlite_arguments(target)
        with closing(sqlite3.connect(target, timeout=_TIMEOUT, **arguments)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")  # a failed copy is removed
            copy.execute("SELECT count(*) FROM sqlite_master")  # opens the file
            source.backup(copy, pages=_PAGES)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    except (sqlite3.Error, OSError) as error:
        _remove(target)
        message = f"cannot copy the ledger to {target}: {databases.reason(error)}"
        raise LedgerError(message, hint="make room there, or name another") from error
    except BaseException:
        _remove(target)
        raise
    finally:
        os.close(descriptor)


def _remove(target: Path) -> None:
    with suppress(OSError):
        remove_private(target)
