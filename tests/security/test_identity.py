"""Messages that look alike are never merged, and none is dropped for another."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from drainer.ledger import schema
from drainer.ledger.codec import listing_of
from drainer.ledger.messages import (
    NewClaims,
    RecordOutcome,
    record,
    record_acknowledged,
)
from drainer.ledger.records import WriteStamp
from drainer.mail.content import HeldContent, survey
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.admission.identity import ScanContext
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.state import State
from tests.contract.test_sources import KITS, Kit
from tests.support.command.runner import Bench, Result, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.spools.store_kits import FROM, STORES, TOP, text

BODY = "y" * 70 + "\n"
LONG = BODY * 80
"""More than takes part in an identity."""


@pytest.fixture
def peer() -> Iterator[PeerThread]:
    """Give a primary that accepts everything."""
    with PeerThread() as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, peer: PeerThread) -> Bench:
    """Give a configuration and a ledger."""
    return Bench(tmp_path, peer.port)


def drain(bench: Bench, source: object, *more: str) -> Result:
    """Drain a source without a health check."""
    return bench.run("drain", str(source), "--json", "--no-check", *more)


def bodies(peer: PeerThread) -> Counter[bytes]:
    """Return how often each content was accepted, without what comes on top."""
    return Counter(
        (each.content or b"").partition(b"\r\n\r\n")[2] for each in peer.accepted
    )


def assert_accounted_for(bench: Bench, source: str, count: int) -> None:
    """Check that the ledger has so many messages, and the sum of promise P1."""
    facts = bench.run("status", source, "--json").json
    assert facts["messages"]["total"] == count
    assert facts["balanced"]
    assert facts["source"]["unknown_to_ledger"] == 0


# ---- every source: N entries in, N accounted for


@pytest.mark.parametrize("name", KITS)
@pytest.mark.parametrize("drops", [False, True], ids=["kept", "dropped"])
def test_entries_that_are_equal_are_sent_each(
    name: str, bench: Bench, peer: PeerThread, *, drops: bool
) -> None:
    """Whatever they have in common; a second drain sends none again."""
    kit: Kit = KITS[name]
    root = bench.root / "mail"
    for number in range(5):
        kit.write(root, b"2878E%d" % number, "same", "same")
    dropping = "move" if name == "maildir" else "remove"
    source = f"{name}:{root}?ack={dropping if drops else 'keep'}"
    assert drain(bench, source).code == 0
    assert len(peer.accepted) == 5
    if not drops:
        assert drain(bench, source).code == 0
        assert len(peer.accepted) == 5
        assert_accounted_for(bench, source, 5)


@pytest.mark.parametrize("name", STORES)
def test_entries_of_a_store_that_are_equal_are_sent_each(
    name: str, bench: Bench, peer: PeerThread
) -> None:
    """The same of an mbox, an archive and an export."""
    store, root = STORES[name], bench.root / f"mail{STORES[name].suffix}"
    store.write(root, [("same", "same")] * 5)
    source = store.open(root).url
    for _ in range(2):
        assert drain(bench, source).code == 0
        assert len(peer.accepted) == 5
    assert_accounted_for(bench, source, 5)


def test_what_the_ledger_has_not_recorded_does_not_balance(
    bench: Bench, peer: PeerThread
) -> None:
    """A twin that came in since counts as a message of its own."""
    kit, root = KITS["eml"], bench.root / "mail"
    kit.write(root, b"2878E0", "same", "same")
    assert drain(bench, f"eml:{root}").code == 0
    kit.write(root, b"2878E1", "same", "same")
    facts = bench.run("status", f"eml:{root}", "--json").json
    assert facts["source"]["messages"] == 2
    assert facts["source"]["unknown_to_ledger"] == 1
    assert not facts["balanced"]
    assert "1 of them not in the ledger" in bench.run("status", f"eml:{root}").stdout
    assert len(peer.accepted) == 1


@pytest.mark.parametrize("places", [("new", "cur"), ("new", ".Sub/new"), ("cur",) * 2])
@pytest.mark.parametrize(
    ("tails", "ack"),
    [("ab", "keep"), ("aa", "keep"), ("aa", "move"), ("aa", "remove")],
    ids=["differ late", "equal", "equal-move", "equal-remove"],
)
def test_files_of_one_base_name_are_told_apart(
    places: tuple[str, str],
    tails: str,
    ack: str,
    bench: Bench,
    peer: PeerThread,
) -> None:
    """Maildir: a base name in new and cur, in two folders, or with other flags."""
    root = bench.root / "mail"
    for folder in ("new", "cur", "tmp", ".Sub/new", ".Sub/cur"):
        (root / folder).mkdir(parents=True)
    for number, (place, tail) in enumerate(zip(places, tails, strict=True)):
        flags = f":2,{'FS'[number]}" if place == "cur" else ""
        for name in ("17.M1.h", "17.M2.h"):
            path = root / place / f"{name}{flags}"
            path.write_text(f"{TOP}{text(name, LONG + tail)}")
    source = f"maildir:{root}?folders=Sub&ack={ack}"
    for limit in ("1", "1", "9", "9"):
        assert drain(bench, source, "--limit", limit).code == 0
    assert sorted(each[-3:-2] for each in bodies(peer).elements()) == sorted(
        tail.encode() for tail in tails * 2
    )
    left = [path for path in root.rglob("17*") if path.is_file()]
    assert len(left) == (4 if ack == "keep" else 0)


@pytest.mark.parametrize("named", [False, True])
def test_rows_of_one_transaction_are_told_apart(
    bench: Bench, peer: PeerThread, *, named: bool
) -> None:
    """A row for each recipient with the same text and time, as outboxes write."""
    url = f"sqlite:///{bench.root}/spool.db"
    assert call("spool", "create", url).code == 0
    with closing(sqlite3.connect(bench.root / "spool.db")) as spool, spool:
        for number in range(6):
            add_row(spool, f"r{number}@example.org", f"n{number}" if named else None)
    for _ in range(2):
        assert drain(bench, url).code == 0
    sent = [to.forward_path for each in peer.accepted for to in each.recipients]
    assert sorted(sent) == [f"r{number}@example.org" for number in range(6)]
    with closing(sqlite3.connect(bench.root / "spool.db")) as spool:
        states = spool.execute("SELECT state FROM drainer_spool").fetchall()
    assert states == [("done",)] * 6


def add_row(spool: sqlite3.Connection, path: str, name: str | None) -> None:
    """Write a message as an application does."""
    added = spool.execute(
        "INSERT INTO drainer_spool (message_id, arrived, reverse_path, content)"
        " VALUES (?, 1795453619000000, 's@example.com', ?)",
        (name, b"Subject: order\r\n\r\nThank you.\r\n"),
    )
    add_recipient(spool, added.lastrowid, 0, path)


def add_recipient(
    spool: sqlite3.Connection, row: int | None, n: int, path: str
) -> None:
    """Write a recipient of a row."""
    spool.execute(
        "INSERT INTO drainer_spool_recipients (message, n, forward_path)"
        " VALUES (?, ?, ?)",
        (row, n, path),
    )


def test_a_recipient_that_is_added_later_is_sent_to(
    bench: Bench, peer: PeerThread
) -> None:
    """A row is not marked done on the strength of its other recipient."""
    url = f"sqlite:///{bench.root}/spool.db?ack=keep"
    assert call("spool", "create", f"sqlite:///{bench.root}/spool.db").code == 0
    with closing(sqlite3.connect(bench.root / "spool.db")) as spool, spool:
        add_row(spool, "first@example.org", None)
    assert drain(bench, url).code == 0
    with closing(sqlite3.connect(bench.root / "spool.db")) as spool, spool:
        add_recipient(spool, 1, 1, "second@example.org")
    assert drain(bench, url).code == 0
    sent = [to.forward_path for each in peer.accepted for to in each.recipients]
    assert sent == ["first@example.org", "second@example.org"]
    bench.assert_balanced()


@pytest.mark.parametrize("kind", ["eml", "maildir"])
def test_equal_messages_are_imported_each(
    kind: str, bench: Bench, peer: PeerThread
) -> None:
    """`spool import` copies each once, however often it runs."""
    kit, root = KITS[kind], bench.root / "mail"
    url = f"sqlite:///{bench.root}/spool.db"
    assert call("spool", "create", url).code == 0
    for number in range(3):
        kit.write(root, b"2878E%d" % number, "same", "same")
    for count in (3, 3, 4):
        kit.write(root, b"2878E%d" % (count - 1), "same", "same")
        assert call("spool", "import", f"{kind}:{root}", url).code == 0
    assert drain(bench, url).code == 0
    assert len(peer.accepted) == 4


def test_a_message_that_changed_behind_its_beginning_is_another(
    bench: Bench, peer: PeerThread
) -> None:
    """A file of the same name and beginning is not finished by the one before."""
    root = bench.root / "mail"
    for folder in ("new", "cur", "tmp"):
        (root / folder).mkdir(parents=True)
    source = f"maildir:{root}?ack=keep"
    for tail in "abc":
        (root / "new" / "17.M1.h").write_text(f"{TOP}{text('x', LONG + tail)}")
        assert drain(bench, source).code == 0
        assert drain(bench, source.replace("keep", "remove")).code == 0
        assert list((root / "new").iterdir()) == []
    assert len(bodies(peer)) == 3
    assert set(bodies(peer).values()) == {1}


# ---- a locator that does not name the message any more


def write_mbox(path: Path, subjects: list[str]) -> None:
    """Write an mbox; equal subjects make equal messages."""
    path.write_text("".join(f"{FROM}{TOP}{text(s, BODY)}\n" for s in subjects))


@pytest.mark.parametrize("left", [["a"], ["b", "a"], ["a", "b"]])
def test_of_two_equal_messages_the_first_may_go(
    left: list[str], bench: Bench, peer: PeerThread
) -> None:
    """The second does not look finished: it is held, and can be released."""
    path = bench.root / "mail"
    write_mbox(path, ["a", "a", *(s for s in left if s != "a")])
    assert drain(bench, f"mbox:{path}", "--limit", "1").code == 0
    assert len(peer.accepted) == 1
    write_mbox(path, left)
    result = drain(bench, f"mbox:{path}")
    assert result.code == 5
    held = [f for f in bench.run("list", "--json").lines if f["state"] == "held"]
    assert [fact["rule"] for fact in held] == ["local-ambiguous"]
    bench.assert_balanced()
    assert drain(bench, f"mbox:{path}").code == 5
    ids = [fact["id"] for fact in held]
    assert bench.run("release", *ids, "--reason", "looked at it").code == 0
    drain(bench, f"mbox:{path}")
    assert len(peer.accepted) == 1 + len(left)


def test_one_message_that_moves_is_still_known(bench: Bench, peer: PeerThread) -> None:
    """A rename within the spool, and a copy of the spool, send nothing twice."""
    kit, root = KITS["maildir"], bench.root / "mail"
    path = kit.write(root, b"17.M1.h", "x")
    assert drain(bench, f"maildir:{root}?ack=keep").code == 0
    kit.move_within(path)
    assert drain(bench, f"maildir:{root}?ack=keep").code == 0
    shutil.copytree(root, bench.root / "copy")
    assert drain(bench, f"maildir:{bench.root}/copy?ack=remove").code == 0
    assert len(peer.accepted) == 1
    assert list((bench.root / "copy" / "cur").iterdir()) == []


# ---- any order of events

LOCATORS = "abcd"
CONTENTS = st.sampled_from("xy")
PLACES = st.sampled_from(LOCATORS)
NOTHING = st.just("")
SCAN = st.tuples(st.just("scan"), NOTHING, st.sampled_from("123"))
DELIVER = st.tuples(st.just("deliver"), PLACES, NOTHING)
FILES = st.one_of(
    st.tuples(st.just("write"), PLACES, CONTENTS),
    st.tuples(st.just("write"), PLACES, CONTENTS),
    st.tuples(st.just("move"), PLACES, PLACES),
    st.tuples(st.just("remove"), PLACES, NOTHING),
    st.tuples(st.just("drop"), PLACES, NOTHING),
    DELIVER,
    SCAN,
    SCAN,
)
"""What happens to files with names."""
ONE_FILE = st.one_of(
    st.tuples(st.just("append"), NOTHING, CONTENTS),
    st.tuples(st.just("append"), NOTHING, CONTENTS),
    st.tuples(st.just("shift"), NOTHING, NOTHING),
    DELIVER,
    SCAN,
    SCAN,
)
"""What happens to an mbox, in which an offset names a message."""


class Drain:
    """A ledger and a spool whose files all have one identity."""

    def __init__(self, connection: sa.Connection, *, acknowledges: bool) -> None:
        """Start with nothing."""
        self.connection = connection
        self.acknowledges = acknowledges
        self.now = 1
        #: Locator -> what the file says, and which file it is.
        self.files: dict[str, tuple[str, int]] = {}
        self.written = 0
        self.listed: set[int] = set()
        self.sent: set[int] = set()

    def do(self, step: str, first: str, second: str) -> None:
        """Let one thing happen."""
        match step:
            case "write":
                self.written += 1
                self.files[first] = second, self.written
            case "move" if first in self.files:
                self.files[second] = self.files.pop(first)
            case "remove":
                self.files.pop(first, None)
            case "append" if len(self.files) < len(LOCATORS):
                self.do("write", LOCATORS[len(self.files)], second)
            case "shift":  # the first message is removed; what comes in is listed
                self.scan(3)
                kept = [self.files[each] for each in sorted(self.files)][1:]
                self.files = dict(zip(LOCATORS, kept, strict=False))
                self.scan(3)
            case "scan":
                self.scan(int(second))
            case "deliver":
                self.deliver(first)
            case "drop":
                self.drop(first)
            case _:  # there is nothing to move
                pass

    def scan(self, size: int) -> None:
        """List everything in parts of this size, as a drain does."""
        started = self.now = self.now + 1
        names = sorted(self.files)
        for part in (names[n : n + size] for n in range(0, len(names), size)):
            outcome = self.record(part, ScanContext(started, self.acknowledges))
            unsure = [part[each.index] for each in outcome.unsure]
            others = {q: m for u in outcome.unsure for q, m in u.others.items()}
            absent = {seq for seq, m in others.items() if not self.is_in_place(m)}
            if unsure:
                again = ScanContext(started, self.acknowledges, absent)
                assert not self.record(unsure, again).unsure
        self.listed |= {number for _, number in self.files.values()}
        for name in names:
            assert self.rows(name), "every file has a row of its own"

    def record(self, names: list[str], scan: ScanContext) -> RecordOutcome:
        """Record files; what looks finished must have been sent."""
        self.now += 1
        listings = [listing_of(self.scanned(name), None) for name in names]
        rows = [(listing.message, listing.recipients) for listing in listings]
        stamp = WriteStamp(owner="o", run="r", now=self.now)
        claim = NewClaims(frozenset([""]), None)
        outcome = record(self.connection, stamp, rows, scan, claim)
        for message in outcome.finished:
            text, number = self.files[message.locator]
            # One that was never listed cannot be told from one that moved here, nor
            # from one whose place it took when that moved here.
            alike = {n for said, n in self.files.values() if said == text}
            assert number in self.sent or not alike <= self.listed
            self.sent.add(number)
        return outcome

    def scanned(self, name: str) -> ScannedMessage:
        """Return a file as a scan lists it."""
        content = f"Subject: x\r\n\r\n{self.files[name][0]}\r\n".encode()
        message = Message(
            identity="0" * 32,
            source="maildir:/spool",
            native_id="x",
            queue="new",
            locator=name,
            arrived=datetime(2026, 11, 23, tzinfo=UTC),
            envelope=Envelope(recipients=(Recipient(forward_path="r@example.org"),)),
        )
        spooled = SpooledMessage(message=message, content=HeldContent(content))
        return admit(spooled, survey([content], digest=True), Admission())

    def is_in_place(self, message: Message) -> bool:
        """Whether a file is still where the ledger has it."""
        if message.locator not in self.files:
            return False
        facts = self.scanned(message.locator).facts
        return facts is not None and facts.sha256 == message.sha256

    def rows(self, name: str) -> list[sa.Row[Any]]:
        """Return what the ledger has of the file at a locator."""
        facts = self.scanned(name).facts
        assert facts is not None
        m, r = schema.messages.c, schema.recipients.c
        query = sa.select(m.seq, m.id, r.state).join(
            schema.recipients, r.message == m.seq
        )
        here = (m.locator == name, m.sha256 == facts.sha256)
        return list(self.connection.execute(query.where(*here)))

    def deliver(self, name: str) -> None:
        """Send what is pending at a locator, if the file is there."""
        for row in self.rows(name) if name in self.files else []:
            if row.state == State.PENDING:
                self.sent.add(self.files[name][1])
                r = schema.recipients.c
                self.connection.execute(
                    sa.update(schema.recipients)
                    .where(r.message == row.seq)
                    .values(state=State.DELIVERED.value, attempts=1)
                )

    def drop(self, name: str) -> None:
        """Acknowledge what was sent in this run at a locator."""
        for row in self.rows(name) if name in self.files else []:
            if row.state == State.DELIVERED and self.files[name][1] in self.sent:
                del self.files[name]
                stamp = WriteStamp(owner="o", run="r", now=self.now)
                record_acknowledged(self.connection, stamp, [row.id])
                return


@pytest.fixture(scope="module")
def connection() -> Iterator[sa.Connection]:
    """Give a ledger for many examples: making its tables takes longer than one."""
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def run_steps(
    connection: sa.Connection,
    steps: list[tuple[str, str, str]],
    *,
    acknowledges: bool,
) -> None:
    """Let all of it happen to an empty spool and ledger."""
    with connection.begin() as transaction:
        drain = Drain(connection, acknowledges=acknowledges)
        for step in steps:
            drain.do(*step)
        drain.scan(2)
        transaction.rollback()


@settings(max_examples=120, deadline=None)
@given(st.lists(FILES, min_size=8, max_size=25))
def test_no_file_is_finished_by_another(
    connection: sa.Connection, steps: list[tuple[str, str, str]]
) -> None:
    """Whatever is written, moved, replaced, sent and dropped between the scans."""
    run_steps(connection, steps, acknowledges=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(ONE_FILE, min_size=8, max_size=25))
def test_no_offset_is_finished_by_another(
    connection: sa.Connection, steps: list[tuple[str, str, str]]
) -> None:
    """Whatever is appended, sent and removed from the front between the scans."""
    run_steps(connection, steps, acknowledges=False)
