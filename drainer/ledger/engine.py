"""Open the ledger's database: where it is, its settings, its version.

SQLite runs in WAL mode with synchronous=FULL, so that a commit that returned
survives a power loss. The file is private (0600) from its first byte.
"""

import contextlib
import os
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Cursor
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from drainer.errors import LedgerError, LedgerLost, UsageError
from drainer.ledger import schema
from drainer.runtime import databases
from drainer.runtime.file_rights import user_name
from drainer.runtime.owned_sqlite import sqlite_arguments
from drainer.runtime.private_files import make_private_folder, open_private

LedgerURL = URL
_TOO_COMPLEX = "pattern too complex"
"""What SQLite says of a text that is too long to search for."""
BUSY_TIMEOUT_MS = 30_000
ANSWER_TIMEOUT = 60.0
"""Seconds after which a server that does not answer counts as lost."""
_LOCK_NAME, _LOCK_NUMBER = "drainer-ledger", 7_239_147_016
"""The lock that drainers of one server database wait for: a name, and its number."""


def default_path(state_home: str, *, root: bool) -> Path:
    """Return the default place of the ledger: never the current folder."""
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


def file_id(url: URL) -> tuple[int, int] | None:
    """Return what identifies an SQLite file, not its replacement; None without a file.

    SQLite itself would continue to write to a file that has been removed.
    """
    try:
        found = os.stat(str(url.database)) if is_file(url) else None  # noqa: PTH116
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def connect(url: URL, *, create: bool, patience: float = 0) -> sa.Engine:
    """Return an engine for a ledger of our version.

    Raises LedgerError when it is absent (and ``create`` is false), cannot be opened, is
    not a ledger, or has another version. Raises LedgerLost when it has been away, full
    or locked for ``patience`` seconds.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LedgerLost),
        wait=tenacity.wait_random_exponential(0.05, max=1),
        stop=tenacity.stop_after_delay(patience),
        reraise=True,
    )
    return retrying(_connect, url, create)


def _connect(url: URL, create: bool) -> sa.Engine:  # noqa: FBT001 - called by tenacity
    name = databases.safe_url(url)
    with at_open(url):
        if is_file(url):
            arguments = _prepare_file(Path(str(url.database)), create=create)
            engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments)
            configure = _configure_sqlite
        else:
            engine = databases.server_engine(url, answers_within=ANSWER_TIMEOUT)
            configure = _configure_server
        try:
            with _alone(engine, create=create):
                # before the journal mode of another program's database is changed
                is_ledger = _is_ledger(engine, name, create=create)
                configure(engine)
                if not is_ledger:
                    _create(engine)
                    _is_ledger(engine, name)  # a drainer of another version was faster
        except BaseException:
            engine.dispose()  # no caller has it yet
            raise
    return engine


@contextlib.contextmanager
def at_open(url: URL) -> Iterator[None]:
    """Turn a failure to open a ledger into LedgerError, or LedgerLost."""
    try:
        yield
    except ImportError as error:
        name = databases.safe_url(url)
        message = f"the driver of the ledger {name} is not installed: {error}"
        raise LedgerError(message, hint=databases.MISSING_DRIVER) from error
    except (SQLAlchemyError, OSError) as error:
        name, words = databases.safe_url(url), databases.reason(error)
        message = f"cannot open the ledger {name}: {words}"
        if not databases.is_refused(error):
            raise LedgerLost(message, hint=databases.remedy(url)) from error
        hint = "check the URL, the password and the user's rights"
        if is_file(url):
            hint = _rights_hint(Path(str(url.database)))
        raise LedgerError(message, hint=hint) from error


def _rights_hint(path: Path) -> str:
    """Return what to do about a ledger that cannot be opened; name another owner."""
    for place in (path, path.parent):
        with contextlib.suppress(OSError):
            owner, caller = place.stat().st_uid, os.geteuid()
            if caller and owner != caller:
                folder = shlex.quote(str(path.parent))
                return (
                    f"{place} belongs to {user_name(owner)}: run drainer as root, or"
                    f" give the folder to this user: chown -R {caller} {folder}"
                )
    return "check the path and its permissions, or name another with --ledger"


def connect_reader(url: URL, *, patience: float = 0) -> sa.Engine:
    """Return an engine to read a ledger with, also one that cannot be written.

    Raises as ``connect`` does.
    """
    try:
        return connect(url, create=False, patience=patience)
    except LedgerLost:
        raise
    except LedgerError:
        path = Path(str(url.database))
        if not is_file(url) or not os.path.isfile(path) or is_writable(path):  # noqa: PTH113 - it never raises
            raise
    return _connect_read_only(url)


def _connect_read_only(url: URL) -> sa.Engine:
    """Return an engine for a file where SQLite can make no file beside it."""
    path = str(url.database)
    wal = Path(f"{path}-wal")

    def open_file() -> sqlite3.Connection:
        # Without a log the file is complete, and it cannot change.
        mode = "mode=ro" if wal.exists() and wal.stat().st_size else "immutable=1"
        uri = f"file:{quote(path)}?{mode}"
        arguments = sqlite_arguments(Path(path))
        connection: sqlite3.Connection = sqlite3.connect(
            uri, uri=True, check_same_thread=False, **arguments
        )
        return connection

    engine = sa.create_engine("sqlite://", creator=open_file, hide_parameters=True)
    with at_open(url):
        _is_ledger(engine, databases.safe_url(url))
    return engine


def is_writable(path: Path) -> bool:
    """Whether SQLite may write a file, and the journal beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def explain_loss(url: URL, error: BaseException) -> LedgerLost:
    """Return what the operator must know when a ledger that was open fails."""
    message = (
        f"the ledger {databases.safe_url(url)} was lost: {databases.reason(error)}"
    )
    return LedgerLost(message, hint=databases.remedy(url))


@contextlib.contextmanager
def in_use(url: URL) -> Iterator[None]:
    """Turn any failure of a ledger that was open into LedgerLost.

    A run that has started does not end as a mistake in its configuration when the
    database is dropped, the file is replaced, or a right is revoked.
    """
    try:
        yield
    except LedgerLost:
        raise
    except LedgerError as error:
        message = f"the ledger was lost: {error}"
        raise LedgerLost(message, hint=databases.remedy(url)) from error
    except SQLAlchemyError as error:
        raise explain_loss(url, error) from error


@contextlib.contextmanager
def in_query(url: URL) -> Iterator[None]:
    """Turn a query that the database cannot take, or cannot answer, into words."""
    try:
        with in_use(url):
            yield
    except LedgerLost as error:
        if _TOO_COMPLEX not in str(error):
            raise
        message = "the ID or the filter is too long for the ledger"
        raise UsageError(message, hint="shorten it") from error
    except (UnicodeError, OverflowError) as error:
        message = f"the ledger cannot search for that: {error}"
        raise UsageError(message, hint="correct the ID or the filter") from error


@contextlib.contextmanager
def repeatable(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection whose queries all see what the first of them sees."""
    if engine.dialect.name != "sqlite":  # there every transaction is like that
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        yield connection


@contextlib.contextmanager
def open_reader(url: URL) -> Iterator[sa.Connection]:
    """Read a ledger in a command of its own, and close it after that.

    Raises LedgerError as ``connect``, LedgerLost when it fails later.
    """
    engine = connect_reader(url)
    try:
        with in_use(url), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def open_transaction(url: URL, *, create: bool = False) -> Iterator[sa.Connection]:
    """Run one transaction of a command's own, and close the ledger after it.

    Raises LedgerError as ``connect``, LedgerLost when it fails later.
    """
    engine = connect(url, create=create)
    try:
        with in_use(url), engine.execution_options(writes=True).begin() as connection:
            yield connection
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
    elif create and not is_writable(path):
        message = f"the ledger {path}, or its folder, is read-only"
        hint = "let this user write there; `drainer status` still reads the ledger"
        raise LedgerError(message, hint=hint)
    return sqlite_arguments(path)


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def settings(connection, _record) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        connection.isolation_level = None  # BEGIN is ours, see below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA cache_size=-4000")
        cursor.execute("PRAGMA wal_autocheckpoint=4000")
        cursor.close()

    engine.dispose()  # connections from now on have these settings

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


def _is_ledger(engine: sa.Engine, name: str, *, create: bool = False) -> bool:
    """Return True for a ledger of our version, and False for an empty database.

    Raises LedgerError for anything else, and for an empty one that is not to be made a
    ledger.
    """
    with engine.connect() as connection:
        known = sa.inspect(connection).get_table_names()
        if not known:
            if create:
                return False
            message = f"{name} is an empty database, not a ledger of drainer"
            raise LedgerError(message, hint="name another one with --ledger")
        if "meta" not in known:
            message = f"{name} is a database, but not a ledger of drainer"
            raise LedgerError(message, hint="name another file with --ledger")
        found = connection.scalar(
            sa.select(schema.meta.c.value).where(schema.meta.c.name == "version")
        )
    if found != schema.VERSION:
        message = (
            f"{name} is a ledger of version {found}, but this is a drainer for"
            f" version {schema.VERSION}"
        )
        hint = (
            "finish its drains with the drainer that wrote it; then name a new ledger"
            " with --ledger. A new one does not know what was delivered"
        )
        raise LedgerError(message, hint=hint)
    return True


@tenacity.retry(
    retry=tenacity.retry_if_exception_message(match=".*locked"),
    wait=tenacity.wait_random(0.005, 0.05),
    stop=tenacity.stop_after_delay(BUSY_TIMEOUT_MS / 1000),
    reraise=True,
)
def _use_wal(cursor: Cursor) -> None:
    """Switch to WAL; the busy timeout does not cover that when two drains start."""
    cursor.execute("PRAGMA journal_mode=WAL")


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
