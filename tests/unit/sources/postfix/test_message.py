"""From queue file records to a message: envelope, flags, problems, identity."""

import time
from datetime import UTC, datetime

import pytest

from drainer.mail.envelope import Client, Recipient
from drainer.sources.common.queue_entry import IDENTITY_BYTES
from drainer.sources.common.walk import FilePlace
from drainer.sources.postfix.layout import hash_directories
from drainer.sources.postfix.message import PostfixEntry, describe, parse_whole
from tests.support.spools.postfix_files import queue_file, record


def message_of(
    data: bytes,
    *,
    mode: int = 0o100700,
    queue: str = "deferred",
    log: bool = False,
    age: float = 0.0,
) -> PostfixEntry:
    """Return the message of a queue file's bytes."""
    parsed = parse_whole(data)
    parsed.mode, parsed.modified = mode, time.time() - age
    return describe(parsed, FilePlace((queue, "2"), "2878E21E2F1"), bounce_log=log)


def with_records(*envelope: bytes, sendopts: int = 0) -> PostfixEntry:
    """Return the message of a file with these envelope records."""
    return message_of(queue_file(envelope=envelope, sendopts=sendopts))


def attribute(text: str) -> bytes:
    """Return a named attribute record."""
    return record("A", text)


def test_a_plain_message_is_described_whole() -> None:
    """Id, place, time with microseconds, envelope, size on the wire, content."""
    text = b"Message-ID:\n <a@b>\nSubject: x\n\nbody\n"
    message = message_of(queue_file(text=text))
    assert message.native_id == "2878E21E2F1"
    assert message.files == (FilePlace(("deferred", "2"), "2878E21E2F1"),)
    assert message.queue == "deferred"
    assert message.arrived == datetime(2026, 11, 23, 17, 6, 59, 413160, tzinfo=UTC)
    assert message.envelope.reverse_path == "s@example.com"
    assert message.envelope.recipients == (Recipient(forward_path="r@example.org"),)
    assert message.raw_bytes == len(text.replace(b"\n", b"\r\n"))
    assert message.head == b"".join(message.chunks()) == text.replace(b"\n", b"\r\n")
    assert message.problem is None
    assert message.flags == ()


@pytest.mark.parametrize(
    ("stored", "wire"),
    [
        ("a@b@d.org", '"a@b"@d.org'),
        ('b ob"q@d.org', '"b ob\\"q"@d.org'),
        ("plain@d.org", "plain@d.org"),
        ("jörg@müller.example", "jörg@müller.example"),
    ],
)
def test_addresses_are_quoted_again(stored: str, wire: str) -> None:
    """Postfix stores addresses unquoted; the domain begins after the last @."""
    message = with_records(record("R", stored), record("D", stored))
    assert message.envelope.recipients[0].forward_path == wire
    assert message.envelope.done == (wire,)


@pytest.mark.parametrize(
    "stored", [b"a\nb@d.org", b"a\r@d.org", b"a\0@d.org", b"nobody", b"\xff@d.org"]
)
def test_a_bad_address_holds_itself(stored: bytes) -> None:
    """What no command can carry has a fault; the others stay as they are."""
    message = with_records(record("R", stored), record("R", "ok@d.org"))
    assert message.problem is None
    bad, good = message.envelope.recipients
    assert bad.fault
    assert (good.forward_path, good.fault) == ("ok@d.org", "")


def test_a_bad_sender_is_a_problem_and_not_the_null_sender() -> None:
    """An unusable reverse path must not turn a message into a bounce unnoticed."""
    message = message_of(queue_file(sender=b"a\nb@c.org"))
    assert message.problem is not None
    assert message.problem.code == "bad-address"


def test_an_empty_sender_is_the_null_sender() -> None:
    """S with nothing in it is the reverse path <>."""
    message = message_of(queue_file(sender=b""))
    assert message.envelope.reverse_path == ""
    assert message.problem is None


def test_a_forward_path_is_listed_once() -> None:
    """Two records for one address are one recipient, with the first's parameters."""
    message = with_records(
        attribute("notify_flags=1"), record("R", "r@d.org"), record("R", "r@d.org")
    )
    assert message.envelope.recipients == (
        Recipient(forward_path="r@d.org", notify=("NEVER",)),
    )


def test_dsn_parameters_are_read() -> None:
    """ENVID and ORCPT are stored decoded, RET and NOTIFY as numbers."""
    message = with_records(
        attribute("envelope_id=QQ+1=x y"),
        attribute("ret_flags=2"),
        attribute("dsn_orig_rcpt=rfc822;Bob+tag@d.org"),
        attribute("notify_flags=14"),
        record("O", "bob@d.org"),
        record("R", "r@d.org"),
    )
    envelope = message.envelope
    assert (envelope.envid, envelope.ret) == ("QQ+1=x y", "HDRS")
    assert envelope.recipients[0].orcpt_xtext() == "rfc822;Bob+2Btag@d.org"
    assert envelope.recipients[0].notify == ("SUCCESS", "FAILURE", "DELAY")


def test_no_orcpt_is_invented() -> None:
    """The O record is not what the client said in ORCPT."""
    message = with_records(record("O", "alias@d.org"), record("R", "r@d.org"))
    assert message.envelope.recipients[0].orcpt == ""


@pytest.mark.parametrize("value", ["rfc822;a\nb@d.org", "utf-8;\udcff", "x" * 600])
def test_a_dsn_parameter_that_may_not_be_sent_is_dropped(value: str) -> None:
    """Controls, bad UTF-8 and endless values never reach a command."""
    text = f"dsn_orig_rcpt={value}".encode(errors="surrogateescape")
    message = with_records(record("A", text), record("R", "r@d.org"))
    assert message.envelope.recipients[0].orcpt == ""


def test_a_redirect_replaces_every_recipient() -> None:
    """Sending to the original ones would reach people whom the policy diverted."""
    message = with_records(
        record(">", "trap@d.org"), record("R", "one@d.org"), record("R", "two@d.org")
    )
    assert message.envelope.recipients == (
        Recipient(forward_path="trap@d.org", orcpt="rfc822;one@d.org"),
    )
    assert message.flags == ("redirect",)


def test_a_content_filter_is_due_first() -> None:
    """L in the envelope names a filter that has not seen the message."""
    message = with_records(record("L", "smtp:[127.0.0.1]:25"), record("R", "r@d.org"))
    assert message.problem is not None
    assert (message.problem.code, message.problem.releasable) == ("filter-due", True)
    assert message.flags == ("filter",)


@pytest.mark.parametrize("flags", [256, 512, 1024 | 512])
def test_a_probe_is_never_replayed(flags: int) -> None:
    """Address verification leaves queue files that are no mail."""
    message = with_records(attribute(f"trace_flags={flags}"), record("R", "r@d.org"))
    assert message.problem is not None
    assert message.problem.code == "probe"


def test_requiretls_is_a_problem() -> None:
    """Bit 5 of the sendopts: the sender forbids delivery without it (RFC 8689)."""
    message = with_records(record("R", "r@d.org"), sendopts=32)
    assert message.problem is not None
    assert message.problem.code == "requires-tls"


def test_smtputf8_is_what_the_client_asked_for() -> None:
    """Bit 0 of the sendopts; the bits about UTF-8 found do not count."""
    assert with_records(record("R", "r@d.org"), sendopts=1).envelope.smtputf8
    assert not with_records(record("R", "r@d.org"), sendopts=2 | 4).envelope.smtputf8


def test_a_message_without_pending_recipients_is_done() -> None:
    """Nothing is left to send; the done ones are named."""
    message = with_records(record("D", "r@d.org"), record("/", "c@d.org"))
    assert message.problem is not None
    assert message.problem.code == "done-by-backup"
    assert message.envelope.done == ("r@d.org",)


@pytest.mark.parametrize(
    ("queue", "mode", "age", "code"),
    [
        ("incoming", 0o600, 10, "incomplete"),
        ("incoming", 0o644, 10, "incomplete"),
        ("deferred", 0o400, 10, "marked-corrupt"),
        ("incoming", 0o400, 7200, "marked-corrupt"),
    ],
)
def test_the_mode_tells_what_postfix_does_with_a_file(
    queue: str, mode: int, age: float, code: str
) -> None:
    """A young one in incoming may still be written; 0400 was marked as corrupt."""
    found = message_of(queue_file(), mode=0o100000 | mode, queue=queue, age=age)
    assert found.problem is not None
    assert found.problem.code == code


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o740, 0o755])
@pytest.mark.parametrize(("queue", "age"), [("deferred", 0), ("incoming", 7200)])
def test_a_complete_file_that_lost_its_mode_is_read(
    queue: str, mode: int, age: float
) -> None:
    """Copies lose modes; its size and its end show that it is complete."""
    found = message_of(queue_file(), mode=0o100000 | mode, queue=queue, age=age)
    assert found.problem is None


def test_a_file_without_its_end_is_incomplete_whatever_its_mode() -> None:
    """The mode explains what the structure shows."""
    cut = queue_file()[:-20]
    found = message_of(cut, mode=0o100644)
    assert found.problem is not None
    assert found.problem.code == "incomplete"


def test_flags_tell_what_postfix_had_in_mind() -> None:
    """Hold, forced expiry, a sent delay warning, a pending report."""
    data = queue_file(envelope=[record("W", f"{-1:15d}"), record("R", "r@d.org")])
    message = message_of(data, mode=0o100710, queue="hold", log=True)
    assert message.flags == (
        "hold",
        "forced-expire",
        "delay-warned",
        "undelivered-report",
    )


def test_the_original_client_counts_before_the_last_hop() -> None:
    """log_client_* beats client_*; the IPv6 prefix goes, unknown means nothing."""
    message = with_records(
        attribute("client_name=filter"),
        attribute("client_address=127.0.0.1"),
        attribute("log_client_name=unknown"),
        attribute("log_client_address=IPv6:2001:db8::1"),
        attribute("helo_name=there"),
        attribute("sasl_username=bob"),
        record("R", "r@d.org"),
    )
    assert message.client == Client(address="2001:db8::1", name="", helo="there")
    assert message.login == "bob"


def test_body_and_verp_are_read() -> None:
    """BODY= is given only when the backup knows it."""
    verp = record("V", "+=")
    message = with_records(attribute("encoding=8bit"), verp, record("R", "r@d.org"))
    assert (message.envelope.body, message.envelope.verp) == ("8bit", "+=")
    assert with_records(record("R", "r@d.org")).envelope.body == ""


def identity_of(message: PostfixEntry) -> bytes:
    """Return what the identity is computed from."""
    assert message.head is not None
    return message.stable + message.head[:IDENTITY_BYTES]


def test_the_identity_is_time_sender_and_beginning() -> None:
    """Recipients become done and files are renamed: the message stays the same."""
    base = identity_of(message_of(queue_file()))
    done = queue_file(envelope=[record("D", "r@example.org")])
    later = queue_file().replace(b"413160", b"413161")
    assert identity_of(message_of(done)) == base
    assert identity_of(message_of(queue_file(), mode=0o100600, queue="hold")) == base
    for other in (
        queue_file(sender=b"other@example.com"),
        queue_file(text=b"Subject: ho\n\nbody\n"),
        later,
    ):
        assert identity_of(message_of(other)) != base


@pytest.mark.parametrize(
    ("queue_id", "directory"),
    [("2878E21E2F1", "2"), ("4jYC284h3xzJjlk", "A"), ("", "_")],
)
def test_hash_directories_follow_the_id(queue_id: str, directory: str) -> None:
    """Short ids by their first character, long ones by their microseconds."""
    assert list(hash_directories(queue_id))[:2] == [(), (directory,)]
