"""One file of a Maildir: its start, its identity, and its problem."""

import hashlib
import os
import re
from collections.abc import Iterator

from msgspec import Struct

from drainer.mail.content import MAX_HEADER_BYTES
from drainer.mail.message import Problem
from drainer.sources.common.files import (
    CHUNK_BYTES,
    SMALL_FILE_BYTES,
    open_file,
    read_at,
)
from drainer.sources.maildir.layout import MaildirName, parse_name

IDENTITY_BYTES = 4096
"""Bytes of a file that are part of the identity."""

_TAG = b"drainer maildir 1\n"
_HEADER_END = re.compile(rb"\n\r?\n|\A\r?\n")


class MaildirFile(Struct, frozen=True):
    """An open file and its start; its opener closes it."""

    descriptor: int
    status: os.stat_result
    #: The whole file if it is small, else at least the header section.
    head: bytes
    identity: str

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


def identity(base: str, head: bytes) -> str:
    """Return the id of a message by its base name and start."""
    name = os.fsencode(base)
    digest = hashlib.sha256(_TAG + b"%d\n" % len(name) + name)
    digest.update(head[:IDENTITY_BYTES])
    return digest.hexdigest()[:32]


def load(name: str, directory_fd: int) -> MaildirFile:
    """Open a file and read its start; the caller closes it.

    Raises FileNotFoundError, and MessageUnreadable when it cannot be opened.
    """
    descriptor, status = open_file(name, directory_fd)
    try:
        size = status.st_size
        length = size if size <= SMALL_FILE_BYTES else CHUNK_BYTES
        head = read_at(descriptor, 0, length)
        if size > length and not _HEADER_END.search(head):
            head = read_at(descriptor, 0, MAX_HEADER_BYTES)
    except BaseException:
        os.close(descriptor)
        raise
    return MaildirFile(descriptor, status, head, identity(parse_name(name).base, head))


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
