"""Files of a qmail queue, parsed as bytes; made by hand from its documentation."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Envelope, verp_sender
from drainer.mail.message import Problem
from drainer.sources.qmail.message import QmailRecords, explain, read

KINDS = ("info", "local", "remote", "todo")


def explained(prefix: str = "", **files: bytes) -> tuple[Envelope, Problem | None]:
    """Read some files of one message."""
    records = QmailRecords()
    for kind, data in files.items():
        read(kind, data, records)
    return explain(records, prefix)


def paths(envelope: Envelope) -> list[str]:
    """Return whom to send to."""
    return [each.forward_path for each in envelope.recipients]


@given(st.dictionaries(st.sampled_from(KINDS), st.binary()), st.text())
def test_arbitrary_bytes_are_refused_or_read(
    files: dict[str, bytes], prefix: str
) -> None:
    """Nothing but MessageUnreadable leaves the parser."""
    with suppress(MessageUnreadable, UnicodeEncodeError):
        explained(prefix, **files)


@given(st.binary(), st.binary())
def test_any_address_is_read_or_told(sender: bytes, recipient: bytes) -> None:
    """What no command can carry becomes a problem."""
    sender, recipient = sender.replace(b"\0", b""), recipient.replace(b"\0", b"")
    envelope, problem = explained(
        info=b"F%s\0" % sender, remote=b"T%s\0Tgood@x.example\0" % recipient
    )
    assert "good@x.example" in paths(envelope)
    assert problem is None or problem.code == "bad-address"


def test_marks_tell_what_is_left() -> None:
    """D was delivered or failed, T is to do; addresses are not quoted."""
    envelope, problem = explained(
        info=b"Fs@example.com\0", remote=b"Da@x.example\0Tb c@x.example\0Td@x.example\0"
    )
    assert problem is None
    assert paths(envelope) == ['"b c"@x.example', "d@x.example"]
    assert envelope.done == ("a@x.example",)
    assert envelope.reverse_path == "s@example.com"


def test_a_message_that_is_not_split_yet_is_read() -> None:
    """The todo file has it all."""
    envelope, problem = explained(todo=b"u1\0p2\0F\0Ta@x.example\0Tb@x.example\0")
    assert problem is None
    assert paths(envelope) == ["a@x.example", "b@x.example"]
    assert envelope.reverse_path == ""


@pytest.mark.parametrize(
    ("prefix", "stored", "path"),
    [
        ("alias-dom", b"alias-dom-joe@x.example", "joe@x.example"),
        ("", b"alias-dom-joe@x.example", ""),
        ("other", b"alias-dom-joe@x.example", ""),
    ],
)
def test_local_recipients_need_their_prefix_named(
    prefix: str, stored: bytes, path: str
) -> None:
    """The primary does not know the names that a virtual domain makes."""
    envelope, problem = explained(
        prefix, info=b"Fs@x.example\0", local=b"T%s\0" % stored
    )
    assert paths(envelope) == ([path] if path else [])
    assert (problem.code if problem else "") == ("" if path else "local-delivery")


def test_verp_is_expanded_as_qmail_does() -> None:
    """``list-@host-@[]`` becomes ``list-user=domain@host``."""
    envelope, problem = explained(
        info=b"Flist-@host.example-@[]\0", remote=b"Tjoe@x.example\0"
    )
    assert problem is None
    expanded = verp_sender(envelope.reverse_path, "joe@x.example", envelope.verp)
    assert expanded == "list-joe=x.example@host.example"


@pytest.mark.parametrize("sender", [b"", b"#@[]"])
def test_bounces_have_the_null_sender(sender: bytes) -> None:
    """Double bounces too."""
    envelope, _ = explained(info=b"F%s\0" % sender, remote=b"Ta@x.example\0")
    assert envelope.reverse_path == ""


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("info", b"Fs@x.example"),
        ("info", b"Ta@x.example\0"),
        ("info", b"Fa\0Fb\0"),
        ("remote", b"Ta@x.example\0Tb@x"),
        ("remote", b"Xa@x.example\0"),
        ("remote", b"\0"),
        ("todo", b"Da@x.example\0"),
    ],
)
def test_damage_is_corrupt(kind: str, data: bytes) -> None:
    """A record that was cut off might be a recipient."""
    with pytest.raises(MessageUnreadable, match="corrupt"):
        read(kind, data, QmailRecords())


def test_no_recipient_is_left() -> None:
    """Everybody is done."""
    _, problem = explained(info=b"Fs@x.example\0", remote=b"Da@x.example\0")
    assert problem is not None
    assert problem.code == "done-by-backup"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_is_damage(kind: str) -> None:
    """No file is made before its first record: nobody is done because it is empty."""
    with pytest.raises(MessageUnreadable, match="empty"):
        read(kind, b"", QmailRecords())


def test_a_todo_without_recipients_is_damage() -> None:
    """Nobody has sent anything of it yet, so nobody can be done."""
    with pytest.raises(MessageUnreadable, match="no recipient"):
        read("todo", b"u1\0p1\0Fs@example.com\0", QmailRecords())
