"""One file of a Maildir: its start, its content, and its problem.

A file that the mail store compressed is the mail that it unpacks to: identity, size and
content are those of the unpacked bytes.
"""

import os
from collections.abc import Iterator

from msgspec import Struct

from drainer.errors import MessageUnreadable
from drainer.mail.content import MAX_HEADER_BYTES, crlf
from drainer.mail.header import HEADER_END
from drainer.mail.message import Problem
from drainer.sources.archive.compression import PACKINGS, unpack
from drainer.sources.common.files import (
    CHUNK_BYTES,
    SMALL_FILE_BYTES,
    OpenFiles,
    read_at,
)
from drainer.sources.common.trace_headers import Trace, cut
from drainer.sources.maildir.layout import MaildirName, compression


class MaildirFile(Struct, frozen=True):
    """An open file and its start; its opener closes it."""

    descriptor: int
    status: os.stat_result
    #: The whole content if it is small, else at least the header section.
    head: bytes
    is_whole: bool
    #: How the mail store packed the file; '' = not at all, or in an unknown way.
    packed: str = ""
    #: Why the packed file cannot be unpacked.
    damage: MessageUnreadable | None = None

    @property
    def size(self) -> int:
        """Bytes of the content; of a large packed one, at least as many as known."""
        known = len(self.head)
        return known if self.is_whole else max(known, self.status.st_size)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its start; MessageUnreadable if it is damaged."""
        if self.is_whole:
            yield self.head
        else:
            yield from _contents(self.descriptor, self.status.st_size, self.packed)


def load(name: str, directory_fd: int, opened: OpenFiles) -> MaildirFile:
    """Open a file and read its start; ``opened`` closes it.

    Raises FileNotFoundError, and MessageUnreadable when it cannot be opened.
    """
    descriptor, status = opened.open(name, directory_fd)
    size = status.st_size
    length = size if size <= SMALL_FILE_BYTES else CHUNK_BYTES
    head = read_at(descriptor, 0, length)
    packed = compression(head)
    if packed in PACKINGS:
        return _load_packed(descriptor, status, packed)
    if size > length and not HEADER_END.search(head):
        head = read_at(descriptor, 0, MAX_HEADER_BYTES)
    return MaildirFile(descriptor, status, head, len(head) >= size)


def read_content(file: MaildirFile, trace: Trace) -> Iterator[bytes]:
    """Yield the content without what its delivery added on top."""
    return crlf(cut(file.chunks(), trace.stripped))


def _load_packed(descriptor: int, status: os.stat_result, packed: str) -> MaildirFile:
    """Read the start of what a packed file unpacks to."""
    head = bytearray()
    is_whole, damage = False, None
    try:
        for chunk in _contents(descriptor, status.st_size, packed):
            head += chunk
            if len(head) >= MAX_HEADER_BYTES:
                break
        else:
            is_whole = True
    except MessageUnreadable as error:
        damage = error
    return MaildirFile(descriptor, status, bytes(head), is_whole, packed, damage)


def _contents(descriptor: int, size: int, packed: str) -> Iterator[bytes]:
    """Yield the content of a file, unpacked."""
    chunks = (
        read_at(descriptor, offset, CHUNK_BYTES)
        for offset in range(0, size, CHUNK_BYTES)
    )
    return unpack(packed, chunks, size) if packed else chunks


def differs_in_size(file: MaildirFile, name: MaildirName) -> bool:
    """Return whether the file is shorter than its name says (``,S=``).

    That alone is not damage: tools change line ends, and copies keep the name.
    """
    is_known = file.is_whole or not file.packed
    return name.size_bytes is not None and is_known and file.size < name.size_bytes


def _ends_a_line(file: MaildirFile) -> bool:
    """Return whether the content ends with a line, as whole mail does."""
    if file.is_whole:
        return file.head.endswith(b"\n")
    return read_at(file.descriptor, file.status.st_size - 1, 1) == b"\n"


def file_problem(file: MaildirFile, name: MaildirName, packed: str) -> Problem | None:
    """Judge the file itself; its headers are judged later."""
    size = file.size
    if file.damage:
        return Problem(code=file.damage.code, detail=file.damage.detail)
    if packed:
        return Problem(code="compressed", detail=packed)
    if not size:
        return Problem(code="corrupt", detail="it is empty")
    if differs_in_size(file, name) and not _ends_a_line(file):
        detail = f"truncated: {size} bytes, its name says {name.size_bytes}"
        return Problem(code="corrupt", detail=detail)
    if not file.is_whole and not HEADER_END.search(file.head):
        detail = f"no end of the header section in {len(file.head)} bytes"
        return Problem(code="corrupt", detail=detail)
    for flag in ("trashed", "draft"):
        if flag in name.flags:
            return Problem(code=flag, detail="a mail reader set the flag")
    return None
