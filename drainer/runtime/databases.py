"""Databases by URL: which driver, how to connect, how to show them without secrets.

The ledger and the database source share this. Server databases are used at READ
COMMITTED, so that every statement sees what was committed before it began.
"""

import errno
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from drainer.errors import UsageError
from drainer.runtime.host_limits import has_descriptors, no_descriptor
from drainer.runtime.private_files import read_password
from drainer.runtime.redaction import redact, redact_url

if TYPE_CHECKING:
    import psycopg
    from psycopg.abc import PQGen

T = TypeVar("T")

DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}
"""URL scheme -> dialect and driver; the URL may name another driver."""

MISSING_DRIVER = "install drainer[postgresql] or drainer[mariadb], or use a file"
CONNECT_TIMEOUT = 10
"""Seconds."""
SQLITE_FILES = 4
"""Descriptors: SQLite says only that it cannot open a file when it has no more."""
NAMES = {"postgresql": "PostgreSQL", "mysql": "MariaDB", "mariadb": "MariaDB"}

_REFUSED_STATES = ("28", "3D", "3F", "42")
"""Classes of SQLSTATE: who may log in, which database, which rights and tables."""
_REFUSED_NUMBERS = frozenset({1044, 1045, 1049, 1130, 1142, 1143, 1227, 1251, 1698})
"""The same from MariaDB."""
_REFUSED_WORDS = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "is not permitted to log in",
    "permission denied for database",
)
"""The same when PostgreSQL refuses a connection: then libpq has only its words."""
_REFUSED_CODES = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # among others: a table is missing
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
    }
)
_REFUSED_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

MARIADB_TABLE: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
        ("row_format", "DYNAMIC"),
    )
}
"""How our tables are made there: compared byte by byte, as elsewhere."""

_LONG = 2**30
"""Longer than any type of MariaDB but the longest, which it therefore takes."""
LONG_TEXT = sa.Text().with_variant(sa.Text(_LONG), "mysql", "mariadb")
LONG_BLOB = sa.LargeBinary().with_variant(sa.LargeBinary(_LONG), "mysql", "mariadb")


def create_tables(metadata: sa.MetaData, connection: sa.Connection) -> None:
    """Make the tables that are missing.

    MariaDB's own settings are given here: in the tables' definitions SQLAlchemy would
    load that dialect at every start, whatever the database is.
    """
    if connection.dialect.name in ("mysql", "mariadb"):
        for table in metadata.tables.values():
            table.dialect_kwargs.update(MARIADB_TABLE)
    metadata.create_all(connection)


def parse(text: str) -> URL:
    """Return a URL with our driver; UsageError (without its secrets) if it is bad."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        scheme = text.partition(":")[0][:40]
        message = f"a database URL of the kind {scheme!r} cannot be read"
        hint = "e.g. postgresql://user@host/database, sqlite:////path/spool.db"
        raise UsageError(message, hint=hint) from None
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


def plain(url: URL) -> str:
    """Return the URL as it may be stored and shown: no password, no driver."""
    bare = URL.create(
        url.get_backend_name(),
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
    )
    return bare.render_as_string(hide_password=True)


def safe_url(url: URL) -> str:
    """Return the whole URL as it may be shown: without its secrets."""
    return redact_url(url.render_as_string(hide_password=True))


def with_password(url: URL, password_file: str) -> URL:
    """Return the URL with the password that a file holds; UsageError if unreadable."""
    if not password_file:
        return url
    try:
        password = read_password(Path(password_file)).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the password file {password_file}: {error}"
        raise UsageError(message) from None
    return url.set(password=password)


def server_engine(url: URL, *, answers_within: float | None = None) -> sa.Engine:
    """Return an engine for PostgreSQL or MariaDB that notices lost connections.

    A password that is not in the URL comes from ~/.pgpass or PGPASSWORD (libpq reads
    them itself), or from MYSQL_PWD. A server that does not answer a statement after
    ``answers_within`` seconds counts as lost; without it drainer waits without limit.
    Raises ImportError without the driver.
    """
    arguments: dict[str, object] = {"connect_timeout": CONNECT_TIMEOUT}
    is_postgresql = url.get_backend_name() == "postgresql"
    if is_postgresql:
        arguments["client_encoding"] = "utf8"  # without it SQL_ASCII has no texts
    else:
        if url.password is None:
            arguments["password"] = os.environ.get("MYSQL_PWD", "")
        if answers_within is not None:
            arguments |= {
                "read_timeout": answers_within,
                "write_timeout": answers_within,
            }
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args=arguments,
    )
    if is_postgresql and answers_within is not None:
        _limit_waits(engine, answers_within)
    return engine


def _limit_waits(engine: sa.Engine, seconds: float) -> None:
    """Give psycopg a limit for a server that hangs: libpq has none."""
    import psycopg  # noqa: PLC0415 - an optional dependency

    class Impatient(psycopg.Connection[Any]):
        """A connection that closes itself when no answer comes."""

        def wait(
            self, gen: "PQGen[T]", interval: float = 0.1, timeout: float | None = None
        ) -> T:
            try:
                return super().wait(gen, interval, timeout or seconds)
            except psycopg.OperationalError as error:
                if not self.closed and "wait timeout" in str(error):
                    self.pgconn.finish()
                    message = f"no answer within {seconds:.0f} s"
                    raise psycopg.OperationalError(message) from None
                raise

    @sa.event.listens_for(engine, "do_connect")
    def connect(
        _dialect: sa.Dialect,
        _record: object,
        given: Sequence[Any],
        named: Mapping[str, Any],
    ) -> "psycopg.Connection[Any]":
        return Impatient.connect(*given, **named)


def is_refused(error: BaseException) -> bool:
    """Return whether a database refuses what is configured: the operator must act.

    Any other failure may pass: the server is away, the disk is full, the file is
    locked.
    """
    if isinstance(error, DBAPIError | sqlite3.Error):
        return _refuses(getattr(error, "orig", error))
    if isinstance(error, OSError):
        return error.errno in _REFUSED_ERRORS
    return isinstance(error, SQLAlchemyError)  # it never came to the database


def is_damaged(error: BaseException) -> bool:
    """Return whether SQLite reads something else than it wrote."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _refuses(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN and not has_descriptors(SQLITE_FILES):
            return False
        return code in _REFUSED_CODES
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_REFUSED_STATES)
    number = cause.args[0] if cause and cause.args else None
    if isinstance(number, int):
        return number in _REFUSED_NUMBERS
    return any(words in str(cause) for words in _REFUSED_WORDS)


def remedy(url: URL) -> str:
    """Return what to do when a database was lost."""
    if not has_descriptors(SQLITE_FILES):
        return f"{no_descriptor().hint}; then run the same command again"
    name = NAMES.get(url.get_backend_name())
    if name is None:
        return "make room, or end what locks it; then run the same command again"
    return f"see that {name} runs and has room; then run the same command again"


def reason(error: BaseException) -> str:
    """Return what the driver or the system said, on one line."""
    said = getattr(error, "orig", None) or error
    if isinstance(said, OSError) and not said.filename and said.strerror:
        said = said.strerror
    return redact(" ".join(str(said).split()))[:300]
