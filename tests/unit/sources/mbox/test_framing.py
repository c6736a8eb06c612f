"""Where the messages of an mbox begin and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.mbox import framing
from drainer.sources.mbox.framing import (
    VARIANTS,
    Spans,
    arrived,
    identity,
    reader_state,
)

FROM = b"From s@example.com  Mon Nov 23 17:06:59 2026\n"
ONE = FROM + b"Subject: 1\n\nbody\n\n"
TWO = b"From MAILER-DAEMON Tue Nov 24 17:06:59 2026\nSubject: 2\n\nbody\n\n"


def spans_of(data: bytes, variant: str = "mboxrd") -> Spans:
    """Return the messages of an mbox in memory."""
    return Spans(lambda at, length: data[at : at + length], len(data), variant)


def bodies(data: bytes, variant: str = "mboxrd") -> list[bytes]:
    """Return the messages with their From_ lines, without the blank lines."""
    spans = spans_of(data, variant)
    return [data[span.start : span.content_end] for span in spans]


def codes(data: bytes, variant: str = "mboxrd") -> list[str]:
    """Return what is wrong with each message."""
    return [span.code for span in spans_of(data, variant)]


# ---- where messages begin and end


def test_messages_end_at_a_blank_line_before_the_next_from_line() -> None:
    """The blank line is not part of either."""
    assert bodies(ONE + TWO) == [ONE[:-1], TWO[:-1]]
    assert codes(ONE + TWO) == ["", ""]
    wire = (ONE + TWO).replace(b"\n", b"\r\n")
    assert bodies(wire) == [
        ONE[:-1].replace(b"\n", b"\r\n"),
        TWO[:-1].replace(b"\n", b"\r\n"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"From here on it is a sentence\n",
        b"From a@b Mon\n",
        b"From a@b Xyz Nov 23 17:06:59 2026\n",
        b"From a@b Mon Nov 23 17:06 26\n",
        b">From a@b Mon Nov 23 17:06:59 2026\n",
        b"from a@b Mon Nov 23 17:06:59 2026\n",
        b" From a@b Mon Nov 23 17:06:59 2026\n",
        b"From a@b Mon Nov 23 17:06:59 2026" + b"x" * 500 + b"\n",
        b"From " + b"a" * 600 + b" Mon Nov 23 17:06:59 2026\n",
    ],
)
def test_a_line_without_a_plausible_date_separates_nothing(line: bytes) -> None:
    """A body may well contain a paragraph that begins with From."""
    whole = FROM + b"Subject: 1\n\nbody\n\n" + line + b"\n"
    assert bodies(whole) == [whole[:-1]]
    assert codes(whole) == [""]


@pytest.mark.parametrize(
    "line",
    [
        b"From a@b Mon Nov 23 17:06:59 2026\n",
        b"From a@b  Mon Nov  3 17:06:59 2026\n",
        b"From a@b Mon Nov 23 17:06 2026\n",
        b"From a@b Mon Nov 23 17:06:59 CET 2026\n",
        b"From a@b Mon Nov 23 17:06:59 2026 +0100\n",
        b"From a@b Mon Nov 23 17:06:59 +0100 2026\n",
        b"From a@b Mon Nov 23 17:06:59 2026 remote from uucp\n",
        b'From "a b"@c Mon Nov 23 17:06:59 2026\r\n',
        b"From - Mon Nov 23 17:06:59 2026\n",
    ],
)
def test_a_line_with_a_date_in_one_of_the_usual_forms_separates(line: bytes) -> None:
    """Programs differ in blanks, seconds and zones."""
    assert bodies(ONE + line + b"X: y\n\n") == [ONE[:-1], line + b"X: y\n"]
    assert arrived(line) is not None


def test_a_from_line_without_a_blank_line_holds_the_message() -> None:
    """A writer crashed there, or did not quote: nobody can tell, nothing is split."""
    assert codes(ONE[:-1] + TWO + ONE) == ["corrupt", ""]
    assert codes(ONE[:-1] + TWO, "mboxcl2") == ["corrupt"]


def test_a_file_that_ends_early_has_an_incomplete_message() -> None:
    """Every writer ends a message with a blank line."""
    for length in range(len(FROM), len(TWO) - 1):
        assert codes(ONE + TWO[:length])[-1] == "incomplete"
    assert codes(ONE + TWO) == ["", ""]


def test_what_stands_before_the_first_from_line_is_listed() -> None:
    """A file whose beginning is lost still gives the rest."""
    assert codes(b"lost\n\n" + ONE) == ["corrupt", ""]
    assert codes(b"\n\r\n" + ONE) == [""]
    assert codes(b"no mbox at all") == ["corrupt"]
    assert codes(b"") == codes(b"\n\n") == []


# ---- Content-Length


def with_length(body: bytes, length: int | None = None) -> bytes:
    """Return a message that names its length."""
    size = len(body) if length is None else length
    return FROM + b"Content-Length: %d\n\n" % size + body + b"\n"


def test_a_content_length_that_leads_to_a_from_line_counts() -> None:
    """So that nothing has to be quoted, nor to end in a line end."""
    inside = b"text\n\n" + TWO + b"no end of line"
    data = with_length(inside) + ONE.replace(b"\n\n", b"\nContent-Length: 5\n\n", 1)
    first, second = bodies(data, "mboxcl2")
    assert first.endswith(b"\n\n" + inside)
    assert second.endswith(b"body\n")
    assert codes(data, "mboxcl2") == ["", ""]


@pytest.mark.parametrize("length", [0, 4, 7, 10**14])
def test_a_content_length_that_leads_elsewhere_holds_the_message(length: int) -> None:
    """It lies: the message ends where a From_ line says so, and is held."""
    data = with_length(b"body\n", length) + ONE
    assert codes(data, "mboxcl")[0] == "corrupt"
    assert bodies(data, "mboxcl")[1] == ONE[:-1]
    assert codes(data, "mboxrd") == ["", ""]


def test_without_a_content_length_only_a_quoting_variant_is_sure() -> None:
    """mboxcl2 quotes nothing, so that its bodies may contain From_ lines."""
    assert codes(ONE, "mboxcl") == [""]
    assert codes(ONE, "mboxcl2") == ["corrupt"]


# ---- any file


PARTS = [b"From ", FROM, b"\n", b"\r\n", b"a", b"Content-Length: 5\n", b">", ONE, TWO]
FILES = st.lists(st.sampled_from(PARTS), max_size=20).map(b"".join)


@given(
    st.binary(max_size=300) | FILES,
    st.sampled_from(VARIANTS),
    st.integers(2100, 2800),
)
def test_any_octets_are_covered_without_gap_or_overlap(
    data: bytes, variant: str, block: int
) -> None:
    """Every octet belongs to one message, whatever the size of a block."""
    whole = list(spans_of(data, variant))
    before = framing.BLOCK_BYTES
    try:
        framing.BLOCK_BYTES = block
        assert list(spans_of(data, variant)) == whole
    finally:
        framing.BLOCK_BYTES = before
    position = len(data) - len(data.lstrip(b"\r\n")) if whole else len(data)
    for span in whole:
        assert span.start == position
        assert span.start <= span.content_end <= span.end
        position = span.end
    assert position == len(data)


def test_blocks_do_not_hide_a_from_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block ends, the same messages are found."""
    data = b"".join(ONE[:-6] + b"y" * n + b"\n\n" + TWO for n in range(0, 3000, 37))
    expected = bodies(data)
    assert len(expected) == 2 * len(range(0, 3000, 37))
    for block in (2500, 3001, 4096):
        monkeypatch.setattr(framing, "BLOCK_BYTES", block)
        assert bodies(data) == expected


# ---- dates


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (b"Mon Nov 23 17:06:59 UTC 2026", "2026-11-23T17:06:59+00:00"),
        (b"Mon Nov 23 17:06:59 2026 +0100", "2026-11-23T16:06:59+00:00"),
        (b"Mon Nov 23 17:06 2026 -0230", "2026-11-23T19:36:00+00:00"),
        (b"Mon Feb 31 17:06:59 2026", None),
        (b"Mon Nov 23 99:06:59 2026", None),
        (b"Mon Jan  1 00:00:00 0001 +2300", None),
    ],
)
def test_the_date_of_a_from_line(date: bytes, expected: str | None) -> None:
    """With a zone it is exact; one that is no date is none."""
    found = arrived(b"From a@b " + date + b"\n")
    assert (found and found.isoformat()) == expected


# ---- what readers noted


def test_fields_of_readers_are_found_with_their_flags() -> None:
    """In the header section only, folded or not."""
    head = b"A: b\nStatus: RO\nX-Status: AF\n T\nX-UID: 7\nB: c\n\nStatus: body\n"
    state = reader_state(head)
    left = bytearray(head)
    for start, end in reversed(state.ranges):
        del left[start:end]
    assert bytes(left) == b"A: b\nB: c\n\nStatus: body\n"
    assert state.flags == ("seen", "replied", "flagged", "draft")


def test_a_content_length_belongs_to_the_mbox_only_where_it_has_them() -> None:
    """Elsewhere a client wrote it."""
    head = b"Content-Length: 5\nA: b\n\nbody\n"
    assert reader_state(head).ranges == ()
    assert reader_state(head, has_lengths=True).ranges == ((0, 18),)


@given(st.binary(max_size=200))
def test_reading_any_header_raises_nothing(head: bytes) -> None:
    """Ranges are in order and inside."""
    ranges = [each for pair in reader_state(head).ranges for each in pair]
    assert ranges == sorted(ranges)
    assert all(0 <= each <= len(head) for each in ranges)
    assert len(identity(head, head)) == 32
