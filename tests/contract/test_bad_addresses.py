"""One bad recipient holds itself: the same from every format of spool."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from drainer.mail.envelope import AddressError, parse_mailbox, wire_mailbox
from drainer.policy.admission.admit import Admission, admit
from drainer.sources.database.importer import SpoolDatabase, create_spool
from drainer.sources.eml.source import EmlDirectory
from drainer.sources.maildir.source import Maildir
from drainer.sources.mbox.source import Mbox
from drainer.sources.protocol import Source
from drainer.sources.registry import open_source
from tests.support.spools import exim_files, postfix_files
from tests.support.spools.queue_kits import (
    HEADER,
    HarakaKit,
    QmailKit,
    SendmailKit,
    address,
    control_file,
    haraka_file,
    lay_out_qmail,
    todo,
)

GOOD = [b"first@example.org", b"last@example.org"]
BAD = [
    b"no-domain",
    b"@example.org",
    b"r@",
    b"r@b..example.org",
    b"r@-b.example.org",
    b"r@b\xff.example.org",
    b"r\xffs@example.org",
    b"r@b c.example.org",
    b"r\x1b[31m@example.org",
    b"r@" + b"x" * 64 + b".org",
    b"r@" + "\u00fc".encode() * 60 + b".org",
    b"r@" + b".".join([b"x" * 60] * 5),
    b"r" * 600 + b"@example.org",
    b"r@[192.0.2.256]",
    b"r@[IPv6:2001:db8::g]",
    b"r@[2001:db8::1]",
    b"r@[example.org]",
]
CONTENT = f"{HEADER.format('x')}\nbody\n"
Write = Callable[[Path, Sequence[bytes]], Source]


def postfix(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a queue file."""
    records = [postfix_files.record("R", path) for path in paths]
    postfix_files.place(root, postfix_files.queue_file(envelope=records))
    return open_source(f"postfix:{root}", options={})


def exim(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a header file."""
    exim_files.place(root, exim_files.header_file(recipients=paths))
    return open_source(f"exim:{root}", options={})


def sendmail(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a control file."""
    kit = SendmailKit()
    path = kit.write(root, b"X", "x")
    lines = b"".join(b"RPFD:<%b>\n" % each for each in paths)
    text = control_file(HEADER.format("x"), "\n").encode("latin-1")
    path.write_bytes(text.replace(b"\n\nH?P?", b"\n" + lines + b"H?P?"))
    return kit.open(root)


def qmail(root: Path, paths: Sequence[bytes]) -> Source:
    """Write the file of remote recipients."""
    kit = QmailKit()
    kit.write(root, b"1", "x")
    remote = b"".join(b"T%b\0" % each for each in paths)
    lay_out_qmail(root, "1", {"remote": remote})
    return kit.open(root)


def haraka(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a queue file."""
    kit = HarakaKit()
    path = kit.write(root, b"X", "x")
    listed = []
    for each in paths:
        user, _, host = os.fsdecode(each).rpartition("@")
        listed.append(address(user or host, host if user else ""))
    data = haraka_file({**todo("X"), "rcpt_to": listed}, CONTENT.encode())
    path.write_bytes(data)
    return kit.open(root)


def fields(paths: Sequence[bytes]) -> bytes:
    """Return a message as a local delivery agent writes it."""
    lines = [b"Return-Path: <s@example.com>"]
    lines += [b"X-Original-To: <%b>" % each for each in paths]
    return b"\n".join([*lines, CONTENT.encode()])


def maildir(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a file into new."""
    for folder in ("tmp", "new", "cur"):
        (root / folder).mkdir(parents=True)
    (root / "new" / "1795453619.M1.mx2").write_bytes(fields(paths))
    return Maildir(root)


def mbox(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a file of one message."""
    root.write_bytes(
        b"From s@example.com Mon Nov 23 20:24:20 2026\n" + fields(paths) + b"\n"
    )
    return Mbox(root)


def eml(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a file with its envelope on top."""
    root.mkdir()
    (root / "1.eml").write_bytes(fields(paths))
    return EmlDirectory(root)


def sqlite(root: Path, paths: Sequence[bytes]) -> Source:
    """Write a row, and rows of recipients."""
    url = f"sqlite:///{root}"
    create_spool(url)
    with closing(sqlite3.connect(root)) as database, database:
        database.execute(
            "INSERT INTO drainer_spool (id, message_id, arrived, content, reverse_path)"
            " VALUES (1, 'x', 1795453785123456, ?, 's@example.com')",
            (CONTENT.encode(),),
        )
        database.executemany(
            "INSERT INTO drainer_spool_recipients (message, n, forward_path)"
            " VALUES (1, ?, CAST(? AS TEXT))",
            enumerate(paths),
        )
    return open_source(url, options={})


FORMATS = [postfix, exim, sendmail, qmail, haraka, maildir, mbox, eml, sqlite]


@pytest.mark.parametrize("write", FORMATS)
def test_one_bad_recipient_holds_itself(write: Write, tmp_path: Path) -> None:
    """It is held with what is wrong with it, and the others are sent."""
    paths = [GOOD[0], *BAD, GOOD[1]]
    (spooled,) = write(tmp_path / "spool", paths).scan()
    admitted = admit(spooled, None, Admission())
    assert admitted.problem is None
    recipients = spooled.message.envelope.recipients
    assert len(recipients) == len(paths)
    assert [each.forward_path for each in recipients if not each.fault] == [
        os.fsdecode(each) for each in GOOD
    ]
    for each, problem in zip(recipients, admitted.problems, strict=True):
        if not each.fault:
            assert problem is None
            assert parse_mailbox(each.forward_path) == each.forward_path
            continue
        assert problem is not None
        assert (problem.code, problem.detail) == ("bad-address", each.fault)
        assert each.fault.isprintable()
        assert each.forward_path.isprintable()
        assert len(each.forward_path) < 400
        with pytest.raises(AddressError):
            wire_mailbox(each.forward_path)


@pytest.mark.parametrize("write", [postfix, qmail, sqlite])
def test_line_ends_in_an_address_hold_that_recipient(
    write: Write, tmp_path: Path
) -> None:
    """Where a format can store them, no command gets them."""
    bad = [
        b"r\r\nRCPT TO:<x@y.org>@example.org",
        b"r@example.org\n",
        b"r\r@example.org",
    ]
    (spooled,) = write(tmp_path / "spool", [*bad, GOOD[0]]).scan()
    recipients = spooled.message.envelope.recipients
    assert ["control" in each.fault for each in recipients] == [True] * 3 + [False]


def test_a_bad_sender_holds_the_message(tmp_path: Path) -> None:
    """It must not become a bounce, or mail of another sender."""
    for sender in (b"r\xff@example.com", b"@example.com", b"r@[x]"):
        data = postfix_files.queue_file(sender=sender)
        postfix_files.place(tmp_path, data)
        (spooled,) = open_source(f"postfix:{tmp_path}", options={}).scan()
        problem = spooled.message.problem
        assert problem is not None
        assert problem.code == "bad-address"
        assert problem.detail.startswith("its sender: ")


def test_what_an_import_cannot_mark_as_bad_is_not_imported(tmp_path: Path) -> None:
    """A table of recipients would send to the text that stands for the address."""
    (spooled,) = postfix(tmp_path / "spool", [BAD[5], GOOD[0]]).scan()
    create_spool(f"sqlite:///{tmp_path}/db")
    database = SpoolDatabase(f"sqlite:///{tmp_path}/db")
    try:
        problem = database.add(spooled)
    finally:
        database.close()
    assert not isinstance(problem, bool)
    assert problem.code == "bad-address"
