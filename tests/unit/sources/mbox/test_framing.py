"""Where the messages of an mbox begin and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.mbox import framing
from drainer.sources.mbox.framing import Spans
from drainer.sources.mbox.quotes import VARIANTS

FROM = b"From s@example.com  Mon Nov 23 17:06:59 2026\n"
ONE = FROM + b"Subject: 1\n\nbody\n\n"
TWO = b"From MAILER-DAEMON Tue Nov 24 17:06:59 2026\nReceived: 2\n\nbody\n\n"


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
        b"From " + b"a" * 2600 + b" Mon Nov 23 17:06:59 2026\n",
    ],
)
def test_a_line_without_a_plausible_date_separates_nothing(line: bytes) -> None:
    """A body may well contain a paragraph that begins with From."""
    whole = FROM + b"Subject: 1\n\nbody\n\n" + line + b"\n"
    assert bodies(whole) == [whole[:-1]]
    assert codes(whole) == [""]


def test_a_from_line_without_a_blank_line_holds_the_message() -> None:
    """A writer crashed there, or did not quote: both sides are held."""
    assert codes(ONE[:-1] + TWO + ONE) == ["corrupt", "corrupt", ""]
    assert bodies(ONE[:-1] + TWO) == [ONE[:-1], TWO[:-1]]
    assert codes(ONE[:-8] + TWO + ONE) == ["corrupt", "corrupt", ""]


@pytest.mark.parametrize("mark", [b"\0\0\0", b"\r", b"\n\0", b"bo"])
def test_a_separator_that_starts_no_line_holds_both_sides(mark: bytes) -> None:
    """A crash or a lost disk block is before it, or a file with bare CRs."""
    assert codes(ONE + mark + TWO) == ["corrupt", "corrupt"]
    assert codes(ONE[:-3] + mark + TWO) == ["corrupt", "corrupt"]


@pytest.mark.parametrize("variant", VARIANTS[:3])
def test_a_separator_that_is_not_understood_holds_both_sides(variant: str) -> None:
    """No letter leaves inside another one; what is beyond doubt goes on."""
    odd = b"From s@example.com on a Monday\nReceived: by x\n\nsecret\n\n"
    assert codes(TWO + odd + ONE, variant) == ["corrupt", "corrupt", ""]
    assert codes(odd + ONE, variant) == ["corrupt", ""]
    bare = b"From \nReceived: by x\n\nsecret\n\n"
    assert codes(bare + TWO + bare + bare, variant) == [""] * 4


def test_a_date_without_a_header_section_holds_both_sides() -> None:
    """It may be a line of the text before it, which would be cut off."""
    quoted = FROM + b"> hello\n\n"
    assert codes(ONE + quoted + TWO) == ["corrupt", "corrupt", ""]


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


def test_a_content_length_in_a_file_of_unknown_variant_may_raise_doubt() -> None:
    """It leads past the next separator: the file may be an mboxcl2.

    What is behind that separator may be text of a stranger, with an envelope in it.
    """
    data = with_length(b"text\n\n" + TWO + b"end\n") + ONE
    assert codes(data, "plain") == ["corrupt", "corrupt", ""]
    assert codes(with_length(b"body\n") + with_length(b"") + ONE, "plain") == [""] * 3
    assert codes(with_length(b"body\n", 3) + ONE, "plain") == ["", ""]


def test_a_length_that_leads_over_a_separator_counts_only_where_none_is_quoted() -> (
    None
):
    """A writer that quotes leaves none inside; the length lies."""
    data = with_length(b"text\n\n" + TWO + b"end\n") + ONE
    assert codes(data, "mboxcl2")[0] == ""
    assert codes(data, "mboxcl") == ["corrupt", "corrupt", ""]


def test_two_content_lengths_that_differ_hold_the_message() -> None:
    """One of them came with the mail."""
    data = with_length(b"body\n").replace(b"Con", b"Content-Length: 9\nCon") + ONE
    for variant in ("mboxcl", "mboxcl2"):
        assert codes(data, variant)[0] == "corrupt"


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
    for block in (3100, 4096, 5003):
        monkeypatch.setattr(framing, "BLOCK_BYTES", block)
        assert bodies(data) == expected
