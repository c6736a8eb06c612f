"""What a process sends that parses hostile input: plain data, which cannot execute.

MessagePack of the expected type, with a size that is bounded. Anything else is a
FrameError: that process has failed. Pickles travel the other way only, from a process
that is trusted to one that parses.
"""

from functools import partial
from typing import TypeVar

import msgspec

from drainer.runtime.frames import FrameError, FrameReader, frame

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode


def encode(value: object) -> bytes:
    """Return a value in MessagePack; FrameError for text that is not Unicode."""
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise FrameError(str(error)) from None


def frame_value(value: object) -> bytes:
    """Return the frame of a value, for ``value_reader``."""
    return frame(encode(value))


def decode(data: bytes | bytearray, kind: type[T]) -> T:
    """Return the value of a type that the data is; FrameError when it is not one."""
    try:
        return msgspec.msgpack.decode(data, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None


def value_reader(kind: type[T], max_bytes: int) -> FrameReader[T]:
    """Return the reader of values of a type; each has at most this many bytes."""
    return FrameReader(partial(decode, kind=kind), max_bytes)
