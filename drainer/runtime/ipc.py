"""What a process sends that parses hostile input: plain data, which cannot execute.

MessagePack of the expected type, with a length that is bounded. Anything else is a
FrameError: that process has failed. Pickles travel the other way only, from a process
that is trusted to one that parses.
"""

import asyncio
import struct
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

HEAD = struct.Struct(">I")
"""What precedes a value: its size in bytes."""

_encode = msgspec.msgpack.Encoder().encode


class FrameError(Exception):
    """Another process sent something that is too long or of the wrong type."""


def encode(value: object) -> bytes:
    """Return a value in MessagePack; FrameError for text that is not Unicode."""
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise FrameError(str(error)) from None


def framed(value: object) -> bytes:
    """Return a value with its length before it."""
    body = encode(value)
    return HEAD.pack(len(body)) + body


def decode(data: bytes, kind: type[T]) -> T:
    """Return the value of a type that the data is; FrameError when it is not one."""
    try:
        return msgspec.msgpack.decode(data, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None


async def read(stream: asyncio.StreamReader, kind: type[T], most: int) -> T:
    """Return the next value of a stream.

    Raises FrameError for one that is longer than ``most`` bytes or of another type,
    and IncompleteReadError at the end.
    """
    (size,) = HEAD.unpack(await stream.readexactly(HEAD.size))
    if size > most:
        message = f"{size} bytes at once"
        raise FrameError(message)
    return decode(await stream.readexactly(size), kind)


def receive(link: Any, kind: type[T]) -> T:  # noqa: ANN401 - a binary stream
    """Return the next value of a stream that blocks; EOFError at its end."""
    head = link.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    return decode(link.read(HEAD.unpack(head)[0]), kind)
