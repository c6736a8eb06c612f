"""Open, read and combine the files of one message in Exim's spool.

While a server works, the order of reading matters: ``-J`` before ``-H``, because Exim
writes the journal into a new ``-H`` and then removes it. The lock is checked last, so
that changes in between are noticed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from drainer.errors import MessageUnreadable
from drainer.mail.content import crlf
from drainer.sources.common.files import CHUNK_BYTES, open_file, read_at
from drainer.sources.exim.header import EximHeader, fail, parse_header, parse_journal
from drainer.sources.exim.locks import is_locked
from drainer.sources.exim.message import IDENTITY_BYTES, EximFiles, identity

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest ``-H`` or ``-J`` file; Exim itself stops at 1 MB of header fields."""

_MAX_FIRST_LINE = 300


@dataclass(slots=True)
class EximOpenFiles:
    """The open files of a message; their opener closes them."""

    files: EximFiles
    identity: str
    #: When the ``-H`` file was written; seconds since the epoch.
    modified: float
    #: The ``-D`` file, or None when it cannot be opened.
    descriptor: int | None = None
    #: Where the body starts, after the line that Exim locks.
    start: int = 0

    def close(self) -> None:
        """Close the open files."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def chunks(self) -> Iterator[bytes]:
        """Yield the content; raises MessageUnreadable when it is damaged."""
        if self.files.error is not None:
            raise self.files.error
        header, descriptor = self.files.header, self.descriptor
        if header is None or descriptor is None:
            fail("its files were not read")
        if self.files.is_wire:
            yield from crlf([header.section])
            yield b"\r\n"
            yield from _complete(self._body(header, descriptor))
        else:
            yield from crlf(self._joined(header, descriptor))

    def _joined(self, header: EximHeader, descriptor: int) -> Iterator[bytes]:
        yield header.section
        yield b"\n"
        yield from self._body(header, descriptor)

    def _body(self, header: EximHeader, descriptor: int) -> Iterator[bytes]:
        """Yield the stored body; a cut is found at its end."""
        size, lines, left = self.files.body_bytes, 0, self.files.body_bytes
        for offset in range(self.start, self.start + size, CHUNK_BYTES):
            chunk = read_at(descriptor, offset, min(left, CHUNK_BYTES))
            left -= len(chunk)
            lines += chunk.count(b"\n")
            yield chunk
        expected = header.number(b"body_linecount")
        if left or lines < expected:
            fail(f"its body is cut off: {lines} lines, -H says {expected}")


def _complete(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """End the last line of a body with CRLF line ends; change no other."""
    tail = b"\r\n"
    for chunk in chunks:
        yield chunk
        tail = (tail + chunk)[-2:]
    if tail != b"\r\n":
        yield b"\r\n"


def load(stem: str, directory: int) -> EximOpenFiles:
    """Open and parse the files of a message; the caller closes them.

    Raises FileNotFoundError when there is no ``-H``, and MessageUnreadable when it
    cannot be opened. The result holds any other problem.
    """
    files = EximFiles()
    with _noting(files), suppress(FileNotFoundError):
        journal, _ = _read(f"{stem}-J", directory)
        files.journal = parse_journal(journal)
    data, modified = _read(f"{stem}-H", directory)
    with _noting(files):
        files.raw = data[:IDENTITY_BYTES]
        files.header = parse_header(data)
    found = EximOpenFiles(files, identity(files, stem), modified)
    with _noting(files):
        _open_body(found, stem, directory)
    return found


@contextmanager
def _noting(files: EximFiles) -> Iterator[None]:
    """Keep the first problem, and continue."""
    try:
        yield
    except MessageUnreadable as error:
        files.error = files.error or error


def _open_body(found: EximOpenFiles, stem: str, directory: int) -> None:
    """Open ``-D``, find where its body starts, and check whether it is locked."""
    try:
        found.descriptor, status = open_file(f"{stem}-D", directory)
    except FileNotFoundError as error:
        code, detail = "vanished", "there is no -D file, which has the body"
        raise MessageUnreadable(code, detail) from error
    first, end, _ = read_at(found.descriptor, 0, _MAX_FIRST_LINE).partition(b"\n")
    found.start = len(first) + len(end)
    found.files.is_locked = is_locked(found.descriptor, found.start or 1)
    header = found.files.header
    if not (end and first.endswith(b"-D")):
        fail("its -D file does not start with its name")
    if header is not None and first[:-2] != header.id:
        fail("its -D file belongs to another message")
    found.files.body_bytes = status.st_size - found.start


def _read(name: str, directory: int) -> tuple[bytes, float]:
    descriptor, status = open_file(name, directory)
    try:
        if status.st_size > MAX_FILE_BYTES:
            fail(f"{name[-2:]} is larger than {MAX_FILE_BYTES} bytes")
        return read_at(descriptor, 0, status.st_size), status.st_mtime
    finally:
        os.close(descriptor)
