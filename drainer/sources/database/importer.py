"""Create a built-in spool, and fill it from any other source, each message once.

Each message is written in a separate transaction, under the name ``drainer:ID``. It
keeps its id, so a ledger that knows it from the other spool recognises it here.
Messages that share an identity are distinguished by their content, then counted.
"""

import itertools
import os
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.message import Message, Problem, SpooledMessage, make_id
from drainer.runtime import databases
from drainer.runtime.owned_sqlite import sqlite_arguments
from drainer.runtime.private_files import open_private
from drainer.sources.database import schema
from drainer.sources.database.mapping import mapping_of
from drainer.sources.database.store import DatabaseStore

PIECE_BYTES = 8 * 1024 * 1024
"""Size of the pieces in which contents are written: packets have limits."""


def create_spool(url_text: str, password_file: str = "") -> tuple[str, bool]:
    """Create a spool in a database; return its URL for people, and whether it is new.

    Raises UsageError or SourceError.
    """
    url = databases.with_password(databases.parse(url_text), password_file)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database or "")).absolute()
        if not url.database or url.database == ":memory:":
            message = "an SQLite spool needs a path"
            raise UsageError(message, hint="e.g. sqlite:////var/spool/backup/mail.db")
        _touch(path)
    store = DatabaseStore(url, mapping_of({}), creating=True)
    new = store.write(schema.create)
    store.close()
    return store.shown, new


def _touch(path: Path) -> None:
    """Create an empty database that others cannot read; keep an existing one."""
    try:
        descriptor = open_private(path, os.O_EXCL | os.O_RDWR)
        arguments = sqlite_arguments(path)
    except FileExistsError:
        return
    except OSError as error:
        message = f"cannot create {path}: {error.strerror}"
        raise UsageError(message, hint="name an existing folder") from None
    os.close(descriptor)
    with sqlite3.connect(path, **arguments) as connection:
        connection.execute("PRAGMA user_version = 1")  # writes the file's head
    connection.close()


class SpoolDatabase:
    """A built-in spool opened for writing."""

    def __init__(self, url_text: str, password_file: str = "") -> None:
        """Open a spool that ``create_spool`` made; SourceError if there is none."""
        url = databases.with_password(databases.parse(url_text), password_file)
        self._store = DatabaseStore(url, mapping_of({}))
        self._store.look(self._store.bound)
        self.shown = self._store.shown
        #: The ids of this run: two messages of one identity get two ids.
        self._ids: set[bytes] = set()

    def add(self, spooled: SpooledMessage) -> Problem | bool:
        """Write a message; False if it exists, a Problem if it must not be written."""
        problem = spooled.message.problem
        faults = [each.fault for each in spooled.message.envelope.recipients]
        if problem is None and any(faults):  # a table has no place for a fault
            detail = next(filter(None, faults))
            problem = Problem(code="bad-address", detail=detail)
        if problem is not None:
            return problem
        try:
            id_, is_new = self._store.write(partial(self._insert, spooled))
        except MessageUnreadable as error:
            return Problem(code=error.code, detail=error.detail)
        self._ids.add(bytes.fromhex(id_))
        return is_new

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def _insert(
        self, spooled: SpooledMessage, connection: sa.Connection
    ) -> tuple[str, bool]:
        """Write a message unless it exists; return its id, and whether it is new."""
        message = spooled.message
        spool = schema.spool
        for number in itertools.count():
            id_ = make_id(message.identity, number)
            name = f"drainer:{id_}"
            known = sa.select(spool.c.id).where(spool.c.message_id == name)
            row_id = connection.scalar(known)
            if row_id is None:
                self._write(connection, name, spooled)
                return id_, True
            if bytes.fromhex(id_) not in self._ids and _has_content(
                connection, row_id, spooled
            ):
                return id_, False
        raise AssertionError  # there is always another number

    def _write(
        self, connection: sa.Connection, name: str, spooled: SpooledMessage
    ) -> None:
        message, spool = spooled.message, schema.spool
        pieces = _pieces(spooled.content.chunks())
        row = _row(message) | {"message_id": name, "content": next(pieces, b"")}
        added = connection.execute(sa.insert(spool).values(row))
        key = added.inserted_primary_key
        assert key is not None  # noqa: S101 - one row was inserted
        for piece in pieces:
            _append(connection, key[0], piece)
        connection.execute(sa.insert(schema.recipients), _recipients(message, key[0]))


def _has_content(
    connection: sa.Connection, row_id: int, spooled: SpooledMessage
) -> bool:
    content, offset = schema.spool.c.content, 0
    for piece in _pieces(spooled.content.chunks()):
        part = sa.func.substr(content, offset + 1, len(piece))
        stored = connection.scalar(sa.select(part).where(schema.spool.c.id == row_id))
        if bytes(stored or b"") != piece:
            return False
        offset += len(piece)
    size = sa.select(sa.func.length(content)).where(schema.spool.c.id == row_id)
    return connection.scalar(size) == offset


def _row(message: Message) -> dict[str, Any]:
    envelope, client = message.envelope, message.client
    moment = message.arrived.timestamp()
    return {
        "arrived": int(moment) * 1_000_000 + message.arrived.microsecond,
        "reverse_path": envelope.reverse_path,
        "client_address": client.address[:64],
        "client_name": client.name[:255],
        "helo": client.helo[:255],
        "login": message.login[:255],
        "body": envelope.body,
        "smtputf8": int(envelope.smtputf8),
        "envid": envelope.envid[:512],
        "ret": envelope.ret,
        "verp": envelope.verp,
    }


def _recipients(message: Message, parent: int) -> list[dict[str, Any]]:
    """Return the rows of recipients still to do, then of those that are done."""
    open_ = [
        {
            "forward_path": recipient.forward_path,
            "orcpt": recipient.orcpt,
            "notify": ",".join(recipient.notify),
            "state": schema.PENDING,
        }
        for recipient in message.envelope.recipients
    ]
    done = [
        {"forward_path": path, "orcpt": "", "notify": "", "state": schema.DONE}
        for path in message.envelope.done
    ]
    return [row | {"message": parent, "n": n} for n, row in enumerate(open_ + done)]


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _append(connection: sa.Connection, id_: int, piece: bytes) -> None:
    """Append a piece to a content that was started in this transaction."""
    texts: Mapping[str, str] = {
        "postgresql": "content || :piece",
        # || makes text of bytes there, so the result is declared to be bytes.
        "sqlite": "CAST(content || :piece AS BLOB)",
    }
    joined = texts.get(connection.dialect.name, "CONCAT(content, :piece)")
    statement = sa.text(f"UPDATE drainer_spool SET content = {joined} WHERE id = :id")  # noqa: S608
    typed = statement.bindparams(sa.bindparam("piece", type_=sa.LargeBinary))
    connection.execute(typed, {"piece": piece, "id": id_})
