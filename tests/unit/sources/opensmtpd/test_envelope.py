"""Envelope files of OpenSMTPD, parsed as bytes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.sources.opensmtpd.envelope import EnvelopeFile, parse
from tests.support.spools.queue_kits import ENVELOPE


def parsed(old: str = "", new: str = "") -> EnvelopeFile:
    """Parse an envelope in which something was replaced."""
    assert old in ENVELOPE
    text = ENVELOPE.replace(old, new) if old else ENVELOPE + new
    return parse(text.encode("utf-8", "surrogateescape"))


@given(st.binary())
def test_arbitrary_bytes_are_refused_or_read(data: bytes) -> None:
    """Nothing but MessageUnreadable leaves the parser."""
    for each in (data, data + b"\n", ENVELOPE.encode() + data + b"\n"):
        with suppress(MessageUnreadable):
            parse(each)


@given(st.sampled_from(ENVELOPE.splitlines()), st.binary())
def test_any_value_may_stand_anywhere(line: str, value: bytes) -> None:
    """Values are not trusted."""
    key = line.partition(":")[0].encode()
    changed = key + b": " + value.replace(b"\n", b"")
    with suppress(MessageUnreadable):
        parse(ENVELOPE.encode().replace(line.encode(), changed))


@pytest.mark.parametrize("lines", range(12))
def test_a_cut_envelope_is_not_read(lines: int) -> None:
    """Not even at the end of a line, as long as what matters is missing."""
    text = "".join(ENVELOPE.splitlines(keepends=True)[:lines])
    with pytest.raises(MessageUnreadable):
        parse(text.encode())


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("type: mta", "type: bounce", "bounce-due"),
        ("type: mta", "type: mda", "local-delivery"),
        ("sender: s@example.com", "sender: s@", "bad-address"),
        ("sender: s@example.com", "sender: s\udcff\x1b@x", "bad-address"),
    ],
)
def test_what_is_not_sent_as_it_stands(old: str, new: str, code: str) -> None:
    """A problem names it."""
    problem = parsed(old, new).problem
    assert problem is not None
    assert problem.code == code
    assert problem.detail.isprintable()


@pytest.mark.parametrize("path", ["r@", "r\udcff\x1b@x"])
def test_a_bad_recipient_has_a_fault(path: str) -> None:
    """It is its message's only one, and is held by name."""
    found = parsed("dest: r@example.org", f"dest: {path}")
    assert found.problem is None
    (recipient,) = found.envelope.recipients
    assert recipient.fault.isprintable()
    assert recipient.fault


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "incomplete"),
        (b"\x1f\x8b\x08\0\0", "compressed"),
        (b"\x01" + b"x" * 60, "compressed"),
        (ENVELOPE.encode()[:-1], "corrupt"),
        (ENVELOPE.replace("version: 3", "version: 4").encode(), "corrupt"),
        (ENVELOPE.replace("type: mta", "type: x").encode(), "corrupt"),
        (ENVELOPE.replace("ctime: ", "ctime: -").encode(), "corrupt"),
    ],
)
def test_damage_has_a_name(data: bytes, code: str) -> None:
    """Compressed and encrypted queues too."""
    with pytest.raises(MessageUnreadable) as caught:
        parse(data)
    assert caught.value.code == code


def test_the_expanded_address_is_sent_to() -> None:
    """As OpenSMTPD does; the null sender is an at sign."""
    envelope = parsed("dest: r@example.org", "dest: other@example.org").envelope
    assert [each.forward_path for each in envelope.recipients] == ["other@example.org"]
    assert parsed("sender: s@example.com", "sender: @").envelope.reverse_path == ""


@pytest.mark.parametrize(
    ("flags", "notify"),
    [
        ("0", ()),
        ("8", ("NEVER",)),
        ("7", ("SUCCESS", "FAILURE", "DELAY")),
        ("x", ()),
        ("", ()),
    ],
)
def test_notify_is_a_set_of_bits(flags: str, notify: tuple[str, ...]) -> None:
    """1 SUCCESS, 2 FAILURE, 4 DELAY, 8 NEVER."""
    (found,) = parsed("dsn-notify: 0", f"dsn-notify: {flags}").envelope.recipients
    assert found.notify == notify


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [("192.0.2.1", "192.0.2.1"), ("[2001:db8::1]", "2001:db8::1"), ("local", "")],
)
def test_the_client_is_read(sockaddr: str, address: str) -> None:
    """IPv6 stands in brackets."""
    found = parsed("sockaddr: 127.0.0.1", f"sockaddr: {sockaddr}")
    assert found.client.address == address
    assert found.client.helo == "mail.example.com"
