"""The spools of the soak: Postfix (three ways), Maildir, SQLite, PostgreSQL.

Each is filled with numbered messages whose content ends with a line of its own, so that
a content that was cut off is seen at the primary.
"""

import smtplib
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import sqlalchemy as sa

from drainer.sources.common.marker import MARKER
from drainer.sources.database.importer import SpoolDatabase, create_spool
from drainer.sources.maildir.source import Maildir
from tests.support.command.installed import maildir_message
from tests.support.databases.servers import Server, drop, serving
from tests.support.mta import roles
from tests.support.mta.postfix import PrivatePostfix, free_port, instance_directory
from tests.support.spools.postfix_files import place, queue_file, record

_LINES: Final = "0123456789abcdefghijklmnopqrstuvwxyz.\n" * 8


def recipient(number: int) -> str:
    """Return the address of a message."""
    return f"user{number}@example.org"


def last_line(number: int) -> bytes:
    """Return the line that ends the content of a message, as on the wire."""
    return b"end of %d\r\n" % number


def _text(number: int) -> bytes:
    head = f"From: s@sender.example\nMessage-ID: <{number}@x.example>\nSubject: x\n\n"
    return f"{head}{_LINES}end of {number}\n".encode()


class Spool(Protocol):
    """A source with mail, and where its ledger is."""

    #: A URL, or empty for a file on the disk of the walk.
    ledger: str

    @property
    def source(self) -> str:
        """As `drain` takes it."""
        ...

    @property
    def place(self) -> Path:
        """Where its files are, for errors of the disk."""
        ...

    def fill(self, count: int) -> None:
        """Put the messages into it."""

    def left(self) -> int:
        """Return how many messages are in it that a drain should have taken out."""
        ...

    def strike(self) -> None:
        """Do what this spool does whenever it is disturbed."""


@dataclass(slots=True)
class PostfixCopy:
    """A copied queue directory, which a drain never changes."""

    place: Path
    ledger: str = ""

    @property
    def source(self) -> str:
        """As `drain` takes it."""
        return f"postfix:{self.place}"

    def fill(self, count: int) -> None:
        """Write the queue files."""
        for n in range(count):
            data = queue_file(
                sender=f"s{n}@sender.example".encode(),
                envelope=(record("R", recipient(n)),),
                text=_text(n),
            )
            place(self.place, data, f"2878E21E{n:03X}", ("deferred", f"{n % 16:X}"))

    def left(self) -> int:
        """Nothing: it is a copy."""
        return 0

    def strike(self) -> None:
        """Nothing more."""


@dataclass(slots=True)
class PostfixInPlace(PostfixCopy):
    """A queue directory that a drain settles as its own server would."""

    @property
    def source(self) -> str:
        """As `drain` takes it."""
        return f"postfix:{self.place}?ack=remove"

    def left(self) -> int:
        """Count the messages in all queues; the marker of the ledger is beside them."""
        queues = ("deferred", "hold")
        files = (each for name in queues for each in (self.place / name).rglob("*"))
        return sum(each.is_file() for each in files)


@dataclass(slots=True)
class PostfixLive:
    """The queue of a Postfix that runs; the same one for all walks."""

    postfix: PrivatePostfix
    ledger: str = ""

    @property
    def source(self) -> str:
        """As `drain` takes it."""
        return f"postfix:live={self.postfix.config_dir}"

    @property
    def place(self) -> Path:
        """The queue directory."""
        return self.postfix.queue_dir

    def fill(self, count: int) -> None:
        """Send it mail whose primary is down; what was there is removed."""
        self.postfix.postsuper(["-d", "ALL"])
        (self.place / MARKER).unlink(missing_ok=True)
        with smtplib.SMTP("127.0.0.1", self.postfix.port) as client:
            for n in range(count):
                text = _text(n).decode()  # smtplib ends the lines of a string
                client.sendmail(f"s{n}@sender.example", [recipient(n)], text)
        self.postfix.wait_queue(count)

    def left(self) -> int:
        """Count the messages in all queues."""
        queues = ("incoming", "active", "deferred", "hold")
        return len(self.postfix.queue_files(queues))

    def strike(self) -> None:
        """Nothing more."""


@dataclass(slots=True)
class MaildirSpool:
    """A Maildir, from which a drain moves what is final."""

    place: Path
    ledger: str = ""

    @property
    def source(self) -> str:
        """As `drain` takes it."""
        return f"maildir:{self.place}"

    def fill(self, count: int) -> None:
        """Write it."""
        for name in ("tmp", "new", "cur"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            text = maildir_message(n, recipient(n)) + last_line(n).replace(b"\r", b"")
            (self.place / "new" / f"1795453785.M{n:06}P1.backup").write_bytes(text)

    def left(self) -> int:
        """Count what was not moved."""
        return len(list((self.place / "new").iterdir()))

    def strike(self) -> None:
        """Nothing more."""


@dataclass(slots=True)
class DatabaseSpool:
    """A spool in a database, whose rows a drain marks."""

    place: Path
    source: str
    ledger: str = ""

    def fill(self, count: int) -> None:
        """Import a Maildir."""
        origin = MaildirSpool(self.place.with_name("origin"))
        origin.fill(count)
        create_spool(self.source)
        spool = SpoolDatabase(self.source)
        for spooled in Maildir(origin.place).scan():
            spool.add(spooled)
        spool.close()

    def left(self) -> int:
        """Count the rows that are not done."""
        query = "SELECT count(*) FROM drainer_spool WHERE state <> 'done'"
        engine = sa.create_engine(self.source, poolclass=sa.NullPool)
        with engine.connect() as connection:
            return int(connection.exec_driver_sql(query).scalar_one())

    def strike(self) -> None:
        """Nothing more."""


@dataclass(slots=True)
class WithServerLedger(MaildirSpool):
    """A Maildir whose ledger is on a PostgreSQL, which restarts at each disturbance."""

    server: Server | None = None

    def strike(self) -> None:
        """Restart the server."""
        assert self.server is not None
        self.server.restart()


NAMES: Final = (
    "Postfix copy", "Postfix in place", "Postfix live", "Maildir", "SQLite source",
    "PostgreSQL source", "PostgreSQL ledger",
)  # fmt: skip
"""What `Spools.lay_out` makes."""


class Spools:
    """Makes the spools; starts a Postfix and a PostgreSQL when they are needed."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._stack = ExitStack()
        self._postfix: PrivatePostfix | None = None
        self._server: Server | None = None

    def __enter__(self) -> Self:
        """Nothing more is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the servers."""
        self._stack.close()

    @property
    def postfix(self) -> PrivatePostfix:
        """The backup, whose primary is down: nothing listens there."""
        if self._postfix is None:
            base = self._stack.enter_context(instance_directory())
            made = roles.backup(base, relay_port=free_port())
            self._postfix = self._stack.enter_context(made)
        return self._postfix

    @property
    def server(self) -> Server:
        """The PostgreSQL."""
        if self._server is None:
            self._server = self._stack.enter_context(serving("postgresql"))
        return self._server

    @contextmanager
    def lay_out(self, name: str, disk: Path) -> Iterator[Spool]:
        """Give a spool of this name, which is empty; what it needs is on the disk."""
        place = disk / "spool"
        match name:
            case "Postfix copy":
                yield PostfixCopy(place)
            case "Postfix in place":
                yield PostfixInPlace(place)
            case "Postfix live":
                yield PostfixLive(self.postfix)
            case "Maildir":
                yield MaildirSpool(place)
            case "SQLite source":
                yield DatabaseSpool(place, f"sqlite:///{place}.db")
            case "PostgreSQL source":
                with self._database() as url:
                    yield DatabaseSpool(place, url)
            case _:
                with self._database() as url:
                    yield WithServerLedger(place, url, self.server)

    @contextmanager
    def _database(self) -> Iterator[str]:
        url = self.server.fresh()
        try:
            yield url
        finally:
            with suppress(sa.exc.SQLAlchemyError):
                drop(url)


def _lock_tables(connection: sa.Connection) -> None:
    """Lock all tables of a ledger; PostgreSQL may find a deadlock with a drain."""
    for _ in range(10):
        try:
            tables = sa.inspect(connection).get_table_names()
            for table in sorted(tables):
                connection.exec_driver_sql(f"LOCK TABLE {table}")
        except sa.exc.OperationalError:
            connection.rollback()
        else:
            return


@contextmanager
def lock_ledger_of(ledger: Path, url: str) -> Iterator[None]:
    """Hold the lock of a ledger, as another process that writes it."""
    if url:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            _lock_tables(connection)
            yield
        return
    file = sqlite3.connect(ledger, isolation_level=None, check_same_thread=False)
    try:
        file.execute("PRAGMA busy_timeout=5000")
        with suppress(sqlite3.OperationalError):  # it has it, and waits for a strike
            file.execute("BEGIN IMMEDIATE")
        yield
    finally:
        file.close()
