"""From Exim's spool files to a message: envelope, flags, problems, identity."""

from datetime import UTC, datetime
from functools import partial

import pytest

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Client, Recipient
from drainer.sources.common.queue_entry import IDENTITY_BYTES
from drainer.sources.common.walk import FilePlace
from drainer.sources.exim.header import parse_header
from drainer.sources.exim.message import EximEntry, EximFiles, describe
from tests.support.spools.exim_files import VARIABLES, header_file

STEM = "1xVXY1-0005y3-2M"
PLACE = FilePlace(("input", "1"), f"{STEM}-H")


def message_of(
    data: bytes, journal: tuple[bytes, ...] = (), *, locked: bool = False
) -> EximEntry:
    """Return the message of a -H file's bytes."""
    files = EximFiles(parse_header(data), journal=journal, is_locked=locked)
    return described(files)


def described(files: EximFiles) -> EximEntry:
    """Return the message of these files."""
    return describe(files, PLACE, partial(iter, ()))


def with_variables(*lines: bytes) -> EximEntry:
    """Return the message of a file with these lines."""
    return message_of(header_file(variables=(*VARIABLES, *lines)))


def code(message: EximEntry) -> str:
    """Return the problem's code, or ''."""
    return message.problem.code if message.problem else ""


def test_a_plain_message_is_described_whole() -> None:
    """Id, place, time with microseconds, envelope, client, header section."""
    fields = [(b"I", b"Message-ID: <a@b>\n"), (b" ", b"Subject: x\n")]
    message = message_of(header_file(fields=fields))
    assert message.native_id == STEM
    assert message.files == (PLACE,)
    assert message.queue == "input"
    assert message.arrived == datetime(2026, 11, 23, 17, 6, 59, 413160, tzinfo=UTC)
    assert message.envelope.reverse_path == "s@example.com"
    assert message.envelope.recipients == (Recipient(forward_path="r@example.org"),)
    assert message.client == Client(
        address="192.0.2.7", name="", helo="client.example.net"
    )
    assert message.head == b"Message-ID: <a@b>\r\nSubject: x\r\n"
    assert message.raw_bytes == len("Message-ID: <a@b>\r\nSubject: x\r\n\r\n")
    assert (message.problem, message.flags, message.login) == (None, (), "")


@pytest.mark.parametrize(
    ("stored", "address"),
    [
        (b"[192.0.2.1]:25", "192.0.2.1"),
        (b"[192.0.2.1].25", "192.0.2.1"),
        (b"[2001:db8::1]:0", "2001:db8::1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"[\x1b[31m", "\\x1b[31m"),
    ],
)
def test_the_clients_address_stands_in_brackets(stored: bytes, address: str) -> None:
    """With the port behind it in either form; nothing hostile gets through."""
    client = with_variables(b"--host_address " + stored).client
    assert client.address == address


def test_dsn_and_smtputf8_are_decoded() -> None:
    """Exim keeps ENVID and ORCPT as the client sent them: in xtext."""
    lines = (b"-dsn_envid a+2Bb", b"-dsn_ret 2", b"-smtputf8", b"--auth_id jane")
    recipients = (
        b"a@b.org rfc822;x+2By@z.org 18,28  0,-1#3",
        b"c@d.org utf-8;j\\x{E4}ne@z.org 21,2  0,-1#3",
    )
    message = message_of(header_file(variables=lines, recipients=recipients))
    envelope = message.envelope
    assert (envelope.envid, envelope.ret, envelope.smtputf8) == ("a+b", "HDRS", True)
    first, second = envelope.recipients
    assert first.orcpt == "rfc822;x+y@z.org"
    assert first.notify == ("SUCCESS", "FAILURE", "DELAY")
    assert (second.orcpt, second.notify) == ("utf-8;jäne@z.org", ("NEVER",))
    assert first.orcpt_xtext() == "rfc822;x+2By@z.org"
    assert message.login == "jane"


def test_tree_and_journal_together_say_who_is_done() -> None:
    """A crash leaves what was done in the journal alone."""
    recipients = (b"A@B.org", b"c@d.org", b'"e f"@g.org')
    data = header_file(recipients=recipients, tree=b"NN A@b.org\n")
    assert message_of(data).envelope.done == ("A@B.org",)
    message = message_of(data, (b'"e f"@g.org',))
    assert [each.forward_path for each in message.envelope.recipients] == ["c@d.org"]
    assert message.envelope.done == ("A@B.org", '"e f"@g.org')
    finished = message_of(data, (b'"e f"@g.org', b"c@D.org"))
    assert code(finished) == "done-by-backup"
    assert code(message_of(header_file(recipients=()))) == "done-by-backup"


def test_a_local_part_in_another_case_is_another_recipient() -> None:
    """Only domains have no case."""
    message = message_of(header_file(recipients=(b"A@b.org",)), (b"a@b.org",))
    assert [each.forward_path for each in message.envelope.recipients] == ["A@b.org"]


def test_a_child_that_is_done_is_shown_beside_its_pending_parent() -> None:
    """Its parent's mail has partly arrived; pipes and files are no addresses."""
    data = header_file(recipients=(b"alias@b.org",))
    message = message_of(data, (b"one@c.org", b"|/bin/cmd", b"two@c.org/remote_smtp"))
    assert message.envelope.done == ("one@c.org",)
    assert message.flags == ("children-done",)
    once = header_file(recipients=(b"two@c.org  0,0#1",))
    assert message_of(once, (b"one@c.org",)).flags == ()


def test_flags_are_shown() -> None:
    """They change nothing about what is sent."""
    lines = (b"-frozen 1795479205", b"-manual_thaw", b"-localerror")
    data = header_file(variables=lines, times=b"1795453619 2")
    message = message_of(data)
    assert message.flags == ("frozen", "thawed", "local-error", "delay-warned")
    assert message.problem is None


def test_a_message_for_nobody_is_held() -> None:
    """Exim -N pretends to deliver."""
    assert code(with_variables(b"-N")) == "never-deliver"


def test_another_sender_for_all_is_the_sender() -> None:
    """A router's errors_to; the null sender stays null."""
    recipients = (b"a@b.org owner@c.org 11,0#1", b"d@e.org owner@c.org 11,0#1")
    message = message_of(header_file(recipients=recipients))
    assert message.envelope.reverse_path == "owner@c.org"
    assert message.problem is None
    message = message_of(header_file(sender=b"", recipients=recipients))
    assert message.envelope.reverse_path == ""


def test_senders_that_differ_hold_the_message() -> None:
    """A transaction has one; what is done no longer counts."""
    recipients = (b"a@b.org owner@c.org 11,0#1", b"d@e.org")
    data = header_file(recipients=recipients)
    message = message_of(data)
    assert code(message) == "many-senders"
    assert message.envelope.reverse_path == "s@example.com"
    assert message_of(data, (b"d@e.org",)).envelope.reverse_path == "owner@c.org"
    message = message_of(data, (b"a@b.org",))
    assert (code(message), message.envelope.reverse_path) == ("", "s@example.com")


@pytest.mark.parametrize("stored", [b"nobody", b"a@d org", b"\xff@d.org", b"a@b_\r"])
def test_a_bad_address_holds_itself(stored: bytes) -> None:
    """What no command can carry has a fault; a bad sender holds the message."""
    message = message_of(header_file(recipients=(stored, b"ok@d.org")))
    assert code(message) == ""
    bad, good = message.envelope.recipients
    assert bad.fault
    assert (good.forward_path, good.fault) == ("ok@d.org", "")
    assert code(message_of(header_file(sender=stored))) == "bad-address"


def test_a_locked_message_is_told_apart_from_a_damaged_one() -> None:
    """The server at work explains whatever looks odd."""
    assert code(message_of(header_file(), locked=True)) == "locked"
    files = EximFiles(error=MessageUnreadable("corrupt", "x"), is_locked=True)
    assert code(described(files)) == "locked"


def identity_of(message: EximEntry) -> bytes:
    """Return what the identity is computed from."""
    assert message.head is not None
    return message.stable + message.head[:IDENTITY_BYTES]


def test_identity_stays_while_the_delivery_goes_on() -> None:
    """Exim rewrites -H: tree, warnings and flags are no part of it."""
    plain = message_of(header_file())
    later = header_file(
        tree=b"NN x@y\n",
        times=b"1795453619 3",
        variables=(*VARIABLES, b"-frozen 1"),
        fields=[(b"*", b"X: y\n"), (b" ", b"Subject: hi\n")],
    )
    assert identity_of(plain) == identity_of(message_of(later))


@pytest.mark.parametrize(
    "other",
    [
        header_file(sender=b"t@example.com"),
        header_file(identifier=b"1xVXY1-0005y3-2N"),
        header_file(times=b"1795453618 0"),
        header_file(variables=(b"-received_time_usec .413161",)),
        header_file(fields=[(b" ", b"Subject: ho\n")]),
    ],
)
def test_identity_differs_between_messages(other: bytes) -> None:
    """Each of its parts counts."""
    assert identity_of(message_of(header_file())) != identity_of(message_of(other))
