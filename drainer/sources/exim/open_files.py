"""Open, read and combine the files of one message in Exim's spool.

While a server works, the order of reading matters: ``-J`` before ``-H``, because Exim
writes the journal into a new ``-H`` and then removes it. The lock is checked last, so
that changes in between are noticed.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from drainer.errors import MessageUnreadable
from drainer.mail.content import crlf
from drainer.sources.common.control_files import fail
from drainer.sources.common.files import CHUNK_BYTES, OpenFiles, read_at
from drainer.sources.common.queue_entry import IDENTITY_BYTES
from drainer.sources.exim.header import EximHeader, parse_header, parse_journal
from drainer.sources.exim.locks import is_locked
from drainer.sources.exim.message import EximFiles

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest ``-H`` or ``-J`` file; Exim itself stops at 1 MB of header fields."""

_MAX_FIRST_LINE = 300


def read_content(files: EximFiles) -> Iterator[bytes]:
    """Yield the content; raises MessageUnreadable when it is damaged."""
    if files.error is not None:
        raise files.error
    if files.header is None or files.body is None:
        fail("its files were not read")
    section = files.header.section
    body = _body(files, files.header, files.body)
    if files.is_wire:
        yield from crlf([section])
        yield b"\r\n"
        yield from _complete(body)
    else:
        yield from crlf(chain((section, b"\n"), body))


def _body(files: EximFiles, header: EximHeader, descriptor: int) -> Iterator[bytes]:
    """Yield the stored body; a cut is found at its end."""
    lines, left = 0, files.body_bytes
    for offset in range(files.start, files.start + left, CHUNK_BYTES):
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


def load(stem: str, directory: int, opened: OpenFiles) -> EximFiles:
    """Open and parse the files of a message; ``opened`` closes them.

    Raises FileNotFoundError when there is no ``-H``, and MessageUnreadable when it
    cannot be opened. The result holds any other problem.
    """
    files = EximFiles()
    with _noting(files), suppress(FileNotFoundError):
        journal, _ = _read(f"{stem}-J", directory)
        files.journal = parse_journal(journal)
    data, files.modified = _read(f"{stem}-H", directory)
    with _noting(files):
        files.raw = data[:IDENTITY_BYTES]
        files.header = parse_header(data)
    with _noting(files):
        _open_body(files, f"{stem}-D", directory, opened)
    return files


@contextmanager
def _noting(files: EximFiles) -> Iterator[None]:
    """Keep the first problem, and continue."""
    try:
        yield
    except MessageUnreadable as error:
        files.error = files.error or error


def _open_body(files: EximFiles, name: str, directory: int, opened: OpenFiles) -> None:
    """Open ``-D``, find where its body starts, and check whether it is locked."""
    try:
        body, status = opened.open(name, directory)
    except FileNotFoundError as error:
        detail = "there is no -D file, which has the body"
        raise MessageUnreadable("vanished", detail) from error
    files.body = body
    first, end, _ = read_at(body, 0, _MAX_FIRST_LINE).partition(b"\n")
    files.start = len(first) + len(end)
    files.is_locked = is_locked(body, files.start or 1)
    header = files.header
    if not (end and first.endswith(b"-D")):
        fail("its -D file does not start with its name")
    if header is not None and first[:-2] != header.id:
        fail("its -D file belongs to another message")
    files.body_bytes = status.st_size - files.start


def _read(name: str, directory: int) -> tuple[bytes, float]:
    with OpenFiles() as opened:
        descriptor, status = opened.open(name, directory)
        if status.st_size > MAX_FILE_BYTES:
            fail(f"{name[-2:]} is larger than {MAX_FILE_BYTES} bytes")
        return read_at(descriptor, 0, status.st_size), status.st_mtime
