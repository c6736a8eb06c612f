"""Open the ledger's database: where it lies, its settings, its version.

SQLite runs in WAL mode with synchronous=FULL, so that a commit that returned
survives a power loss. The file is private (0600) from its first byte.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Cursor
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from drainer import databases
from drainer.errors import LedgerError, LedgerUnwritable, UsageError
from drainer.ledger import schema
from drainer.owned_sqlite import sqlite_arguments
from drainer.private_files import make_private_folder, open_private

LedgerURL = URL
BUSY_TIMEOUT_MS = 30_000
_LOCK_NAME, _LOCK_NUMBER = "drainer-ledger", 7_239_147_016
"""What drainers of one server database queue up at: a name, and its number."""


def default_path(state_home: str, *, root: bool) -> Path:
    """Return where the ledger lies when nobody says: never the current folder."""
    if root:
        return Path("/var/lib/drainer/ledger.db")
    home = Path(state_home) if state_home else Path.home() / ".local" / "state"
    return home / "drainer" / "ledger.db"


def parse_url(text: str) -> URL:
    """Return the database URL; a plain path means an SQLite file."""
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        return databases.parse(text)
    except UsageError as error:
        message = f"the ledger's URL cannot be read: {error}"
        raise LedgerError(
            message, hint="e.g. sqlite:////var/lib/drainer/l.db"
        ) from None


def is_file(url: URL) -> bool:
    """Whether the ledger is an SQLite file."""
    return url.get_backend_name() == "sqlite" and bool(url.database)


def connect(url: URL, *, create: bool) -> sa.Engine:
    """Return an engine for a ledger of our version.

    Raises LedgerError when it is absent (and ``create`` is false), cannot be
    opened, is no ledger, or is one of another version.
    """
    shown = databases.shown(url)
    try:
        if is_file(url):
            path = Path(str(url.database))
            arguments = _prepare_file(path, create=create)
            _look_first(url, shown, arguments)
            engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments)
            _configure_sqlite(engine)
        else:
            engine = databases.server_engine(url)
            _configure_server(engine)
        try:
            _check_version(engine, shown, create=create)
        except BaseException:
            engine.dispose()  # nobody else will
            raise
    except ImportError as error:
        message = f"the driver of the ledger {shown} is not installed: {error}"
        raise LedgerError(message, hint=databases.MISSING_DRIVER) from error
    except (SQLAlchemyError, OSError) as error:
        message = f"cannot open the ledger {shown}: {databases.reason(error)}"
        hint = "check the path and its permissions, or name another with --ledger"
        raise LedgerError(message, hint=hint) from error
    return engine


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what a database says that cannot answer into a LedgerError."""
    try:
        yield
    except SQLAlchemyError as error:
        message = f"the ledger cannot be read: {databases.reason(error)}"
        raise LedgerError(message, hint="run the same again, or look at it") from error


@contextlib.contextmanager
def writing(url: URL, *, create: bool = False) -> Iterator[sa.Connection]:
    """Give one transaction of a command's own, and let go of the ledger after it.

    Raises LedgerError as ``connect``, LedgerUnwritable when it fails later.
    """
    engine = connect(url, create=create)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        message = f"the ledger cannot be written: {databases.reason(error)}"
        hint = "run the same again when there is room and right to write there"
        raise LedgerUnwritable(message, hint=hint) from error
    finally:
        engine.dispose()


def _prepare_file(path: Path, *, create: bool) -> dict[str, Any]:
    """Make the file if need be; return what SQLite needs to open it."""
    if not path.exists() or not path.stat().st_size:
        if not create:
            message = f"there is no ledger at {path}"
            hint = "nothing was drained with it yet; name the right one with --ledger"
            raise LedgerError(message, hint=hint)
        make_private_folder(path.parent)
        os.close(open_private(path, os.O_RDWR))
    return sqlite_arguments(path)


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def settings(connection, _record) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        connection.isolation_level = None  # BEGIN is ours, see below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA cache_size=-16000")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A writer takes the lock at once: two drainers queue up instead of failing.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _configure_server(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # As with SQLite: drainers that share a ledger write one after the other.
        if not connection.get_execution_options().get("writes"):
            return
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})")
        else:
            version = schema.meta.c.name == "version"
            connection.execute(
                sa.select(schema.meta.c.value).where(version).with_for_update()
            ).all()


def _look_first(url: URL, shown: str, arguments: dict[str, Any]) -> None:
    """Refuse a database of another program before its journal mode is changed."""
    plain = sa.create_engine(url, hide_parameters=True, connect_args=arguments)
    try:
        _is_ledger(plain, shown)
    finally:
        plain.dispose()


def _is_ledger(engine: sa.Engine, shown: str) -> bool:
    """Whether it is a ledger of our version; False for an empty database."""
    with engine.connect() as connection:
        known = sa.inspect(connection).get_table_names()
        if not known:
            return False
        if "meta" not in known:
            message = f"{shown} is a database, but not a ledger of drainer"
            raise LedgerError(message, hint="name another file with --ledger")
        found = connection.scalar(
            sa.select(schema.meta.c.value).where(schema.meta.c.name == "version")
        )
    if found != schema.VERSION:
        message = f"{shown} is a ledger of version {found}, this is {schema.VERSION}"
        hint = "use the drainer that wrote it, or start a new ledger with --ledger"
        raise LedgerError(message, hint=hint)
    return True


@tenacity.retry(
    retry=tenacity.retry_if_exception_message(match=".*locked"),
    wait=tenacity.wait_random(0.005, 0.05),
    stop=tenacity.stop_after_delay(BUSY_TIMEOUT_MS / 1000),
    reraise=True,
)
def _use_wal(cursor: Cursor) -> None:
    """Switch to WAL; the busy timeout does not cover that, when two drains begin."""
    cursor.execute("PRAGMA journal_mode=WAL")


def _check_version(engine: sa.Engine, shown: str, *, create: bool) -> None:
    with _alone(engine, create=create):
        if not _is_ledger(engine, shown):
            if not create:
                message = f"{shown} is an empty database, not a ledger of drainer"
                raise LedgerError(message, hint="name another one with --ledger")
            _create(engine)
            _is_ledger(engine, shown)  # another drainer, of another version, was faster


@contextlib.contextmanager
def _alone(engine: sa.Engine, *, create: bool) -> Iterator[None]:
    """Keep others from seeing half a ledger: MariaDB commits table by table."""
    if not create or engine.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    name = {"name": f"{_LOCK_NAME} {engine.url.database}"[:64]}
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT GET_LOCK(:name, 30)"), name)
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), name)


def _create(engine: sa.Engine) -> None:
    lockable = engine.dialect.name in ("sqlite", "postgresql")
    with engine.execution_options(writes=lockable).begin() as connection:
        databases.create_tables(schema.metadata, connection)
        present = connection.scalar(sa.select(sa.func.count()).select_from(schema.meta))
        if present:  # another drainer was faster
            return
        rows = {"version": schema.VERSION, "salt": os.urandom(16).hex()}
        connection.execute(
            sa.insert(schema.meta),
            [{"name": name, "value": value} for name, value in rows.items()],
        )
