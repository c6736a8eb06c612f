"""Replies cut out of what arrives: any bytes, in any pieces, without end."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.reply import Reply
from drainer.smtp.protocol import MAX_WAITING_BYTES, SmtpProtocol


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Give an event loop that need not run."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def fed(loop: asyncio.AbstractEventLoop, pieces: list[bytes]) -> list[Reply]:
    """Return what is read of these pieces, in a loop that does not run."""
    wire = SmtpProtocol(loop)
    for piece in pieces:
        if wire.lost is None:
            wire.data_received(piece)
    found = []
    while wire.has_reply:
        answer = loop.run_until_complete(wire.reply(1))
        assert isinstance(answer, Reply)
        found.append(answer)
    return found


@given(st.lists(st.sampled_from(
    [b"250", b"-", b" ", b"ok", b"\r", b"\n", b"\r\n", b"5.1.1", b"\xff", b"\0"]
)), st.integers(1, 9))  # fmt: skip
def test_how_octets_arrive_makes_no_difference(
    loop: asyncio.AbstractEventLoop, words: list[bytes], size: int
) -> None:
    """Whole, or in pieces of any size."""
    data = b"".join(words)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert fed(loop, [data]) == fed(loop, pieces)


def test_replies_that_nobody_reads_have_a_bound(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """A peer that never stops is given up before it fills the memory."""
    wire = SmtpProtocol(loop)
    piece = b"250 ok\r\n" * 10_000
    fed_bytes = 0
    while wire.lost is None:
        wire.data_received(piece)
        fed_bytes += len(piece)
        assert fed_bytes < MAX_WAITING_BYTES
    assert wire.lost.reason == "protocol"


def test_replies_that_are_read_make_room(loop: asyncio.AbstractEventLoop) -> None:
    """The bound is on what waits, not on the connection."""
    wire = SmtpProtocol(loop)
    for _ in range(MAX_WAITING_BYTES // 300 * 2 // 10_000):
        wire.data_received(b"250 ok\r\n" * 10_000)
        while wire.has_reply:
            assert loop.run_until_complete(wire.reply(1)) == Reply(code=250, text="ok")
    assert wire.lost is None
