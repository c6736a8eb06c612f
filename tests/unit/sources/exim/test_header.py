"""Exim's -H and -J files, octet by octet."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.sources.exim.header import (
    EximRecipient,
    done_test,
    parse_header,
    parse_journal,
    parse_recipient,
)
from tests.support.spools.exim_files import ID, header_file

TREE = (
    b"YY d@example.org\nYN b@example.org\nNN a@example.org\n"
    b"NY e@example.org\nNN f g@example.org\n"
)


def test_every_part_is_read() -> None:
    """Id, sender, times, variables, recipients, header section."""
    header = parse_header(header_file(recipients=(b"a@b.org", b"c@d.org")))
    assert header.id == ID
    assert header.sender == b"s@example.com"
    assert (header.received, header.warnings) == (1795453619, 0)
    assert header.variables[b"helo_name"] == b"client.example.net"
    assert header.variables[b"received_time_usec"] == b".413160"
    assert b"received_protocol" not in header.variables
    assert header.recipients == [EximRecipient(b"a@b.org"), EximRecipient(b"c@d.org")]
    assert header.section == b"Subject: hi\n"


def test_an_id_of_either_length_is_read() -> None:
    """4.97 made it longer; both stand in one spool."""
    long_id = b"1rLVLq-00000000ADl-2VXp"
    assert parse_header(header_file(identifier=long_id)).id == long_id


@pytest.mark.parametrize(
    "line", [b"-helo_name x y", b"--helo_name x y", b"--(dsearch)helo_name x y"]
)
def test_marks_of_tainted_values_are_dropped(line: bytes) -> None:
    """How a value is marked depends on the version, not what it is."""
    header = parse_header(header_file(variables=(line,)))
    assert header.variables == {b"helo_name": b"x y"}


@pytest.mark.parametrize("name", [b"-aclc _a", b"--aclm 7", b"-acl 3", b"--(x)aclm _"])
def test_acl_variables_have_a_length(name: bytes) -> None:
    """What looks like the rest of the file inside one is its value."""
    value = b"one\n-N\nXX\n1\nfake@example.com\n\n005  X: y\n"
    lines = (b"%s %d" % (name, len(value)), value, b"-frozen 1")
    header = parse_header(header_file(variables=lines))
    assert header.variables == {b"frozen": b"1"}
    assert header.recipients == [EximRecipient(b"r@example.org")]


def test_the_tree_is_read_to_its_last_leaf() -> None:
    """Each line says which children it has; they follow, the left one first."""
    header = parse_header(header_file(tree=TREE))
    names = [address.partition(b"@")[0] for address in header.done]
    assert names == [b"d", b"b", b"a", b"e", b"f g"]
    assert len(header.recipients) == 1


def test_deleted_header_fields_are_left_out() -> None:
    """A star stands for what Exim has removed or rewritten."""
    fields = [
        (b"P", b"Received: x\n\ty\n"),
        (b"*", b"Return-Path: <x@y>\n"),
        (b"B", b"Bcc: z\n"),
        (b" ", b"X-Long: " + b"y" * 1500 + b"\n"),
    ]
    section = parse_header(header_file(fields=fields)).section
    assert section == b"Received: x\n\ty\nBcc: z\nX-Long: " + b"y" * 1500 + b"\n"


@pytest.mark.parametrize(
    ("line", "recipient"),
    [
        (b"a@b.org", EximRecipient(b"a@b.org")),
        (b"a@host9", EximRecipient(b"a@host9")),
        (b'"a b 3"@c.org', EximRecipient(b'"a b 3"@c.org')),
        (b"a@b.org 0", EximRecipient(b"a@b.org")),
        (b"a@b.org 4,0,-1,0", EximRecipient(b"a@b.org")),
        (
            b"good@example.org rfc822;Bob+2Btag@Example.ORG 28,12  0,-1#3",
            EximRecipient(b"good@example.org", b"rfc822;Bob+2Btag@Example.ORG", 12),
        ),
        (b"n@b.org  0,2  0,-1#3", EximRecipient(b"n@b.org", b"", 2)),
        (
            b"m@b.org  0,0 owner@c.org 11,0#3",
            EximRecipient(b"m@b.org", b"", 0, b"owner@c.org", is_child=True),
        ),
        (
            b'"x 1,2#3"@b.org owner@c.org 11,2#1',
            EximRecipient(b'"x 1,2#3"@b.org', errors_to=b"owner@c.org", is_child=True),
        ),
    ],
)
def test_a_recipient_is_read_from_the_right(
    line: bytes, recipient: EximRecipient
) -> None:
    """Every form that a version of Exim has written."""
    assert parse_recipient(line) == recipient


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"a\0@b",
        b"a@b 9,9#1",
        b"a@b x 2,0#1",
        b"a@b x 1,y#2",
        b"a@b 1#2",
        b"#3",
        b"#0",
        b" 0,-1#1",
        b"a@b  0,-2#1",
        b"a@b x 99999999999999,0#2",
    ],
)
def test_a_broken_recipient_is_damage(line: bytes) -> None:
    """A length that does not fit is not guessed at."""
    with pytest.raises(MessageUnreadable, match="corrupt"):
        parse_recipient(line)


DAMAGED = {
    "empty": b"",
    "no name": header_file().replace(b"-H\n", b"\n", 1),
    "no sender": header_file().replace(b"<s@example.com>", b"s@example.com"),
    "no time": header_file(times=b"x 0"),
    "no count of warnings": header_file(times=b"1795453619"),
    "a time beyond time": header_file(times=b"999999999999 0"),
    "digits without end": header_file(times=b"9" * 5000 + b" 0"),
    "a lying variable": header_file(variables=(b"-aclm x 99999", b"y")),
    "a variable without end": header_file(variables=(b"-aclm x 3", b"wxyz")),
    "no tree": header_file(tree=b""),
    "a tree without leaves": header_file(tree=b"YY a@b\nNN c@d\n"),
    "not a tree": header_file(tree=b"Y a@b\n"),
    "too many recipients": header_file().replace(b"\n1\n", b"\n999999999\n"),
    "a recipient too few": header_file().replace(b"\n1\n", b"\n2\n"),
    "a recipient too many": header_file().replace(b"\n1\n", b"\n0\n"),
    "a lying field": header_file().replace(b"012  ", b"013  "),
    "a short field": header_file().replace(b"012  ", b"011  "),
    "an empty field": header_file() + b"000  ",
    "no length": header_file() + b"Subject: x\n",
    "a NUL": header_file(fields=[(b" ", b"X: \0\n")]),
    "cut off": header_file()[:-3],
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named(data: bytes) -> None:
    """Nothing is guessed, and the reason is a text."""
    with pytest.raises(MessageUnreadable) as caught:
        parse_header(data)
    assert caught.value.code == "corrupt"
    assert len(caught.value.detail) > 10


def test_no_beginning_of_a_file_is_a_file() -> None:
    """Wherever it is cut off but behind a header field, that shows."""
    whole = header_file(tree=TREE, recipients=(b"a@b.org", b"n@b.org  0,2  0,-1#3"))
    for length in range(whole.index(b"012  ")):
        with pytest.raises(MessageUnreadable):
            parse_header(whole[:length])


@given(st.binary(max_size=300))
def test_any_octets_are_a_header_or_damage(data: bytes) -> None:
    """Nothing else is raised, wherever they stand."""
    sound = header_file(tree=TREE)
    for text in (data, sound[:40] + data, sound[:-30] + data, sound + data):
        with suppress(MessageUnreadable):
            parse_header(text)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_flipped_octet_raises_nothing_else(at: int, octets: bytes) -> None:
    """Nor in a file that was sound."""
    whole = header_file(tree=TREE, recipients=(b"n@b.org  0,2  0,-1#3",))
    with suppress(MessageUnreadable):
        parse_header(whole[:at] + octets + whole[at + len(octets) :])


@given(st.binary(max_size=200))
def test_any_octets_are_a_journal_or_damage(data: bytes) -> None:
    """One address a line, or a named problem."""
    with suppress(MessageUnreadable):
        assert b"\n".join([*parse_journal(data), b""]) == data


@pytest.mark.parametrize("data", [b"a@b", b"a@b\nc", b"\0\0\0\n", b"\0"])
def test_a_torn_journal_is_damage(data: bytes) -> None:
    """Its last line may mean somebody who has the message already."""
    with pytest.raises(MessageUnreadable, match="journal"):
        parse_journal(data)


def test_done_is_told_by_domain_in_any_case_and_the_exact_local_part() -> None:
    """As Exim writes it: Good2@Example.ORG becomes Good2@example.org."""
    is_done = done_test([b"Good2@example.org", b'"a@b"@example.org', b"|cmd"])
    assert is_done(b"Good2@Example.ORG")
    assert is_done(b'"a@b"@EXAMPLE.org')
    assert is_done(b"|cmd")
    assert not is_done(b"good2@example.org")
    assert not is_done(b"Good2@example.com")
