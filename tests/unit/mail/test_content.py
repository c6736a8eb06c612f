"""Content on its way to the wire: line ends, dots, bare newlines, facts."""

import hashlib
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.content import (
    HeldContent,
    crlf,
    dot_stuff,
    message_id_of,
    replace_bare_newlines,
    survey,
)

TEXT = st.binary(max_size=60) | st.text(alphabet="\r\n.a", max_size=60).map(str.encode)
CUTS = st.lists(st.integers(0, 60), max_size=6)


def chunks_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Divide bytes at these places."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# ---- line ends


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\r\nb", b"a\r\nb\r\n"),
        (b"a\rb\n", b"a\rb\r\n"),
        (b"a\r", b"a\r\r\n"),
        (b"\n", b"\r\n"),
    ],
)
def test_lf_becomes_crlf_and_the_last_line_is_completed(
    text: bytes, wire: bytes
) -> None:
    """A CR is part of a line end only before LF."""
    assert b"".join(crlf([text])) == wire


@given(TEXT, CUTS)
def test_line_ends_do_not_depend_on_chunks(text: bytes, cuts: Sequence[int]) -> None:
    """A line end that falls between two chunks is one line end."""
    whole = b"".join(crlf([text]))
    assert b"".join(crlf(chunks_of(text, cuts))) == whole
    assert not re.search(rb"(?<!\r)\n", whole)
    assert not whole or whole.endswith(b"\r\n")
    assert b"".join(crlf([whole])) == whole


# ---- dots


@given(TEXT, CUTS)
def test_dots_are_doubled_at_line_starts_only(text: bytes, cuts: Sequence[int]) -> None:
    """RFC 5321 4.5.2; taking one dot off each such line gives the content back."""
    stuffed = b"".join(dot_stuff(chunks_of(text, cuts)))
    assert stuffed == re.sub(rb"(\A|\r\n)\.", rb"\1..", text)
    assert re.sub(rb"(\A|\r\n)\.\.", rb"\1.", stuffed) == text


# ---- bare newlines


@given(TEXT, CUTS)
def test_bare_newlines_are_replaced_wherever_they_fall(
    text: bytes, cuts: Sequence[int]
) -> None:
    """Only CRLF is left of all CR and LF."""
    clean = b"".join(replace_bare_newlines(chunks_of(text, cuts)))
    assert clean == re.sub(rb"\r(?!\n)|(?<!\r)\n", b" ", text)
    assert survey([clean]).bare_newlines == 0


# ---- facts


@given(TEXT, CUTS)
def test_facts_do_not_depend_on_chunks(text: bytes, cuts: Sequence[int]) -> None:
    """One pass over any division of the content learns the same."""
    facts = survey(chunks_of(text, cuts), digest=True)
    assert facts == survey([text], digest=True)
    assert facts.size_bytes == len(text)
    assert facts.has_8bit == (not text.isascii())
    assert facts.bare_newlines == len(re.findall(rb"\r(?!\n)|(?<!\r)\n", text))
    assert facts.sha256 == hashlib.sha256(text).hexdigest()


@given(st.integers(1, 50))
def test_received_fields_are_counted_in_the_header_only(every: int) -> None:
    """Hops are Received fields, in any case, folded or not; the body has none."""
    head = b"Received: a\r\n\tfolded\r\nRECEIVED : b\r\nX-Received: c\r\n"
    text = head + b"\r\nReceived: body\r\n"
    pieces = [text[i : i + every] for i in range(0, len(text), every)]
    assert survey(pieces).hops == 2


def test_8bit_in_the_header_is_told_apart() -> None:
    """A header of 8-bit bytes and a body of them are two things."""
    assert survey([b"A: \xff\r\n\r\nb"]).header_8bit
    assert not survey([b"A: b\r\n\r\n\xff"]).header_8bit


# ---- Message-ID


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Message-ID: <a@b>\r\n\r\n", "<a@b>"),
        (b"Subject: x\nmessage-id:\n <a@b>\n\n", "<a@b>"),
        (b"Subject: x\r\n\r\nMessage-ID: <body@b>\r\n", ""),
        (b"\r\nMessage-ID: <body@b>\r\n\r\n", ""),
        (b"X-Message-ID: <a@b>\r\n\r\n", ""),
        (b"Message-ID: <\x1b[31m@b>\r\n\r\n", ""),
        (b"Message-ID: <\xff@b>\r\n\r\n", ""),
        (b"Message-ID: <" + b"x" * 1000 + b"@b>\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_message_id_is_read_from_the_header(head: bytes, expected: str) -> None:
    """Folded, in any case; what may not be shown counts as absent."""
    assert message_id_of(head) == expected


def test_a_held_content_is_one_piece() -> None:
    """It may be asked for again; an empty one has no piece."""
    held = HeldContent(b"x\r\n")
    assert held.data == b"x\r\n"
    assert list(held.chunks()) == list(held.chunks()) == [b"x\r\n"]
    assert list(HeldContent(b"").chunks()) == []


@given(TEXT, CUTS)
def test_empty_chunks_change_nothing(text: bytes, cuts: Sequence[int]) -> None:
    """A source may yield them."""
    pieces = [piece for chunk in chunks_of(text, cuts) for piece in (b"", chunk, b"")]
    assert b"".join(crlf(pieces)) == b"".join(crlf([text]))
    assert b"".join(dot_stuff(pieces)) == b"".join(dot_stuff([text]))
    assert survey(pieces) == survey([text])
