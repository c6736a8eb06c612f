"""Control files of sendmail, parsed as bytes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.sources.sendmail.message import parse
from tests.support.rows import every_row
from tests.support.spools.queue_kits import control_file

GOOD = control_file("Subject: x\n").encode("latin-1")


@given(st.binary())
def test_arbitrary_bytes_are_refused_or_read(data: bytes) -> None:
    """Nothing but MessageUnreadable leaves the parser."""
    with suppress(MessageUnreadable):
        parse(data)


@given(st.lists(st.binary(max_size=40)), st.integers(0, len(GOOD)))
def test_a_changed_control_file_is_refused_or_read(
    lines: list[bytes], cut: int
) -> None:
    """Foreign lines, and a file that ends anywhere."""
    for data in (GOOD[:cut], b"\n".join(lines) + b"\n" + GOOD, GOOD[:cut] + GOOD):
        with suppress(MessageUnreadable):
            parse(data)


@given(st.binary().filter(lambda data: b"\0" not in data))
def test_a_header_value_is_taken_as_it_is(value: bytes) -> None:
    """Octets of a field are not touched."""
    value = value.replace(b"\n", b" ")
    data = GOOD.replace(b"H??Subject: x\n", b"H??Subject: " + value + b"\n")
    assert parse(data).header == b"Subject: " + value + b"\n"


@every_row(range(len(GOOD) - 1))
def test_a_file_that_was_cut_off_is_never_taken_for_whole(cut: int) -> None:
    """A lost recipient would be lost mail."""
    with pytest.raises(MessageUnreadable):
        parse(GOOD[:cut])


@pytest.mark.parametrize(
    ("line", "notify"),
    [
        ("RPFD:<r@x.example>", ()),
        ("RPN:<r@x.example>", ("NEVER",)),
        ("RPNS:<r@x.example>", ("SUCCESS",)),
        ("RPNSFD:<r@x.example>", ("SUCCESS", "FAILURE", "DELAY")),
        ("RAPFD:<r@x.example>", ()),
        ("R:<r@x.example>", ()),
        ("R<r@x.example>", ()),
    ],
)
def test_notify_is_what_the_client_asked_for(
    line: str, notify: tuple[str, ...]
) -> None:
    """Without N the letters are sendmail's own defaults."""
    envelope = parse(control_file("A: b\n", f"{line}\n").encode("latin-1")).envelope
    (recipient,) = envelope.recipients
    assert recipient.forward_path == "r@x.example"
    assert recipient.notify == notify


def test_orcpt_belongs_to_the_next_recipient_only() -> None:
    """It is stored as xtext; the r line is for reports."""
    lines = "Qrfc822;A+2Bb@x.example\nrRFC822; a@x\nRPFD:<a@x.example>\n"
    lines += "RPFD:<b@x.example>\nQrfc822;+FF\nRPFD:<c@x.example>\n"
    envelope = parse(control_file("A: b\n", lines).encode("latin-1")).envelope
    assert [each.orcpt for each in envelope.recipients] == [
        "rfc822;A+b@x.example",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("macro", "address", "name"),
    [
        ("mail.example [192.0.2.1]", "192.0.2.1", "mail.example"),
        ("joe@mail.example [192.0.2.1] (may be forged)", "192.0.2.1", "mail.example"),
        ("[192.0.2.1]", "192.0.2.1", ""),
        ("v6.example [IPv6:2001:db8::1]", "2001:db8::1", "v6.example"),
        ("root@localhost", "", ""),
    ],
)
def test_the_client_is_read(macro: str, address: str, name: str) -> None:
    """From ``$_``, with ident or without."""
    client = parse(GOOD.replace(b"K0\n", f"K0\n$_{macro}\n".encode())).client
    assert (client.address, client.name) == (address, name)


@pytest.mark.parametrize(
    ("flags", "ret"), [("F", ""), ("Fd", "FULL"), ("Fdn", "HDRS"), ("Fn", "")]
)
def test_ret_needs_its_own_flag(flags: str, ret: str) -> None:
    """A body may be left out of reports for other reasons too."""
    assert parse(GOOD.replace(b"K0", flags.encode())).envelope.ret == ret


@pytest.mark.timeout(5)
def test_a_client_without_end_is_cut_off() -> None:
    """Its pattern takes the square of the time for text of this kind."""
    text = control_file("A: b\n").replace("K0\n", f"K0\n$_{'@' * 200_000}\n")
    assert parse(text.encode("latin-1")).envelope.recipients
