"""Where the messages of an mbox start and end, and what is quoted in them; pure.

A message starts with a From_ line, ``From SENDER asctime-date``, and ends with a blank
line before the next one or before the end of the file (qmail's mbox(5)). A From_ line
separates messages only with a plausible date and a blank line before it: an unquoted
sentence that starts with "From" does not. The variants differ in how they store a
content line that looks like a From_ line. The file does not show its variant, so
drainer unquotes nothing unless the operator names it:

- ``plain``: unchanged, for a file of unknown variant;
- ``mboxrd``: ``>`` before ``From ``, ``>From ``, ``>>From ``...: reversible;
- ``mboxo``: ``>`` before ``From `` only, so ``>From `` may have been either; drainer
  takes it for the likelier one, a quoted ``From ``;
- ``mboxcl``: as mboxo, with a Content-Length field;
- ``mboxcl2``: Content-Length, and nothing is quoted.

A Content-Length counts only when it leads to a From_ line or the end of the file.
Everything is read in pieces, whatever the length of a line.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from drainer.mail.content import MAX_HEADER_BYTES

IDENTITY_BYTES = 4096
"""Bytes of a message that are part of the identity."""

BLOCK_BYTES = 1024 * 1024
"""Bytes that are searched at a time."""

VARIANTS = ("plain", "mboxrd", "mboxo", "mboxcl", "mboxcl2")

_TAG = b"drainer mbox 1\n"
_FROM = (
    rb"From [^\n]{0,500}?(?<= )(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? {1,3}(?P<date>"
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,3}[0-9]{1,2} {1,3}"
    rb"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
    rb"(?P<zone>(?: {1,3}(?:[A-Z]{1,5}|[+-][0-9]{4})){0,2}) {1,3}[0-9]{4})"
    rb"(?P<after>(?: {1,3}[+-][0-9]{4})?)(?![0-9])[^\n]{0,400}\n"
)
_SLACK_BYTES = 1024
"""No From_ line is longer."""
_SEPARATOR = re.compile(rb"\n" + _FROM)
_FROM_LINE = re.compile(_FROM)
_HEADER_END = re.compile(rb"\n\r?\n|\A\r?\n")
_CONTENT_LENGTH = re.compile(
    rb"^content-length[ \t]*:[ \t]*([0-9]{1,15})[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)
_STATE = re.compile(
    rb"^(status|x-status|x-uid|x-keywords|x-imap|x-imapbase|content-length)[ \t]*:"
    rb"([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_FLAGS = {
    b"status": {b"R": "seen"},
    b"x-status": {b"A": "replied", b"F": "flagged", b"D": "trashed", b"T": "draft"},
}
_OFFSET = re.compile(r"[+-][0-9]{4}")
_MAX_OFFSET_HOURS = 24
ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> bytes; fewer only at the end of the file."""


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


class Spans:
    """The messages of one file, found in one pass, a block at a time.

    ``read_at`` reads the file; every method may raise its errors.
    """

    def __init__(self, read_at: ReadAt, size: int, variant: str) -> None:
        """Take the file as it was when it had ``size`` bytes."""
        self._read_at = read_at
        self._size = size
        self._has_lengths = variant in ("mboxcl", "mboxcl2")
        self._quotes = variant != "mboxcl2"
        self._base = 0
        self._block = b""

    def __iter__(self) -> Iterator[Span]:
        """Yield every message in order; text before the first is one too."""
        start = self._first()
        while start < self._size:
            span = self.at(start)
            yield span
            start = span.end

    def _first(self) -> int:
        """Skip blank lines at the start of the file."""
        head = self.read(0, _SLACK_BYTES)
        return len(head) - len(head.lstrip(b"\r\n"))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, from memory if they were just searched."""
        length = min(length, self._size - offset)
        position = offset - self._base
        if position >= 0 and position + length <= len(self._block):
            return self._block[position : position + length]
        return self._read_at(offset, length) if length > 0 else b""

    def is_separator(self, offset: int) -> bool:
        """Return whether a message ends here: at the file's end, or a From_ line."""
        return offset == self._size or bool(self.from_line(offset))

    def from_line(self, offset: int) -> bytes:
        """Return the From_ line that starts at an offset, with its end; or b''."""
        found = _FROM_LINE.match(self.read(offset, _SLACK_BYTES))
        return found[0] if found else b""

    def at(self, start: int) -> Span:
        """Return the message that starts at an offset."""
        if not self.from_line(start):
            detail = "it does not start with a From_ line: is this an mbox?"
            return self._by_separator(start)._replace(code="corrupt", detail=detail)
        if self._has_lengths:
            return self._by_length(start)
        return self._by_separator(start)

    def _by_length(self, start: int) -> Span:
        head = self.read(start, BLOCK_BYTES // 64)
        if not _HEADER_END.search(head):
            head = self.read(start, MAX_HEADER_BYTES)
        end = _HEADER_END.search(head)
        length = _CONTENT_LENGTH.search(head[: end.end()]) if end else None
        if end is not None and length is not None:
            content_end = start + end.end() + int(length[1])
            rest = self.read(content_end, _SLACK_BYTES)
            for blank in (b"\n", b"\r\n", b""):
                stop = content_end + len(blank)
                if rest.startswith(blank) and self.is_separator(stop):
                    return Span(start, content_end, stop)
        span = self._by_separator(start)
        if self._quotes and length is None:
            return span
        detail = "no Content-Length leads from it to the next message"
        return span._replace(code="corrupt", detail=detail)

    def _by_separator(self, start: int) -> Span:
        code = detail = ""
        end = self._next(start + 1)
        while end < self._size and not self._blank_before(end):
            if self._quotes and not code:
                code = "corrupt"
                detail = f"a From_ line without a blank line before it at byte {end}"
            end = self._next(end + 1)
        blank = self._blank_before(end)
        if not code and not (blank and self._has_header(start, end - blank)):
            code = "incomplete"
            detail = "the file ends without the blank line that completes a message"
        return Span(start, max(end - blank, start), end, code, detail)

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

    def _next(self, position: int) -> int:
        """Return where the first From_ line from there on starts, or the size."""
        while position < self._size:
            self._fill(position - 1)
            found = _SEPARATOR.search(self._block, position - 1 - self._base)
            if found:
                return self._base + found.start() + 1
            end = self._base + len(self._block)
            if end >= self._size or not self._block:
                break
            position = end - _SLACK_BYTES
        return self._size

    def _fill(self, position: int) -> None:
        """Load a block that extends well beyond the position."""
        end = self._base + len(self._block)
        is_enough = position + 2 * _SLACK_BYTES <= end or end >= self._size
        if self._block and self._base <= position < end and is_enough:
            return
        self._base = max(position - 3, 0)
        length = min(BLOCK_BYTES, self._size - self._base)
        self._block = self._read_at(self._base, length)


def has_header_end(head: bytes) -> bool:
    """Return whether a header section ends in the start of a message."""
    return bool(_HEADER_END.search(head))


def arrived(line: bytes) -> datetime | None:
    """Return the date of a From_ line; None if it is invalid.

    It is the local time of the server that wrote it (asctime has no zone). Without a
    numeric zone in the line, drainer assumes the zone of this host.
    """
    found = _FROM_LINE.match(line)
    if not found:
        return None
    words = found["date"].decode().split()
    text = f"{words[0]} {words[1]} {words[2][:8]} {words[-1]}"
    form = "%b %d %H:%M:%S %Y" if text.count(":") > 1 else "%b %d %H:%M %Y"
    try:
        local = datetime.strptime(text, form)  # noqa: DTZ007 - see below
        zone = _zone((found["zone"] + found["after"]).decode())
        return (local.replace(tzinfo=zone) if zone else local).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(text: str) -> timezone | None:
    offset = _OFFSET.search(text)
    if offset:
        hours, minutes = int(offset[0][1:3]), int(offset[0][3:])
        if hours < _MAX_OFFSET_HOURS:
            delta = timedelta(hours=hours, minutes=minutes)
            return timezone(-delta if offset[0][0] == "-" else delta)
    return UTC if text.strip() in ("UTC", "GMT") else None


class ReaderState(NamedTuple):
    """The notes of mail readers in a header section."""

    #: Byte ranges of their fields, which are not part of the mail.
    ranges: tuple[tuple[int, int], ...]
    #: The words of a Maildir's flags.
    flags: tuple[str, ...]


def reader_state(head: bytes, *, has_lengths: bool = False) -> ReaderState:
    """Find Status, X-Status, X-UID and similar fields at the start of a message.

    ``has_lengths``: the writer of the mbox added the Content-Length.
    """
    end = _HEADER_END.search(head)
    section = head[: end.start() + 1] if end else head
    ranges: list[tuple[int, int]] = []
    flags: dict[str, None] = {}
    for field in _STATE.finditer(section):
        name = field[1].lower()
        if name == b"content-length" and not has_lengths:
            continue
        ranges.append(field.span())
        for letter, word in _FLAGS.get(name, {}).items():
            if letter in field[2]:
                flags[word] = None
    return ReaderState(tuple(ranges), tuple(flags))


def identity(from_line: bytes, head: bytes) -> str:
    """Return the id of a message by its From_ line and its start.

    ``head`` lacks the fields that readers change; LF and CRLF are the same.
    """
    line = from_line.rstrip(b"\r\n")
    digest = hashlib.sha256(_TAG + b"%d\n" % len(line) + line)
    beginning = head[: 2 * IDENTITY_BYTES].replace(b"\r\n", b"\n")
    digest.update(beginning[:IDENTITY_BYTES])
    return digest.hexdigest()[:32]


_HELD_BACK = re.compile(rb">+(?:F|Fr|Fro|From)?")
_QUOTED = {
    "mboxrd": re.compile(rb"^>(>*From )", re.MULTILINE),
    "mboxo": re.compile(rb"^>(From )", re.MULTILINE),
}
_QUOTED["mboxcl"] = _QUOTED["mboxo"]


def unquote(chunks: Iterable[bytes], variant: str) -> Iterator[bytes]:
    """Remove the quoting from the lines that looked like From_ lines.

    A run of ``>`` of any length is never kept in memory: it does not matter which
    one is removed, so all but one can be passed on before the end is known.
    """
    pattern = _QUOTED.get(variant)
    if pattern is None:
        yield from chunks
        return
    carry = b""
    at_start = True
    for chunk in chunks:
        if not chunk:
            continue
        data = carry + chunk
        # Do not judge a line that started in an earlier chunk and was passed on.
        skip = 0 if at_start else data.find(b"\n") + 1 or len(data)
        line = max(data.rfind(b"\n") + 1, skip)
        carry = data[line:] if _HELD_BACK.fullmatch(data, line) else b""
        at_start = bool(carry) or (line == len(data) and data.endswith(b"\n"))
        settled = data[: len(data) - len(carry)]
        if carry.startswith(b">>"):
            settled, carry, at_start = _shorten(settled, carry, variant)
        yield settled[:skip] + pattern.sub(rb"\1", settled[skip:])
    if carry:
        yield carry


def _shorten(settled: bytes, carry: bytes, variant: str) -> tuple[bytes, bytes, bool]:
    """Pass on what is decided about a line of several ``>``."""
    if variant != "mboxrd":  # only a single one is a quote
        return settled + carry, b"", False
    signs = len(carry) - len(carry.lstrip(b">")) - 1
    return settled + carry[:signs], carry[signs:], True
