"""Frames: values between our processes, each with its size in bytes before it.

``FrameReader`` finds the values in the bytes of a stream. It serves event loops and
sockets that block alike. A value travels as a pickle, from a process that is trusted,
or as MessagePack, from one that parses hostile input (drainer.runtime.ipc).
"""

import pickle
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

HEAD = struct.Struct(">I")
"""What precedes a value: its size in bytes."""
MAX_BYTES = 2**32 - 1
"""Bytes of the largest value that a head can announce."""
_RECEIVE_BYTES = 1 << 20


class FrameError(Exception):
    """Another process sent something that is too long or of the wrong type."""


class FrameReader(Generic[T]):
    """Puts the values of a stream together again."""

    def __init__(
        self, decode: Callable[[bytearray], T], max_bytes: int = MAX_BYTES
    ) -> None:
        """Start empty; ``decode`` makes a value of at most ``max_bytes`` bytes."""
        self._decode = decode
        self._max_bytes = max_bytes
        self._data = bytearray()

    @property
    def missing(self) -> int:
        """Bytes up to the end of the next size or value; FrameError if too many."""
        if len(self._data) < HEAD.size:
            return HEAD.size - len(self._data)
        (size,) = HEAD.unpack_from(self._data)
        if size > self._max_bytes:
            raise FrameError(f"{size} bytes at once")
        return HEAD.size + int(size) - len(self._data)

    def feed(self, data: bytes) -> Iterator[T]:
        """Take what arrived; yield the values that are complete with it.

        Raises FrameError for a value that is too long, and what ``decode`` raises.
        """
        self._data += data
        while (missing := self.missing) <= 0:
            end = len(self._data) + missing
            body = self._data[HEAD.size : end]
            del self._data[:end]
            yield self._decode(body)


def frame(body: bytes) -> bytes:
    """Return an encoded value with its size before it."""
    return HEAD.pack(len(body)) + body


def frame_pickle(value: object) -> bytes:
    """Return the frame of a value, for ``pickle_reader``."""
    return frame(pickle.dumps(value, protocol=5))


def pickle_reader() -> FrameReader[Any]:
    """Return the reader of what a process sends that we trust."""
    return FrameReader(pickle.loads)


def receive(link: socket.socket, reader: FrameReader[T], start: bytes = b"") -> T:
    """Return the next value of a socket that blocks, and read nothing behind it.

    ``start`` has been read of it before. Raises FrameError, and EOFError at the end,
    even within a value.
    """
    data = start
    while True:
        for value in reader.feed(data):
            return value
        data = link.recv(min(reader.missing, _RECEIVE_BYTES))
        if not data:
            raise EOFError


async def read(stream: "asyncio.StreamReader", reader: FrameReader[T]) -> T:
    """Return the next value of a stream; raise as ``receive`` does."""
    data = b""
    while True:
        for value in reader.feed(data):
            return value
        data = await stream.read(reader.missing)
        if not data:
            raise EOFError
