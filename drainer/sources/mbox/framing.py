"""Where the messages of an mbox start and end; pure.

A message starts with a From_ line and ends with an empty line before the next one or
before the end of the file (qmail's mbox(5)). ``separator`` judges each line that may
separate messages. If it is in doubt, the file is split there and both sides are
``corrupt``: no letter ever leaves within another one, or without its end.

A Content-Length counts in the variants that have it, if it leads to a separator or to
the end of the file. In a file of unknown variant it only raises doubt, also about each
message that starts before the place where it leads. Everything is read in pieces,
whatever the length of a line.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from drainer.mail.content import MAX_HEADER_BYTES
from drainer.mail.header import HEADER_END
from drainer.sources.common.files import ReadAt
from drainer.sources.common.queue_entry import IDENTITY_BYTES
from drainer.sources.mbox.separator import (
    OVERLAP_BYTES,
    WINDOW_BYTES,
    Separator,
    find_candidate,
    separator_at,
)

BLOCK_BYTES = 1024 * 1024
"""Bytes that are searched at a time."""

_TAG = b"drainer mbox 1\n"
_CONTENT_LENGTH = re.compile(
    rb"^content-length[ \t]*:[ \t]*([0-9]{1,15})[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)


class Span(NamedTuple):
    """The place of a message: offsets in the file."""

    #: Of its From_ line.
    start: int
    #: The content ends here; the blank line after it is not part of it.
    content_end: int
    #: Where the next From_ line starts, or the file ends.
    end: int
    #: A code of PROBLEMS and what was found; both '' for an undamaged message.
    code: str = ""
    detail: str = ""
    #: A Content-Length in doubt leads to here: what starts before may be content.
    reach: int = 0

    def damaged(self, detail: str) -> "Span":
        """Return the same place as that of a damaged message."""
        return self._replace(code="corrupt", detail=detail)


class Spans:
    """The messages of one file, found in one pass, a block at a time.

    ``read_at`` reads the file; every method may raise its errors.
    """

    def __init__(self, read_at: ReadAt, size: int, variant: str) -> None:
        """Take the file as it was when it had ``size`` bytes."""
        self._read_at = read_at
        self._size = size
        self._variant = variant
        self._has_lengths = variant in ("mboxcl", "mboxcl2")
        self._base = 0
        self._block = b""
        self._top: int | None = None

    def __iter__(self) -> Iterator[Span]:
        """Yield every message in order; text before the first is one too."""
        start, reach = self._first(), 0
        while start < self._size:
            span = self.at(start)
            if start < reach and not span.code:
                span = span.damaged("a Content-Length before it leads past its start")
            yield span
            start, reach = span.end, max(reach, span.reach)

    def _first(self) -> int:
        """Return where the file starts, without blank lines at its start."""
        if self._top is None:
            head = self.read(0, WINDOW_BYTES)
            self._top = len(head) - len(head.lstrip(b"\r\n"))
        return self._top

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, from memory if they were just searched."""
        length = min(length, self._size - offset)
        position = offset - self._base
        if position >= 0 and position + length <= len(self._block):
            return self._block[position : position + length]
        return self._read_at(offset, length) if length > 0 else b""

    def from_line(self, offset: int) -> bytes:
        """Return the From_ line that starts at an offset, with its end; or b''."""
        separator = self._separator(offset)
        return separator.line if separator else b""

    def _separator(self, offset: int) -> Separator | None:
        """Judge the line at an offset; in doubt, it is a separator."""
        back = min(offset, 3) if offset > self._first() else 0
        return separator_at(
            self.read(offset - back, back),
            self.read(offset, WINDOW_BYTES),
            needs_blank=not self._has_lengths,
        )

    def at(self, start: int) -> Span:
        """Return the message that starts at an offset."""
        separator = self._separator(start)
        span = self._by_length(start) if self._has_lengths else self._by_line(start)
        if separator is None:
            return span.damaged("it does not start with a From_ line: is this an mbox?")
        if separator.doubt:
            return span.damaged(f"its first line may be content: {separator.doubt}")
        return span

    def _by_length(self, start: int) -> Span:
        """Return the message up to where its Content-Length leads."""
        lengths = self._lengths(start)
        quotes = self._variant == "mboxcl"
        stop = self._stop(lengths[0]) if len(lengths) == 1 else 0
        # A writer that quotes leaves no separator within a message.
        if stop and not (quotes and self._next(start + 1)[0] < stop):
            return Span(start, lengths[0], stop)
        span = self._by_line(start)
        if quotes and not lengths:
            return span
        span = span._replace(reach=stop)
        return span.damaged("no Content-Length leads from it to the next message")

    def _lengths(self, start: int) -> list[int]:
        """Return where the content ends by its Content-Length fields, each once."""
        head = self.read(start, BLOCK_BYTES // 64)
        if not HEADER_END.search(head):
            head = self.read(start, MAX_HEADER_BYTES)
        end = HEADER_END.search(head)
        if end is None:
            return []
        found = _CONTENT_LENGTH.findall(head[: end.end()])
        return list(dict.fromkeys(start + end.end() + int(each) for each in found))

    def _stop(self, content_end: int) -> int:
        """Return where the next message starts if a content ends here; 0 if none."""
        rest = self.read(content_end, len(b"\r\n")) if content_end < self._size else b""
        for blank in (b"\n", b"\r\n", b""):
            stop = content_end + len(blank)
            if rest.startswith(blank) and (
                stop == self._size or (stop < self._size and self._separator(stop))
            ):
                return stop
        return 0

    def _by_line(self, start: int) -> Span:
        """Return the message up to the next separator."""
        end, doubt = self._next(start + 1)
        blank = self._blank_before(end)
        span = Span(start, max(end - blank, start), end)
        if doubt:
            detail = f"the line at byte {end} may start another message: {doubt}"
            return span.damaged(detail)
        if not (blank and self._has_header(start, end - blank)):
            detail = "the file ends without the blank line that completes a message"
            return span._replace(code="incomplete", detail=detail)
        if self._variant == "plain":
            for stop in map(self._stop, self._lengths(start)):
                if stop > end:
                    detail = f"its Content-Length leads past byte {end}: name the"
                    span = span._replace(reach=stop)
                    return span.damaged(f"{detail} variant (mboxcl2, or mboxrd)")
        return span

    def _has_header(self, start: int, end: int) -> bool:
        """Return whether the last message continues after its header section.

        Otherwise the blank line at its end may be the one after its header section.
        """
        length = min(end - start, MAX_HEADER_BYTES)
        return end + 2 < self._size or has_header_end(self.read(start, length))

    def _blank_before(self, offset: int) -> int:
        """Return the length of the blank line before an offset; 0 = none."""
        tail = self.read(max(offset - 3, 0), min(offset, 3))
        if tail.endswith(b"\n\r\n"):
            return 2
        return 1 if tail.endswith(b"\n\n") else 0

    def _next(self, position: int) -> tuple[int, str]:
        """Return where the next separator is, and the doubt about it; or the size."""
        while position < self._size:
            self._fill(position)
            found = find_candidate(self._block, position - self._base)
            end = self._base + len(self._block)
            if found >= 0:
                position = self._base + found
                separator = self._separator(position)
                if separator:
                    return position, separator.doubt
                position += 1
            elif end >= self._size or not self._block:
                break
            else:
                position = max(position, end - OVERLAP_BYTES)
        return self._size, ""

    def _fill(self, position: int) -> None:
        """Load a block that extends well beyond the position."""
        end = self._base + len(self._block)
        is_enough = position + 2 * WINDOW_BYTES <= end or end >= self._size
        if self._block and self._base + 3 <= position < end and is_enough:
            return
        self._base = max(position - 3, 0)
        length = min(BLOCK_BYTES, self._size - self._base)
        self._block = self._read_at(self._base, length)


def has_header_end(head: bytes) -> bool:
    """Return whether a header section ends in the start of a message."""
    return bool(HEADER_END.search(head))


def identity(from_line: bytes, head: bytes) -> str:
    """Return the id of a message by its From_ line and its start.

    ``head`` lacks the fields that readers change; LF and CRLF are the same.
    """
    line = from_line.rstrip(b"\r\n")
    digest = hashlib.sha256(_TAG + b"%d\n" % len(line) + line)
    beginning = head[: 2 * IDENTITY_BYTES].replace(b"\r\n", b"\n")
    digest.update(beginning[:IDENTITY_BYTES])
    return digest.hexdigest()[:32]
