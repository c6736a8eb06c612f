"""The output of ``postcat`` for one message: records, and the place of the content.

A dump has markers before the envelope, the content and the extracted segment, and one
at its end. A content may contain any line, also those markers and ``recipient:``. So
drainer accepts a dump only if nothing in it is ambiguous:

- ``postcat -q`` alone: every marker occurs once, and the last one is at the very end,
  which also proves that the dump is complete;
- with the output of ``postcat -bhq`` next to it, which is only the content: the dump
  repeats it byte by byte (only its body for ``-beq``), and the extracted segment
  follows;
- ``postcat -eq`` and ``-bhq``: the dump has no content between its markers. Postfix's
  own count of its records then proves that the content is complete.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import CHUNK_BYTES, ReadAt
from drainer.sources.postfix.segments import EnvelopeRecords, gather

MAX_SECTION_BYTES = 16 * 1024 * 1024
"""Largest envelope or extracted segment; each recipient takes about 100 bytes."""

_START = re.compile(rb"\*\*\* ENVELOPE RECORDS ([^\0\n]{1,300}) \*\*\*\n")
_RECORD_LINE = re.compile(rb"([a-z_]+):(?: (.*))?", re.DOTALL)
_LINE_LENGTH_LIMIT = 2048
_SHORT = 128  # a length of one byte (record.c)
#: The names of rec_type.c; None for records without use here. Times are local.
_KINDS = {
    b"message_size": "C",
    b"sender": "S",
    b"original_recipient": "O",
    b"recipient": "R",
    b"done_recipient": "D",
    b"canceled_recipient": "/",
    b"named_attribute": "A",
    b"content_filter": "L",
    b"redirect_to": ">",
    b"verp_delimiters": "V",
    b"message_arrival_time": None,
    b"create_time": None,
    b"queue_file_create_time": None,
    b"warning_message_time": None,
    b"sender_fullname": None,
    b"content_inspector": None,
    b"killed_record": None,
    b"return_receipt": None,
    b"errors_to": None,
    b"priority": None,
    b"padding": None,
    b"pointer_record": None,
}


class DumpFile(NamedTuple):
    """An open file."""

    read_at: ReadAt
    size: int

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield a range of it; raises MessageUnreadable when it ends too early."""
        while start < end:
            chunk = self.read_at(start, min(CHUNK_BYTES, end - start))
            if not chunk:
                refuse("vanished", f"it ends at {start} bytes now")
            yield chunk
            start += len(chunk)


class Dump(NamedTuple):
    """A message according to its dump."""

    records: EnvelopeRecords
    #: Path of the queue file, below the queue directory.
    path: str
    #: Which file has the content, and where.
    content: DumpFile
    start: int
    end: int
    #: Whether the dump itself shows that the content is complete.
    is_proven: bool


def is_dump(file: DumpFile) -> bool:
    """Return whether this is a dump with an envelope, not only a content."""
    return _START.match(file.read_at(0, 400)) is not None


def read_dump(dump: DumpFile, content: DumpFile | None) -> Dump:
    """Read a dump, and the content next to it, if any.

    Raises MessageUnreadable: 'incomplete' for a dump that ends early, 'corrupt' for one
    that is contradictory or ambiguous.
    """
    found = _START.match(dump.read_at(0, 400))
    if found is None:
        refuse("corrupt", "it does not start like a dump of postcat")
    path = found[1]
    whole = b"*** MESSAGE FILE END %s ***\n" % path
    if dump.read_at(max(dump.size - len(whole), 0), len(whole)) != whole:
        refuse("incomplete", "the dump has no end: it was cut off")
    records = EnvelopeRecords()
    start = _read_envelope(dump, found, records)
    rest = _without(dump, content, path, start) if content else None
    end = _only(dump, path, start) if rest is None else rest
    extracted = end + len(_marker_line(path))
    length = dump.size - len(whole) - extracted
    if length > MAX_SECTION_BYTES:
        refuse("corrupt", "its extracted segment is endless")
    gather(_records(dump.read_at(extracted, length)), records)
    name = path.decode("utf-8", "surrogateescape")
    if content is None:
        return Dump(records, name, dump, start, end, is_proven=True)
    is_proven = end > start or _framed_length(content) == records.number(5)
    return Dump(records, name, content, 0, content.size, is_proven=is_proven)


def _read_envelope(
    dump: DumpFile, first: re.Match[bytes], into: EnvelopeRecords
) -> int:
    """Read the records of the envelope; return where the content starts."""
    marker = b"\n*** MESSAGE CONTENTS %s ***\n" % first[1]
    length = 64 * 1024
    while True:
        head = dump.read_at(0, length)
        edge = head.find(marker, first.end() - 1)
        if edge >= 0:
            gather(_records(head[first.end() : edge + 1]), into)
            return edge + len(marker)
        if length >= min(dump.size, MAX_SECTION_BYTES):
            refuse("corrupt", "no content follows its envelope")
        length *= 16


def _marker_line(path: bytes) -> bytes:
    return b"*** HEADER EXTRACTED %s ***\n" % path


def _without(dump: DumpFile, content: DumpFile, path: bytes, start: int) -> int:
    """Return where the extracted segment starts, after the known content."""
    if content.read_at(max(content.size - 1, 0), 1) != b"\n":
        detail = "its last line has no end: it was cut off, or postcat does not say"
        refuse("incomplete", detail)
    marker = _marker_line(path)
    body = _body(content)
    for skipped in (content.size, 0, body):
        end = start + content.size - skipped
        is_there = dump.read_at(end, len(marker)) == marker
        if is_there and _same(dump, start, content, skipped):
            return end
    raise MessageUnreadable("corrupt", "the dump and the content next to it differ")


def _body(content: DumpFile) -> int:
    """Return where the body starts, with the blank line that postcat prints first."""
    offset = 0
    tail = b"\n"
    for chunk in content.chunks(0, content.size):
        found = (tail + chunk).find(b"\n\n")
        if found >= 0:
            return offset + found + 1 - len(tail)
        offset += len(chunk)
        tail = chunk[-1:]
    return content.size


def _same(dump: DumpFile, start: int, content: DumpFile, skipped: int) -> bool:
    for chunk in content.chunks(skipped, content.size):
        if dump.read_at(start, len(chunk)) != chunk:
            return False
        start += len(chunk)
    return True


def _only(dump: DumpFile, path: bytes, start: int) -> int:
    """Return where the extracted segment starts, if that is unambiguous."""
    marker = _marker_line(path)[:-1]
    found = list(_positions(dump, marker, start))
    ends = list(_positions(dump, b"*** MESSAGE FILE END %s ***" % path, start))
    if len(found) > 1 or len(ends) > 1:
        detail = "its content imitates the markers of postcat"
        refuse("corrupt", f"{detail}: put the output of postcat -bhq next to it")
    if not found:
        refuse("corrupt", "no extracted segment follows its content")
    if found[0] == start:
        refuse("incomplete", "it has no content: postcat -bhq prints it")
    if dump.read_at(found[0] - 1, 1) != b"\n":
        refuse("incomplete", "its last line has no end; postcat does not say why")
    if dump.read_at(start, 1) == b"\n":
        refuse("incomplete", "it has no header section: postcat -bhq prints it")
    return found[0]


def _positions(file: DumpFile, needle: bytes, start: int) -> Iterator[int]:
    """Yield the first two positions of some bytes."""
    tail, count = b"", 0
    for chunk in file.chunks(start, file.size):
        data = tail + chunk
        at = data.find(needle)
        while at >= 0:
            yield start - len(tail) + at
            count += 1
            if count > 1:
                return
            at = data.find(needle, at + 1)
        start += len(chunk)
        tail = data[-(len(needle) - 1) :]


def _records(section: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a section by type, without times."""
    for line in section.removesuffix(b"\n").split(b"\n") if section else ():
        found = _RECORD_LINE.fullmatch(line)
        if found is None or found[1] not in _KINDS:
            refuse("corrupt", f"postcat prints no such line: {line[:60]!r}")
        kind = _KINDS[found[1]]
        if kind is not None:
            yield ord(kind), found[2] or b""


def _framed_length(content: DumpFile) -> int:
    """Return the length of the records of a content, as Postfix counts them.

    Each has a type and a length before it; long lines are split (record.c, 1.3).
    """
    total = line = 0
    for chunk in content.chunks(0, content.size):
        first, *more = chunk.split(b"\n")
        line += len(first)
        for each in more:
            total += _framed_line(line)
            line = len(each)
    return total


def _framed_line(length: int) -> int:
    whole, rest = divmod(length, _LINE_LENGTH_LIMIT)
    return length + 3 * whole + (2 if rest < _SHORT else 3)


def refuse(code: str, detail: str) -> NoReturn:
    """Raise MessageUnreadable; the code is a key of PROBLEMS."""
    raise MessageUnreadable(code, detail)
