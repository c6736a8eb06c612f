"""Databases by URL: which driver, how to connect, how to show them without secrets.

The ledger and the database source share this. Server databases are used at READ
COMMITTED, so that every statement sees what was committed before it began.
"""

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from drainer.errors import UsageError
from drainer.private_files import read_private
from drainer.redaction import redact, redact_url

DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}
"""URL scheme -> dialect and driver; another driver may be named in the URL."""

MISSING_DRIVER = "install drainer[postgresql] or drainer[mariadb], or use a file"
CONNECT_TIMEOUT = 10
"""Seconds."""

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
"""How our tables are made there: compared octet by octet, as elsewhere."""

_LONG = 2**30
"""Longer than any type of MariaDB but the longest, which it therefore takes."""
LONG_TEXT = sa.Text().with_variant(sa.Text(_LONG), "mysql", "mariadb")
LONG_BLOB = sa.LargeBinary().with_variant(sa.LargeBinary(_LONG), "mysql", "mariadb")


def create_tables(metadata: sa.MetaData, connection: sa.Connection) -> None:
    """Make the tables that are missing.

    What is MariaDB's is said here: in the tables' definitions it would load that
    dialect at every start, whatever the database is.
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


def shown(url: URL) -> str:
    """Return the whole URL as a person may see it: without its secrets."""
    return redact_url(url.render_as_string(hide_password=True))


def with_password(url: URL, password_file: str) -> URL:
    """Return the URL with the password that a file holds; UsageError if unreadable."""
    if not password_file:
        return url
    try:
        password = read_private(Path(password_file)).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read the password file {password_file}: {error}"
        raise UsageError(message) from None
    return url.set(password=password)


def server_engine(url: URL) -> sa.Engine:
    """Return an engine for PostgreSQL or MariaDB that notices lost connections.

    A password that is not in the URL comes from ~/.pgpass or PGPASSWORD (libpq
    reads them itself), or from MYSQL_PWD. Raises ImportError without the driver.
    """
    arguments: dict[str, object] = {"connect_timeout": CONNECT_TIMEOUT}
    if url.get_backend_name() != "postgresql" and url.password is None:
        arguments["password"] = os.environ.get("MYSQL_PWD", "")
    return sa.create_engine(
        url,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        connect_args=arguments,
    )


def reason(error: BaseException) -> str:
    """Return what the driver or the system said, on one line."""
    said = getattr(error, "orig", None) or error
    if isinstance(said, OSError) and not said.filename and said.strerror:
        said = said.strerror
    return redact(" ".join(str(said).split()))[:300]
