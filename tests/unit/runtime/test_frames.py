"""Values between our processes: cut anywhere, too long, or with an end inside."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import pytest

from drainer.runtime.frames import (
    HEAD,
    FrameError,
    FrameReader,
    frame,
    frame_pickle,
    pickle_reader,
    read,
    receive,
)
from drainer.runtime.ipc import frame_value, value_reader

BODIES: Final = (b"", b"a", b"bc" * 100, b"", b"x" * 5000)
STREAM: Final = b"".join(map(frame, BODIES))


def reader(max_bytes: int = 5000) -> FrameReader[bytes]:
    """Return a reader of plain bytes."""
    return FrameReader(bytes, max_bytes)


def receive_all(data: bytes) -> list[bytes]:
    """Return the values that a socket that blocks receives of this data."""
    ours, theirs = socket.socketpair()
    found, values = [], reader()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        try:
            while True:
                found.append(receive(ours, values))
        except EOFError:
            return found


def read_all(data: bytes) -> list[bytes]:
    """Return the values that an event loop reads of this data."""

    async def run() -> list[bytes]:
        stream, values = asyncio.StreamReader(), reader()
        stream.feed_data(data)
        stream.feed_eof()
        found = []
        try:
            while True:
                found.append(await read(stream, values))
        except EOFError:
            return found

    return asyncio.run(run())


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 205, 5004, len(STREAM)])
def test_values_are_complete_wherever_the_stream_is_cut(step: int) -> None:
    """Each comes once, in order, with the piece that completes it."""
    values = reader()
    pieces = [STREAM[at : at + step] for at in range(0, len(STREAM), step)]
    assert [each for piece in pieces for each in values.feed(piece)] == list(BODIES)


@pytest.mark.parametrize("take", [receive_all, read_all])
@pytest.mark.parametrize("missing", [0, 1, 4999, 5000, 5003, 5004])
def test_an_end_within_a_value_loses_only_that_value(
    take: Callable[[bytes], list[bytes]], missing: int
) -> None:
    """In its size as well as in its body; sockets and event loops find the same."""
    whole = len(BODIES) - (missing > 0)
    assert take(STREAM[: len(STREAM) - missing]) == list(BODIES[:whole])


def test_a_value_that_is_too_long_is_refused_by_its_size() -> None:
    """Before any of its bytes are kept; one of the largest size passes."""
    assert list(reader(3).feed(frame(b"abc"))) == [b"abc"]
    with pytest.raises(FrameError, match="4 bytes"):
        list(reader(3).feed(HEAD.pack(4)))
    with pytest.raises(FrameError, match="4294967295 bytes"):
        list(reader().feed(HEAD.pack(2**32 - 1)))


@pytest.mark.parametrize("take", [receive_all, read_all])
def test_both_ends_refuse_a_value_that_is_too_long(
    take: Callable[[bytes], list[bytes]],
) -> None:
    """A socket that blocks and an event loop share the limit."""
    with pytest.raises(FrameError):
        take(frame(b"x" * 5001))


def test_what_follows_a_value_stays_in_the_socket() -> None:
    """The job of a worker process reads on where its order ended."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame_pickle({"a": 1}) + b"rest")
        start = ours.recv(2)
        assert receive(ours, pickle_reader(), start) == {"a": 1}
        assert ours.recv(100) == b"rest"


@pytest.mark.parametrize("data", [b"\xc1", b"\xa1a", b"", b"\x91" * 30_000])
def test_a_value_of_another_type_is_refused(data: bytes) -> None:
    """So is what is no MessagePack at all."""
    with pytest.raises(FrameError):
        list(value_reader(int, 100_000).feed(frame(data)))


def test_a_text_that_is_no_unicode_is_not_sent() -> None:
    """The reader would refuse it."""
    with pytest.raises(FrameError):
        frame_value("\udc80")
