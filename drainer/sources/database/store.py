"""The connection of a database source: opened late, reopened when it breaks.

A store is pickled to the scanning process, without its connections. It runs functions
of a connection, each in one transaction, and repeats one when the server became
unavailable. So such a function changes only the database, and may run twice.
"""

import os
import sqlite3
import stat
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from drainer.errors import SourceError, SourceLost
from drainer.runtime import databases
from drainer.runtime.owned_sqlite import sqlite_arguments
from drainer.runtime.private_files import open_present
from drainer.sources.common.files import source_error
from drainer.sources.database.mapping import BoundMapping, TableMapping, bind

T = TypeVar("T")

RECONNECT_FOR = 60.0
"""Seconds that a server may be unavailable."""
BUSY_TIMEOUT = 30.0
"""Seconds to wait for another writer of an SQLite file."""
_DEADLOCK = frozenset({"40001", "40P01", 1213, 1205, 1020})
_AWAY = frozenset({1040, 1053, 1077, 1184, 1203, 1927, *range(1152, 1162)})
"""Errors of a MariaDB server that ends, is full, or has lost the connection."""
_OUTAGES = (
    sa.exc.OperationalError, sa.exc.InterfaceError, sqlite3.OperationalError, OSError,
)  # fmt: skip
"""What may pass, unless the database refuses what is configured."""


class DatabaseStore:
    """A database of mail, opened when it is first needed."""

    def __init__(
        self, url: URL, mapping: TableMapping, *, creating: bool = False
    ) -> None:
        """Open nothing yet; ``creating``: a file need not be there."""
        self.url = url
        self.mapping = mapping
        self._creating = creating
        self._engine: sa.Engine | None = None
        self._bound: BoundMapping | None = None
        self._opening = threading.Lock()
        if self.is_file:
            path = Path(str(url.database)).absolute()
            self.url = url.set(database=str(path))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without connections and locks."""
        return {"url": self.url, "mapping": self.mapping}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without connections."""
        self.__init__(state["url"], state["mapping"])  # type: ignore[misc]

    @property
    def is_file(self) -> bool:
        """Return whether it is an SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def shown(self) -> str:
        """The URL for people: no password."""
        return databases.plain(self.url)

    @property
    def engine(self) -> sa.Engine:
        """The engine; SourceError for no such file, or when the driver is absent."""
        with self._opening:
            if self._engine is None:
                self._engine = self._make_engine()
                weakref.finalize(self, self._engine.dispose)
            return self._engine

    def _make_engine(self) -> sa.Engine:
        if self.is_file:
            path = str(self.url.database)
            if not self._creating:
                _check_file(Path(path))
            return _sqlite(path)
        try:
            return databases.server_engine(self.url)
        except ImportError as error:
            message = f"the driver for {self.shown} is not installed: {error}"
            raise SourceError(message, hint=databases.MISSING_DRIVER) from None

    def bound(self, connection: sa.Connection) -> BoundMapping:
        """Return the mapping's columns, compared with the database only once."""
        if self._bound is None:
            self._bound = bind(connection, self.mapping)
        return self._bound

    def read(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function that changes nothing."""
        return self._run(function, writes=False, patience=RECONNECT_FOR)

    def write(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function in a transaction; its writes are durable on return."""
        return self._run(function, writes=True, patience=RECONNECT_FOR)

    def look(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a function that changes nothing, at the start: a failure is final."""
        return self._run(function, writes=False, patience=0)

    def _run(
        self, function: Callable[[sa.Connection], T], *, writes: bool, patience: float
    ) -> T:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_random_exponential(0.05, max=2),
            stop=tenacity.stop_after_delay(patience),
            reraise=True,
        )
        try:
            result: T = retrying(self._once, function, writes)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise self._failure(error) from None
        return result

    def _failure(self, error: Exception) -> SourceError:
        """Return what an error means: an outage, or a mistake."""
        message = f"{self.shown}: {databases.reason(error)}"
        if isinstance(error, _OUTAGES) and not databases.is_refused(error):
            return SourceLost(message, hint=databases.remedy(self.url))
        if databases.is_damaged(error):
            hint = "look for disk errors in the kernel's log; if there are none, save"
            return SourceLost(
                message, hint=f"{hint} the file by `sqlite3 FILE .recover`"
            )
        hint = "check address, user and rights; passwords: ~/.pgpass, MYSQL_PWD, or"
        return SourceError(message, hint=f"{hint} password_file")

    def _once(self, function: Callable[[sa.Connection], T], writes: bool) -> T:  # noqa: FBT001
        engine = self.engine.execution_options(writes=writes)
        with engine.begin() as connection:
            return function(connection)

    def close(self) -> None:
        """Close the connections; a later use opens new ones."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None


def _passes(error: BaseException) -> bool:
    """Return whether to try again: the server was unavailable, or aborted us."""
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None)
    arguments = getattr(error.orig, "args", ())
    number = arguments[0] if arguments else None
    if code in _DEADLOCK or (isinstance(number, int) and number in _DEADLOCK):
        return True
    away = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    refused = code in ("28P01", "28000", "3D000") or (
        isinstance(number, int) and number in range(1000, 2000) and number not in _AWAY
    )
    return error.connection_invalidated or (
        away and not refused and not isinstance(error.orig, sqlite3.Error)
    )


def _check_file(path: Path) -> None:
    """Refuse a file that is not an SQLite database, before anything opens it."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            message = f"{path} is not a regular file"
            raise SourceError(message, hint="name the database file itself")
        with os.fdopen(open_present(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            head = file.read(16)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        hint = "run drainer as the owner of the file, or check its path"
        raise source_error(message, error, hint) from None
    if head != b"SQLite format 3\0":
        message = f"{path} is not an SQLite database"
        raise SourceError(message, hint="`drainer spool create URL` creates a spool")


def _sqlite(path: str) -> sa.Engine:
    """Return an engine that opens read-only except for writing. Raises OSError."""
    arguments = sqlite_arguments(Path(path))

    def connect(mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(path)}?mode={mode}"
        connection: sqlite3.Connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None,
            check_same_thread=False, **arguments,
        )  # fmt: skip
        # Read text of any bytes: one such row must not hide the others.
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        return connection

    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: connect("rw" if os.access(path, os.W_OK) else "ro"),
        poolclass=sa.NullPool,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
