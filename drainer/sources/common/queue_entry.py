"""A message of a queue directory while its files are open."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct, field

from drainer.errors import MessageUnreadable
from drainer.mail.content import crlf
from drainer.mail.envelope import Client, Envelope
from drainer.mail.message import Message, Problem
from drainer.sources.common.files import CHUNK_BYTES, has_content, read_at
from drainer.sources.common.walk import FilePlace

IDENTITY_BYTES = 4096
"""Bytes of the content that are part of the identity."""


class SourceEntry(Struct, frozen=True, kw_only=True):
    """A message as its files describe it; they stay open while it is examined."""

    #: As os.fsdecode returns it.
    native_id: str
    arrived: datetime
    envelope: Envelope
    #: Yields the content with CRLF line ends; MessageUnreadable when damaged.
    chunks: Callable[[], Iterator[bytes]]
    #: Size of the content in the spool, before line ends are made CRLF.
    raw_bytes: int
    #: Data that are part of the identity besides the content.
    stable: bytes
    #: Its files, in the order in which they may be removed; none = it always stays.
    files: tuple[FilePlace, ...]
    #: Gives the identity and the Message-ID instead of the start of the content.
    head: bytes | None = None
    client: Client = field(default_factory=Client)
    login: str = ""
    flags: tuple[str, ...] = ()
    problem: Problem | None = None
    #: The queue it was in; '' = the directory of its file.
    queue: str = ""


E = TypeVar("E", bound=SourceEntry)


class OpenEntry(Struct, Generic[E], frozen=True):
    """A message whose files are open."""

    message: Message
    draft: E
    place: FilePlace
    #: The whole content, if it is small and undamaged.
    content: bytes | None


def is_same(found: OpenEntry[E], message: Message, *, moved: bool = False) -> bool:
    """Return whether this is the message; compare all of it if it has moved."""
    if found.message.identity != message.identity:
        return False
    return not moved or has_content(message, found.draft.chunks)


def frame(*parts: bytes) -> bytes:
    """Return the stable data of an identity: no two lists of parts look the same."""
    return b"".join(b"%d\n" % len(part) + part for part in parts) + b"\n"


def frame_damage(name: str, raw: bytes) -> bytes:
    """Return the stable data of a message that cannot be read: its name and start."""
    return frame(b"damaged", os.fsencode(name), raw[:IDENTITY_BYTES])


def read_start(chunks: Iterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Return the start of a content, and whether that is all of it.

    Reads until it has more than ``limit`` bytes, so a wrong size costs no memory.
    """
    pieces, length = [], 0
    for chunk in chunks:
        pieces.append(chunk)
        length += len(chunk)
        if length > limit:
            return b"".join(pieces), False
    return b"".join(pieces), True


def file_chunks(descriptor: int, size: int, offset: int = 0) -> Iterator[bytes]:
    """Yield a file from an offset; MessageUnreadable when it ends too early."""
    while offset < size:
        chunk = read_at(descriptor, offset, min(CHUNK_BYTES, size - offset))
        if not chunk:
            detail = f"it ends at {offset} of {size} bytes"
            raise MessageUnreadable("unreadable", detail)
        yield chunk
        offset += len(chunk)


def crlf_chunks(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield a file of LF or CRLF line ends as a content."""
    return crlf(file_chunks(descriptor, size))


def raise_damage(error: MessageUnreadable) -> Iterator[bytes]:
    """Stand in for a content that cannot be read."""
    raise error


def damaged_entry(
    name: str, error: MessageUnreadable, raw: bytes, modified: float
) -> SourceEntry:
    """Return the entry for a file with this start and time that makes no sense."""
    return SourceEntry(
        native_id=name,
        arrived=time_of(modified),
        envelope=Envelope(),
        chunks=partial(raise_damage, error),
        raw_bytes=0,
        stable=frame_damage(name, raw),
        files=(),
        problem=Problem(code=error.code, detail=error.detail),
    )


def time_of(seconds: float) -> datetime:
    """Return a time since 1970 in UTC, for any number that a file may contain."""
    return datetime.fromtimestamp(min(max(seconds, 0), 2**35), UTC)
