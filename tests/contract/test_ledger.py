"""What the ledger promises to those who work with it."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from drainer.ledger import schema
from drainer.ledger.claims import ClaimRequest
from drainer.ledger.codec import listing_of
from drainer.ledger.engine import parse_url
from drainer.ledger.messages import RecordedBatch
from drainer.ledger.query.selection import DueQuery, scan_due
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import AttemptEnd, AttemptStart, StateConflict, to_micros
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.mail.content import HeldContent, survey
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.mail.reply import Stage, parse_reply
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.admission.content_scan import ScanAnswer
from drainer.policy.admission.identity import ScanContext
from drainer.policy.admission.routes import single_route
from drainer.policy.admission.selection import Choice, Selection, SendOrder
from drainer.policy.recipient.delivery import Delivery
from tests.support.scenarios.settlements import result, settled

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
SOURCE = "maildir:/spool"
SCAN = ScanContext(started=to_micros(NOW), acknowledges=True)
ROUTE = "127.0.0.1:25"
RULES = Admission(routes=single_route(ROUTE))
MAIL = RouteMail([SOURCE], ROUTE)


def message(n: int) -> Message:
    """Return a message to one recipient."""
    return Message(
        identity=f"{n:032x}",
        source=SOURCE,
        native_id=f"m{n}",
        queue="new",
        locator=f"new/m{n}",
        arrived=NOW,
        envelope=Envelope(recipients=(Recipient(forward_path=f"u{n}@example.org"),)),
    )


async def recorded(ledger: Ledger, n: int) -> Delivery:
    """Record a message and return its job."""
    return (await listed(ledger, n)).fresh[0]


async def listed(ledger: Ledger, n: int, most: int | None = None) -> RecordedBatch:
    """Record a message."""
    content = b"Subject: x\r\n\r\nbody\r\n"
    spooled = SpooledMessage(message=message(n), content=HeldContent(content))
    scanned = admit(spooled, survey([content], digest=True), RULES)
    return await ledger.messages.record(
        [listing_of(scanned, content)], SCAN, {ROUTE}, most
    )


def opened(delivery: Delivery, attempt: int) -> AttemptStart:
    """Return an attempt about to be made."""
    return AttemptStart(
        id=attempt, delivery=delivery, connection="127.0.0.1:25", started=NOW
    )


def closed(delivery: Delivery, attempt: int, reply: bytes) -> AttemptEnd:
    """Return an attempt that ended with a reply to the final dot."""
    one = result(parse_reply(reply), Stage.DOT, claimed=delivery.claimed[0])
    settlements = settled([one], now=NOW)
    return AttemptEnd(
        id=attempt, delivery=delivery, ended=NOW, stages=(), settlements=settlements
    )


def with_ledger(
    url_text: str, folder: Path, test: Callable[[Ledger], Awaitable[None]]
) -> None:
    """Run a test with a started ledger."""

    async def run() -> None:
        url = parse_url(url_text)
        ledger = Ledger(url, folder / "locks", unknown=timedelta(minutes=5))
        await ledger.start([ROUTE])
        try:
            await test(ledger)
        finally:
            await ledger.stop()

    asyncio.run(run())


def test_only_the_attempt_that_is_in_flight_settles_a_recipient(
    database_url: str, tmp_path: Path
) -> None:
    """Another attempt's opening and outcome are conflicts, and change nothing."""

    async def test(ledger: Ledger) -> None:
        delivery = await recorded(ledger, 1)
        await ledger.submit(opened(delivery, 11))
        with pytest.raises(StateConflict):
            await ledger.submit(opened(delivery, 12))
        with pytest.raises(StateConflict):
            await ledger.submit(closed(delivery, 12, b"450 4.2.0 later"))
        await ledger.submit(closed(delivery, 11, b"250 2.0.0 taken"))
        assert await ledger.messages.finished([delivery.message.id]) == {
            delivery.message.id: False
        }

    with_ledger(database_url, tmp_path, test)


def test_a_conflict_spoils_nobody_elses_part_of_the_commit(
    database_url: str, tmp_path: Path
) -> None:
    """What shares a transaction with a conflict is written all the same."""

    async def test(ledger: Ledger) -> None:
        one, two = await recorded(ledger, 1), await recorded(ledger, 2)
        await ledger.submit(opened(one, 21))
        ledger.expect(10)
        results = await asyncio.gather(
            ledger.submit(opened(one, 22)),
            ledger.submit(opened(two, 23)),
            return_exceptions=True,
        )
        assert isinstance(results[0], StateConflict)
        assert results[1] is None
        await ledger.submit(closed(two, 23, b"250 2.0.0 taken"))
        assert await ledger.messages.finished([two.message.id]) == {
            two.message.id: False
        }

    with_ledger(database_url, tmp_path, test)


def test_a_message_recorded_twice_keeps_its_history(
    database_url: str, tmp_path: Path
) -> None:
    """The second scan claims nothing: somebody has it in hand."""

    async def test(ledger: Ledger) -> None:
        delivery = await recorded(ledger, 1)
        content = b"Subject: x\r\n\r\nbody\r\n"
        spooled = SpooledMessage(message=message(1), content=HeldContent(content))
        scanned = admit(spooled, survey([content], digest=True), RULES)
        again = await ledger.messages.record(
            [listing_of(scanned, content)], SCAN, {ROUTE}
        )
        assert again.fresh == []
        assert again.finished == []
        assert await ledger.messages.claim(ClaimRequest(MAIL, datetime.now(UTC))) == []
        ledger.messages.free(delivery.seq)
        [freed] = await ledger.messages.claim(ClaimRequest(MAIL, datetime.now(UTC)))
        assert freed.message.id == delivery.message.id

    with_ledger(database_url, tmp_path, test)


def test_a_reply_of_any_octets_is_kept(database_url: str, tmp_path: Path) -> None:
    """NUL and bytes that are no UTF-8 stop no ledger."""

    async def test(ledger: Ledger) -> None:
        delivery = await recorded(ledger, 1)
        await ledger.submit(opened(delivery, 11))
        reply = b"450 4.2.0 nul \x00 \xff \xf0\x9f\x93\xac %s %(x)s"
        await ledger.submit(closed(delivery, 11, reply))
        assert await ledger.messages.finished([delivery.message.id]) == {}

    with_ledger(database_url, tmp_path, test)


def test_the_latest_answer_of_each_scanner_is_kept(
    database_url: str, tmp_path: Path
) -> None:
    """By content; a score may be absent, and a text may hold anything."""
    first = ScanAnswer(verdict="reject", score=15.5, symbols=("A", "ü\U0001f4ec"))
    second, other = ScanAnswer(score=-1e300), ScanAnswer(verdict="nul \0")

    async def test(ledger: Ledger) -> None:
        for scanner, answer in (("spam", first), ("av", other), ("spam", second)):
            if answer is second:
                kept = (await ledger.scans.answers("c" * 64))["spam"][1]
                assert kept == first
            ledger.scans.keep("c" * 64, scanner, answer)
        ledger.scans.keep("d" * 64, "spam", first)
        found = await ledger.scans.answers("c" * 64)
        assert {name: answer for name, (_, answer) in found.items()} == {
            "spam": second,
            "av": ScanAnswer(verdict="nul \ufffd"),
        }
        assert await ledger.scans.answers("e" * 64) == {}

    with_ledger(database_url, tmp_path, test)


def test_only_what_is_named_is_claimed_and_in_that_order(
    database_url: str, tmp_path: Path
) -> None:
    """Without those that another owner has, or that are not due."""

    async def test(ledger: Ledger) -> None:
        for n in range(4):
            assert (await listed(ledger, n, most=0)).fresh == []
        asking = DueQuery(
            mail=MAIL,
            choice=Choice(
                order=SendOrder.NEWEST, selection=Selection(domain="example.org")
            ),
            run=ledger.run_id,
            due=to_micros(datetime.now(UTC)),
            lifetime_began=0,
        )
        with LedgerReader(ledger.url) as report:
            found = await asyncio.to_thread(scan_due, report, asking)
        seqs = list(found.take(3, None))
        now = datetime.now(UTC)
        claimed = await ledger.messages.claim_these(seqs[::-1], now, ROUTE)
        assert [delivery.seq for delivery in claimed] == seqs[::-1]
        assert await ledger.messages.claim_these(seqs, now, ROUTE) == []
        rest = await ledger.messages.claim(ClaimRequest(MAIL, now))
        assert len(rest) == 1
        assert rest[0].seq not in seqs

    with_ledger(database_url, tmp_path, test)


def tables_digest() -> str:
    """Return a digest of what creates the tables, in databases of two kinds."""
    dialects = (sqlite.dialect(), postgresql.dialect())  # type: ignore[no-untyped-call]
    made: list[str] = []
    for dialect in dialects:
        for table in schema.metadata.sorted_tables:
            made.append(str(CreateTable(table).compile(dialect=dialect)))
            indexes = sorted(table.indexes, key=lambda index: str(index.name))
            made += [
                str(CreateIndex(each).compile(dialect=dialect)) for each in indexes
            ]
    return hashlib.sha256("\n".join(made).encode()).hexdigest()


def test_the_version_changes_with_the_tables() -> None:
    """A ledger of other tables under the same version would fail in mid-drain."""
    found = tables_digest()
    words = f"the tables have changed: raise schema.VERSION, and set DIGEST to {found}"
    assert found == schema.DIGEST, words
