"""A table of mail as a source: listed in pages, leased, read in pieces, marked.

A listing keeps only one page in memory, however many rows there are. Contents up to
HELD_BYTES come with their row. Larger ones are read in pieces when needed, each piece
with a separate query.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace

from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.content import crlf
from drainer.mail.message import Message, Problem, SpooledMessage
from drainer.runtime import databases
from drainer.runtime.units import parse_duration
from drainer.sources.common.files import (
    HELD_BYTES,
    attach_content,
    batches,
    unescape_name,
)
from drainer.sources.database.checks import check_ids, check_statement, check_use
from drainer.sources.database.finish import RowFinisher, set_state
from drainer.sources.database.leases import RowClaims, RowLeases
from drainer.sources.database.mapping import TableMapping
from drainer.sources.database.reader import PAGE, KnownRow, Row, RowReader
from drainer.sources.database.rows import bytes_of
from drainer.sources.database.schema import leases_metadata
from drainer.sources.database.store import DatabaseStore

LOCKED_SECONDS = 3.0
"""How long a scan waits for rows that another process has locked."""
LOCK_PAUSE = 0.1
PIECE_BYTES = 1024 * 1024


class DatabaseSettings(Struct, frozen=True, kw_only=True):
    """The options of a source, without the mapping."""

    url: str
    acknowledge: str = "mark"
    password_file: str = ""
    lease: str = "2m"
    #: 'table', 'off', or '' = the default: only the built-in spool has leases.
    leases: str = ""


class DatabaseSource:
    """A database of mail as a source."""

    def __init__(self, settings: DatabaseSettings, mapping: TableMapping) -> None:
        """Connect and check the mapping; raises SourceError or UsageError."""
        url = databases.with_password(
            databases.parse(settings.url), settings.password_file
        )
        leases = settings.leases or ("table" if mapping.is_built_in else "off")
        check_use(mapping, settings.acknowledge, leases)
        self._store = DatabaseStore(url, mapping)
        self._mapping = mapping
        self._acknowledge = settings.acknowledge
        self._may_lease = leases == "table"
        self.lease_seconds = _seconds(settings.lease)
        self._leases: RowLeases | None = None
        table = "" if mapping.is_built_in else f"?table={mapping.name}"
        self.url = self._store.shown + table
        self.acknowledges = settings.acknowledge != "keep"
        self._read = RowReader(self._store, self.url)
        self._finisher = RowFinisher(mapping, settings.acknowledge)
        self._store.look(self._check)
        self._store.close()

    def _check(self, connection: sa.Connection) -> None:
        check_ids(connection, self._store.bound(connection), self._mapping)
        check_statement(connection, self._mapping)

    def refuse_if_live(self) -> None:
        """Never refuse: no server sends mail from this table."""

    # --- listing

    def scan(self) -> Iterator[SpooledMessage]:
        """List the rows to send, in the order of their ids.

        Rows that another process had locked come last. That process may have died while
        it claimed them, and then no other drainer would list them.
        """
        last: object = None
        locked: list[Any] = []
        while ids := self._store.read(partial(self._read.page, last=last)):
            last = ids[-1]
            if self._leases is None:
                yield from self._list_messages(ids, None)
            else:
                mine, claims = self._store.write(partial(self._claim, ids))
                locked += sorted(set(ids) - set(mine))
                yield from self._list_messages(mine, claims)
        yield from self._list_locked(locked)

    def _list_locked(self, ids: Sequence[Any]) -> Iterator[SpooledMessage]:
        """List rows that were locked: wait a little, then list them with a problem."""
        end = time.monotonic() + LOCKED_SECONDS
        left = list(ids)
        while left := self._store.read(partial(self._read.still_open, ids=left)):
            taken: set[Any] = set()
            for some in batches(left, PAGE):
                mine, claims = self._store.write(partial(self._claim, some))
                taken.update(mine)
                yield from self._list_messages(mine, claims)
            left = [id_ for id_ in left if id_ not in taken]
            if not left or time.monotonic() > end:
                break
            time.sleep(LOCK_PAUSE)
        problem = Problem(code="locked", detail="another process has locked the row")
        for some in batches(left, PAGE):
            for known in self._store.read(partial(self._read.rows, ids=some)):
                message = replace(known.message, problem=problem)
                yield self._spooled(known.row, message)

    def _claim(
        self, ids: Sequence[Any], connection: sa.Connection
    ) -> tuple[list[Any], RowClaims]:
        """Claim these rows; return those that could be locked, and their owners."""
        assert self._leases is not None  # noqa: S101 - the caller has checked
        ids = self._read.lock(connection, ids)
        claims = self._leases.claim(connection, [str(id_) for id_ in ids])
        mine = [id_ for id_ in ids if str(id_) in claims.mine]
        if self._mapping.claim and mine:
            bound = self._store.bound(connection)
            set_state(connection, bound, self._mapping.claim, mine)
        return ids, claims

    def _list_messages(
        self, ids: Sequence[Any], claims: RowClaims | None
    ) -> Iterator[SpooledMessage]:
        wanted = list(ids)
        if claims is not None:
            listed = claims.mine | claims.doubtful
            wanted = [id_ for id_ in ids if str(id_) in listed]
        for known in self._store.read(partial(self._read.rows, ids=wanted)):
            message = known.message
            if claims is not None and str(known.row["id"]) in claims.doubtful:
                detail = "its lease ended after a drainer started to send it"
                message = replace(
                    message, problem=Problem(code="in-doubt", detail=detail)
                )
            yield self._spooled(known.row, message)

    def _spooled(self, row: Row, message: Message) -> SpooledMessage:
        content = None
        if row["size"] is not None and row["size"] <= HELD_BYTES:
            try:
                data = bytes_of(row["head"])
            except MessageUnreadable as error:
                problem = Problem(code=error.code, detail=error.detail)
                message = replace(message, problem=message.problem or problem)
            else:
                content = b"".join(crlf([data]))
                message = replace(message, size_bytes=len(content))
        return attach_content(message, content, partial(self._stream, message))

    # --- one message

    def open(self, message: Message) -> SpooledMessage:
        """Find a row again; it must still be ours, and the same message."""
        known, is_ours = self._store.read(partial(self._find, message))
        if not is_ours:
            detail = f"row {message.native_id} is leased"
            raise MessageUnreadable("taken-elsewhere", detail)
        return self._spooled(known.row, known.message)

    def is_in_place(self, message: Message) -> bool:
        """Return whether the row is still to send, and the same message."""
        try:
            self._store.read(partial(self._find, message))
        except MessageUnreadable:
            return False
        return True

    def _find(
        self, message: Message, connection: sa.Connection
    ) -> tuple[KnownRow, bool]:
        found = self._read.rows(connection, [self._read.id_of(connection, message)])
        if not found:
            raise MessageUnreadable(
                "vanished", f"row {message.native_id} is no longer to be sent"
            )
        if found[0].message.identity != message.identity:
            raise MessageUnreadable(
                "vanished", f"{message.native_id} is another message now"
            )
        mine = self._leases is None or self._leases.holds(connection, _row_id(message))
        return found[0], mine

    def _stream(self, message: Message) -> Iterator[bytes]:
        """Yield a content with CRLF line ends, piece by piece."""
        known, _ = self._store.read(partial(self._find, message))
        pieces = self._pieces(message, int(known.row["size"] or 0))
        yield from crlf(bytes_of(piece) for piece in pieces)

    def _pieces(self, message: Message, size: int) -> Iterator[Any]:
        for start in range(0, size, PIECE_BYTES):
            length = min(PIECE_BYTES, size - start)
            piece = self._store.read(
                partial(self._read.piece, message=message, part=(start, length))
            )
            if piece is None or len(piece) != length:
                raise MessageUnreadable(
                    "vanished", "the content changed while it was read"
                )
            yield piece

    # --- leases

    def lease(self, owner: str) -> None:
        """Lease all listed rows from now on; without leases this does nothing."""
        if not self._may_lease:
            return
        if not self._mapping.is_built_in:
            self._store.write(partial(databases.create_tables, leases_metadata))
        self._leases = RowLeases(self._mapping.name, owner, self.lease_seconds)
        self.renew()

    def renew(self) -> None:
        """Prove that the owner is alive."""
        if self._leases is not None:
            self._store.write(self._leases.renew)

    def begin(self, messages: Sequence[Message]) -> set[str]:
        """Record that these may be sent; return the ids that may."""
        rows = {_row_id(message): message.id for message in messages}
        if self._leases is None:
            return set(rows.values())
        mine = self._store.write(partial(self._leases.begin, rows=list(rows)))
        return {rows[row] for row in mine}

    def leased_elsewhere(self) -> int:
        """Return how many rows running drainers of other ledgers have."""
        if self._leases is None:
            return 0
        return self._store.read(self._leases.elsewhere)

    # --- acknowledging

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Mark or delete these rows, or run the operator's statement; all or none."""
        return self._finish(messages, self._mapping.finish)

    def fail(self, messages: Sequence[Message]) -> list[str]:
        """As ``acknowledge``, but mark with ``fail`` if the mapping sets that value."""
        return self._finish(messages, self._mapping.fail or self._mapping.finish)

    def _finish(self, messages: Sequence[Message], value: str) -> list[str]:
        if not self.acknowledges or not messages:
            return []
        return self._store.write(partial(self._finish_rows, messages, value))

    def _finish_rows(
        self, messages: Sequence[Message], value: str, connection: sa.Connection
    ) -> list[str]:
        wanted = {}
        for message in messages:
            try:
                wanted[message.id] = self._read.id_of(connection, message)
            except MessageUnreadable:
                continue
        identities = {message.id: message.identity for message in messages}
        known = {
            known.row["id"]: known.message.identity
            for some in batches(wanted.values(), PAGE)
            for known in self._read.rows(connection, some)
        }
        gone = [id_ for id_ in wanted.values() if id_ not in known]
        mine = [row for id_, row in wanted.items() if known.get(row) == identities[id_]]
        if mine:
            bound = self._store.bound(connection)
            self._finisher.finish(connection, bound, mine, value)
        if self._leases is not None:
            self._leases.drop(connection, map(str, [*mine, *gone]))
        kept = {*mine, *gone}
        return [id_ for id_, row in wanted.items() if row in kept]


def _row_id(message: Message) -> str:
    return unescape_name(message.locator)


def _seconds(text: str) -> float:
    try:
        return float(parse_duration(text).total_seconds())
    except ValueError as error:
        message = f"lease = {text!r}: {error}"
        raise UsageError(message, hint='e.g. lease = "2m"') from None
