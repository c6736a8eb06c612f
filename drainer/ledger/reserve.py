"""The reserve: a file with room of its own, for outcomes that the ledger cannot take.

Each run makes one beside its lock when it opens the ledger, and allocates its space
then. When drainer cannot commit an outcome, because the disk is full or the server is
away, it writes the recipients that the primary may have there and syncs the file. The
next run on this host reads the file, settles those recipients, and removes it.

A file is lines, each a checksum and a JSON object, and then NULs. The first line names
the ledger. What does not fit this form is ignored and kept aside.
"""

import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import sqlalchemy as sa
from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import asdict
from sqlalchemy.engine import URL

from drainer.errors import LedgerLost
from drainer.ledger import engine, schema
from drainer.ledger.columns import to_json
from drainer.ledger.owner import Owner, lock_is_free, writable
from drainer.ledger.records import AttemptEnd, Row, WriteOutcome, to_micros
from drainer.ledger.writer.client import Then
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.policy.recipient.settle import Settlement
from drainer.policy.recipient.state import State
from drainer.runtime import databases
from drainer.runtime.json_input import parse_json
from drainer.runtime.private_files import (
    open_present,
    open_private,
    remove_private,
    rename_private,
)

SUFFIX = ".reserve"
ASIDE = ".reserve-unused"
SIZE = 256 * 1024
"""Bytes that are allocated; a longer record needs room on the disk."""
MAX_BYTES = 16 * 1024 * 1024
MAX_REPLY = 500
DELIVERED, UNKNOWN = "delivered", "unknown"
_Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""As a database takes it."""


class ReservePlace(NamedTuple):
    """Which ledger a reserve belongs to."""

    #: The hash of what the ledger was given when it was made.
    ledger: str
    #: Its URL as the operator may see it.
    url: str


class ReserveRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one attempt meant for one recipient, as far as the primary has said."""

    attempt: _Integer
    #: The message's number in the ledger, its id, and the backup's name for it.
    seq: _Integer
    id: str
    native_id: str
    n: _Integer
    forward_path: str
    #: "delivered": the primary accepted it. "unknown": no reply to the final dot came.
    outcome: str
    reply: str
    at: _Integer


def place_of(database: sa.Engine, url: URL) -> ReservePlace:
    """Return which ledger this is."""
    salt = sa.select(schema.meta.c.value).where(schema.meta.c.name == "salt")
    with engine.at_open(url), database.connect() as connection:
        text = f"reserve {connection.scalar(salt)}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return ReservePlace(digest, databases.safe_url(url))


class Reserve:
    """The reserve of one run."""

    def __init__(self, owner: Owner, place: ReservePlace) -> None:
        """Make the file and allocate its space; raise LedgerError if impossible."""
        self._place = place
        self.path = owner.lock.with_suffix(SUFFIX)
        #: What was written, in order.
        self.records: list[ReserveRecord] = []
        #: Reserves of earlier runs that could not be used, and why.
        self.warnings: list[str] = []
        #: Why it could not be written to; '' while it can.
        self.failure = ""
        with writable(owner.lock.parent):
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_EXCL
            self._descriptor = open_private(self.path, flags)
            try:
                os.posix_fallocate(self._descriptor, 0, SIZE)
                self._end = os.pwrite(self._descriptor, _line(place._asdict()), 0)
                os.fsync(self._descriptor)
            except BaseException:
                self.release()
                raise

    def on_settled(self, closed: AttemptEnd, then: Then, outcome: WriteOutcome) -> None:
        """Keep what the ledger could not take of an attempt; call ``then``."""
        if isinstance(outcome.error, LedgerLost):
            self.keep(closed)
        then(outcome)

    def keep(self, closed: AttemptEnd) -> None:
        """Record those recipients of an attempt that the primary may have."""
        self._write(list(_records(closed)))

    def keep_unknown(self, attempt: int, delivery: Delivery, at: datetime) -> None:
        """Record an attempt that ends without a reply to its final dot."""
        reply = "drainer ended before the primary replied to the final dot"
        self._write(
            [
                _record((attempt, delivery, at), claimed, UNKNOWN, reply)
                for claimed in delivery.claimed
            ]
        )

    def _write(self, found: list[ReserveRecord]) -> None:
        self.records += found
        data = b"".join(_line(asdict(record)) for record in found)
        try:
            while data:
                written = os.pwrite(self._descriptor, data, self._end)
                self._end, data = self._end + written, data[written:]
            os.fsync(self._descriptor)
        except OSError as error:
            self.failure = error.strerror or str(error)

    def unread(self) -> "list[LeftReserve]":
        """Return what earlier runs left for the same ledger."""
        return find_unread(self.path.parent, self._place)

    def put_away(self, left: "list[LeftReserve]") -> None:
        """Remove what has been read, and keep aside what could not be used."""
        for each in left:
            self.warnings += each.put_away()

    def release(self) -> None:
        """Close the file; it stays when the next run must read it."""
        os.close(self._descriptor)
        if not self.records:
            with suppress(OSError):
                remove_private(self.path)


def _records(closed: AttemptEnd) -> Iterator[ReserveRecord]:
    attempt = closed.id, closed.delivery, closed.ended
    for settlement in closed.settlements:
        outcome = _outcome(settlement)
        if outcome:
            yield _record(attempt, settlement.claimed, outcome, settlement.reply)


def _record(
    attempt: tuple[int, Delivery, datetime],
    claimed: ClaimedRecipient,
    outcome: str,
    reply: str,
) -> ReserveRecord:
    number, delivery, at = attempt
    return ReserveRecord(
        attempt=number,
        seq=delivery.seq,
        id=delivery.message.id,
        native_id=delivery.message.native_id,
        n=claimed.n,
        forward_path=claimed.recipient.original or claimed.recipient.forward_path,
        outcome=outcome,
        reply=reply[:MAX_REPLY],
        at=to_micros(at),
    )


def _outcome(settlement: Settlement) -> str:
    if settlement.state is State.DELIVERED:
        return DELIVERED
    in_doubt = settlement.doubts > settlement.claimed.doubts
    return UNKNOWN if in_doubt else ""


def _line(fact: Row) -> bytes:
    text = to_json(fact).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


# --- reading what an earlier run left


class LeftReserve(Struct, frozen=True, kw_only=True):
    """A reserve that a run of this host has left."""

    path: Path
    records: tuple[ReserveRecord, ...]
    #: Why some or all of it cannot be used; '' when all of it can.
    damage: str = ""

    def put_away(self) -> Iterator[str]:
        """Remove it, or keep it aside and yield why."""
        aside = self.path.with_suffix(ASIDE)
        with suppress(OSError):
            if not self.damage:
                remove_private(self.path)
                return
            rename_private(self.path, aside.name)
        yield f"the reserve {aside} was not used: {self.damage}"


def records_of(left: Iterable[LeftReserve]) -> Iterator[ReserveRecord]:
    """Yield all that was found."""
    return (record for each in left for record in each.records)


def find_unread(folder: Path, place: ReservePlace) -> list[LeftReserve]:
    """Return what runs that have ended left for this ledger."""
    try:
        paths = sorted(folder.glob(f"*{SUFFIX}"))
    except OSError:
        return []
    ended = (path for path in paths if lock_is_free(path.with_suffix(".lock")))
    return [found for path in ended if (found := _read(path, place)) is not None]


def _read(path: Path, place: ReservePlace) -> LeftReserve | None:
    """Read a reserve; None when it is another ledger's, or gone."""
    try:
        data = _bytes_of(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return LeftReserve(path=path, records=(), damage=error.strerror or str(error))
    head, *lines = data.rstrip(b"\0").split(b"\n")
    header = _fact_of(head)
    if not data.strip(b"\0"):  # its run ended before it wrote anything
        return LeftReserve(path=path, records=())
    if header is None or set(header) != set(ReservePlace._fields):
        return LeftReserve(path=path, records=(), damage="it is not a reserve")
    if ReservePlace(**header) != place:
        damage = "it belongs to a ledger that was replaced"
        is_here = header["url"] == place.url
        return LeftReserve(path=path, records=(), damage=damage) if is_here else None
    found = [_outcome_of(_fact_of(line)) for line in lines if line]
    good = tuple(outcome for outcome in found if outcome is not None)
    damage = "a part of it is damaged" if len(good) < len(found) else ""
    return LeftReserve(path=path, records=good, damage=damage)


def _bytes_of(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(open_present(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        owners = (0, os.geteuid(), path.parent.stat().st_uid)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners:
            raise OSError("the file is not one of ours")
        return file.read(MAX_BYTES)


def _fact_of(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        fact = parse_json(text)
    except ValueError:
        return None
    return fact if isinstance(fact, dict) else None


def _outcome_of(fact: dict[str, Any] | None) -> ReserveRecord | None:
    try:
        return convert(fact, ReserveRecord)
    except ValidationError:
        return None
