"""Scan results in: recording messages, each with its recipients.

Each function runs inside a transaction of the writer. What is new is claimed for the
owner that records it; what is known is left to ``ledger.known_messages``.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from msgspec import Struct

from drainer.ledger import schema
from drainer.ledger.codec import message_of, recipient_of
from drainer.ledger.decisions import record_decisions
from drainer.ledger.known_messages import (
    find_known,
    follow,
    hold_ambiguous,
    listed_of,
    mark_twins,
    note_held,
    recorded_of,
    revisit,
)
from drainer.ledger.records import (
    Decision,
    DecisionKind,
    Row,
    ScanRow,
    WriteStamp,
    from_micros,
)
from drainer.ledger.writer.prepared_statement import PreparedStatement, build_insert
from drainer.mail.content import HeldContent
from drainer.mail.message import Message, SpooledMessage, make_id
from drainer.policy.admission.identity import (
    Ambiguous,
    LookFirst,
    New,
    RecordedMessage,
    Same,
    ScanContext,
    resolve,
)
from drainer.policy.recipient.delivery import ClaimedRecipient, Delivery
from drainer.policy.recipient.state import FINAL, State

_R, _M = schema.recipients.c, schema.messages.c
_MESSAGE = PreparedStatement(build_insert(schema.messages, without="seq"))
_RECIPIENT = PreparedStatement(build_insert(schema.recipients))
_FINAL = [state.value for state in FINAL]
#: Writers take turns, so what follows the last message is what this one has added.
_LAST_SEQ = sa.select(sa.func.max(_M.seq))
_SEQS_SINCE = sa.select(_M.id, _M.seq).where(_M.seq > sa.bindparam("last"))

Listings = Sequence[tuple[Row, list[Row]]]


class NewClaims(NamedTuple):
    """Which new messages are claimed."""

    #: Only those with a recipient to try on one of these routes.
    routes: frozenset[str]
    #: At most this many; None = all. The others wait for another claim.
    most: int | None


class AmbiguousScanRow(Struct, frozen=True, kw_only=True):
    """A listing that shares its identity and content with recorded messages."""

    #: Its place in what was to be recorded.
    index: int
    #: Messages by seq: are they still where they were recorded?
    others: dict[int, Message]


class RecordOutcome(Struct, frozen=True, kw_only=True):
    """The result of recording a part of a scan."""

    #: How many new messages have something to send.
    added: int
    #: Those claimed for us: index, seq and number.
    fresh: list[tuple[int, int, int]]
    #: Known messages whose recipients are all final, and that the spool still has.
    finished: list[Message]
    #: To be recorded again, when it is known what is still in its place.
    unsure: list[AmbiguousScanRow]


def record(
    connection: sa.Connection,
    stamp: WriteStamp,
    listings: Listings,
    scan: ScanContext,
    claim: NewClaims,
) -> RecordOutcome:
    """Record what a scan lists; a message that is known keeps its history."""
    recording = _Recorder(connection, stamp, scan, claim)
    recording.load(message["identity"] for message, _ in listings)
    for index, (message, recipients) in enumerate(listings):
        recording.add(index, message, recipients)
    return recording.finish()


class _Recorder:
    """Sorts the listings of one transaction into new, known and uncertain ones."""

    def __init__(
        self,
        connection: sa.Connection,
        stamp: WriteStamp,
        scan: ScanContext,
        claim: NewClaims,
    ) -> None:
        self._connection = connection
        self._stamp = stamp
        self._scan = scan
        self._routes, self._most = claim
        #: The recorded messages by seq, and what is known of those of an identity.
        self._rows: dict[int, Row] = {}
        self._groups: dict[str, list[RecordedMessage]] = {}
        #: New ones that are not inserted yet, by their identity.
        self._waiting: dict[str, tuple[int, Row, list[Row]]] = {}
        self._added = 0
        self._fresh: list[tuple[int, int, int]] = []
        self._same: dict[int, tuple[Row, list[Row]]] = {}
        self._unsure: list[AmbiguousScanRow] = []
        self._shared: set[str] = set()
        self._ambiguous: set[int] = set()

    def load(self, identities: Iterable[str]) -> None:
        """Read what is recorded with these identities."""
        found = find_known(self._connection, identities)
        rows = {row["seq"]: row for group in found.values() for row in group}
        recorded = recorded_of(self._connection, rows)
        self._rows |= rows
        for key, group in found.items():
            self._groups[key] = [recorded[row["seq"]] for row in group]

    def add(self, index: int, message: Row, recipients: list[Row]) -> None:
        """Find out what one listing is."""
        key = message["identity"]
        if key in self._waiting:  # another of this very part has the same identity
            inserted = list(self._waiting)
            self._insert()
            self.load(inserted)
        group = self._groups.get(key)
        if group is None:  # most of a first scan
            self._add_new(index, message, recipients)
            return
        listed = listed_of(message)
        match resolve(listed, group, self._scan):
            case Same(seq):
                self._same[seq] = message, recipients
                self._follow(seq, message)
                if self._scan.absent:  # it was found: no other one has moved here
                    absent = frozenset(self._scan.absent) - {seq}
                    self._scan = self._scan._replace(absent=absent)
            case New():
                self._add_new(index, message, recipients)
            case LookFirst(seqs):
                others = {seq: message_of(self._rows[seq]) for seq in seqs}
                self._unsure.append(AmbiguousScanRow(index=index, others=others))
            case Ambiguous(seqs):
                self._ambiguous |= set(seqs)
                if all(each.listed != listed for each in group):
                    _hold_listing(message, recipients)
                    self._add_new(index, message, recipients)

    def _follow(self, seq: int, message: Row) -> None:
        """Remember where a known message is now."""
        row = self._rows[seq]
        if follow(self._connection, row, message):
            self._groups[message["identity"]] = [
                each._replace(listed=listed_of(message)) if each.seq == seq else each
                for each in self._groups[message["identity"]]
            ]

    def _add_new(self, index: int, message: Row, recipients: list[Row]) -> None:
        key = message["identity"]
        numbers = [each.number for each in self._groups.get(key, [])]
        number = max(numbers, default=-1) + 1
        if number:
            self._shared.add(key)
        owner = None
        self._added += any(row["state"] == State.PENDING for row in recipients)
        if self._most != 0 and any(_may_claim(row, self._routes) for row in recipients):
            owner = self._stamp.owner
            self._most = None if self._most is None else self._most - 1
        message.update(
            id=make_id(key, number),
            number=number,
            has_twin=0,
            scanned=self._stamp.now,
            owner=owner,
            acknowledged=None,
        )
        self._waiting[key] = index, message, recipients

    def _insert(self) -> None:
        """Insert the new messages so far."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        if not waiting:
            return
        last = self._connection.scalar(_LAST_SEQ) or 0
        _MESSAGE(self._connection, [message for _, message, _ in waiting])
        added = self._connection.execute(_SEQS_SINCE, {"last": last})
        seqs: dict[str, int] = dict(added.all())
        rows: list[Row] = []
        for index, message, recipients in waiting:
            seq = seqs[message["id"]]
            for row in recipients:
                row.update(message=seq, since=self._stamp.now)
            rows += recipients
            if message["owner"]:
                self._fresh.append((index, seq, message["number"]))
        if rows:
            _RECIPIENT(self._connection, rows)
        held = [
            (row["message"], row["n"], row["rule"], row["reply"])
            for row in rows
            if row["state"] == State.HELD.value
        ]
        note_held(self._connection, self._stamp, held)

    def finish(self) -> RecordOutcome:
        """Write what is left, and return the result."""
        self._insert()
        if self._shared:
            mark_twins(self._connection, self._shared)
        if self._ambiguous:
            hold_ambiguous(self._connection, self._stamp, self._ambiguous)
        finished = revisit(self._connection, self._stamp, self._same, self._rows)
        return RecordOutcome(
            added=self._added, fresh=self._fresh, finished=finished, unsure=self._unsure
        )


def _hold_listing(message: Row, recipients: list[Row]) -> None:
    """Record a new message as one that must not be sent."""
    message["problem"] = "ambiguous"
    held = {"state": State.HELD.value, "due": None, "rule": "local-ambiguous"}
    for row in recipients:
        row.update(held)


def _may_claim(row: Row, routes: Collection[str]) -> bool:
    return row["state"] == State.PENDING and row["route"] in routes


class RecordedBatch(NamedTuple):
    """The result of recording a part of a scan."""

    #: How many new messages have something to send.
    added: int
    #: Those claimed for us; a delivery for each route.
    fresh: list[Delivery]
    #: Known messages whose recipients are all final, and that the spool still has.
    finished: list[Message]
    #: To be recorded again, when it is known which of these, by seq, are in place.
    unsure: list[tuple[ScanRow, dict[int, Message]]]


def find_recorded_part(
    outcome: RecordOutcome, listings: Sequence[ScanRow], routes: Collection[str]
) -> RecordedBatch:
    """Return what was recorded of these listings."""
    return RecordedBatch(
        added=outcome.added,
        fresh=[
            delivery
            for index, seq, number in outcome.fresh
            for delivery in fresh_jobs(seq, number, listings[index], routes)
        ],
        finished=outcome.finished,
        unsure=[(listings[each.index], each.others) for each in outcome.unsure],
    )


def fresh_jobs(
    seq: int, number: int, listing: ScanRow, routes: Collection[str]
) -> Iterator[Delivery]:
    """Yield the deliveries, by route, of a message that was just claimed for us."""
    by_route: dict[str, list[Row]] = {}
    for row in listing.recipients:
        if _may_claim(row, routes):
            by_route.setdefault(row["route"], []).append(row)
    for route, rows in by_route.items():
        claimed = tuple(
            ClaimedRecipient(n=row["n"], recipient=recipient_of(row)) for row in rows
        )
        row = listing.message | {"number": number, "has_twin": number > 0}
        found = message_of(row, tuple(each.recipient for each in claimed))
        spooled = None
        if listing.content is not None:
            content = HeldContent(listing.content)
            spooled = SpooledMessage(message=found, content=content)
        yield Delivery(
            message=found,
            seq=seq,
            claimed=claimed,
            route=route,
            spooled=spooled,
            facts=listing.facts,
            whole=len(rows) == len(listing.recipients),
        )


def find_finished(connection: sa.Connection, ids: Sequence[str]) -> dict[str, bool]:
    """Return those of the messages whose recipients are all final.

    True for each that has a twin: then only its locator identifies it.
    """
    unfinished = (
        sa.select(_R.message)
        .where(_R.message == _M.seq, _R.state.not_in(_FINAL))
        .exists()
    )
    rows = connection.execute(
        sa.select(_M.id, _M.has_twin).where(_M.id.in_(list(ids)), ~unfinished)
    )
    return {row.id: bool(row.has_twin) for row in rows}


def record_acknowledged(
    connection: sa.Connection, stamp: WriteStamp, ids: Sequence[str]
) -> None:
    """Remember that the source has dropped these messages."""
    connection.execute(
        sa.update(schema.messages)
        .where(_M.id.in_(list(ids)))
        .values(acknowledged=stamp.now)
    )
    at, kind = from_micros(stamp.now), DecisionKind.ACKNOWLEDGED
    seqs = connection.scalars(sa.select(_M.seq).where(_M.id.in_(list(ids))))
    decisions = [
        Decision(at=at, kind=kind, rule=kind.value, message=seq) for seq in seqs
    ]
    record_decisions(connection, stamp.run, decisions)
