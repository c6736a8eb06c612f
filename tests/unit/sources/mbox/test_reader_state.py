"""What readers noted in an mbox."""

from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.mbox.framing import identity
from drainer.sources.mbox.reader_state import reader_state


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


def test_fields_of_thunderbird_count_on_top_of_a_message() -> None:
    """Bit 8 of X-Mozilla-Status is a deleted message; a client may send such fields."""
    top = b"X-Mozilla-Status: 0009\nX-Mozilla-Status2: 00000000\nX-Account-Key: a\n"
    rest = b"Received: x\nX-Mozilla-Status: 0000\n\nbody\n"
    state = reader_state(top + rest)
    assert state.flags == ("seen", "trashed")
    assert [end for _, end in state.ranges][-1] == len(top)
    assert reader_state(b"X-Mozilla-Status: x\n" + rest).flags == ()
