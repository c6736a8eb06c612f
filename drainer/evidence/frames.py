"""What travels between a drain, the evidence process, and the process of a message.

A message is hostile, and so is what a process says that has parsed it. Its answers are
plain data, which cannot execute: MessagePack of the expected type, with a length that
is bounded. Anything else is a FrameError: that process has failed.
"""

import asyncio
import struct
from typing import Any, TypeVar

import msgspec

from drainer.evidence import MAX_CONTENT_BYTES, Question

T = TypeVar("T")

HEAD = struct.Struct(">I")
"""What precedes a value: its size in bytes."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of what the process of a message, or the evidence process, says at once."""
MAX_TASK_BYTES = MAX_CONTENT_BYTES + 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode


class FrameError(Exception):
    """Another process said something that is too long or of the wrong type."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """From the drain: look at a message, or for the mail servers of a domain."""

    id: int
    #: Seconds for DNS, and for the rest.
    dns_seconds: float
    compute_seconds: float
    #: One of the two.
    question: Question | None = None
    domain: str = ""
    #: The drain wants no answer to the task of this id any more.
    cancelled: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """To the drain: what a task came to."""

    id: int
    #: Facts or Relays, still encoded; b"" with a problem.
    value: bytes = b""
    problem: str = ""
    #: Set when no task can be done, because of the configuration.
    hint: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """From the process of a message: ask DNS, or take what was found."""

    name: str = ""
    kind: str = ""
    seconds: float = 0.0
    #: Facts or Relays, encoded, at the end.
    value: bytes | None = None


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
