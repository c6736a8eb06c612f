"""One file of a Maildir: its start, its content, and its problem."""

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from drainer.mail.content import MAX_HEADER_BYTES, crlf
from drainer.mail.message import Problem
from drainer.sources.common.files import (
    CHUNK_BYTES,
    SMALL_FILE_BYTES,
    OpenFiles,
    read_at,
)
from drainer.sources.common.trace_headers import Trace, cut
from drainer.sources.maildir.layout import MaildirName

_HEADER_END = re.compile(rb"\n\r?\n|\A\r?\n")


class MaildirFile(Struct, frozen=True):
    """An open file and its start; its opener closes it."""

    descriptor: int
    status: os.stat_result
    #: The whole file if it is small, else at least the header section.
    head: bytes

    @property
    def is_whole(self) -> bool:
        """Return whether the start is the whole file."""
        return len(self.head) >= self.status.st_size

    def chunks(self) -> Iterator[bytes]:
        """Yield the file from its start."""
        if self.is_whole:
            yield self.head
            return
        for offset in range(0, self.status.st_size, CHUNK_BYTES):
            yield read_at(self.descriptor, offset, CHUNK_BYTES)


def load(name: str, directory_fd: int, opened: OpenFiles) -> MaildirFile:
    """Open a file and read its start; ``opened`` closes it.

    Raises FileNotFoundError, and MessageUnreadable when it cannot be opened.
    """
    descriptor, status = opened.open(name, directory_fd)
    size = status.st_size
    length = size if size <= SMALL_FILE_BYTES else CHUNK_BYTES
    head = read_at(descriptor, 0, length)
    if size > length and not _HEADER_END.search(head):
        head = read_at(descriptor, 0, MAX_HEADER_BYTES)
    return MaildirFile(descriptor, status, head)


def read_content(file: MaildirFile, trace: Trace) -> Iterator[bytes]:
    """Yield the content without what its delivery added on top."""
    return crlf(cut(file.chunks(), trace.stripped))


def file_problem(file: MaildirFile, name: MaildirName, packed: str) -> Problem | None:
    """Judge the file itself; its headers are judged later."""
    size = file.status.st_size
    if packed:
        return Problem(code="compressed", detail=packed)
    if not size:
        return Problem(code="corrupt", detail="it is empty")
    if name.size_bytes is not None and size < name.size_bytes:
        detail = f"truncated: {size} bytes, its name says {name.size_bytes}"
        return Problem(code="corrupt", detail=detail)
    if not file.is_whole and not _HEADER_END.search(file.head):
        detail = f"no end of the header section in {len(file.head)} bytes"
        return Problem(code="corrupt", detail=detail)
    for flag in ("trashed", "draft"):
        if flag in name.flags:
            return Problem(code=flag, detail="a mail reader set the flag")
    return None
