"""Postfix queue files, record by record; pure functions over bytes.

A file is a stream of records: a type byte, a length of at most four seven-bit groups, a
payload. Three segments follow each other: envelope (to ``M``), content (to ``X``),
extracted (to ``E``). Milters edit a file in place by writing a pointer over a record,
so the parser must follow pointers. The records it visits are the message; what is
between them is garbage. Every byte belongs to at most one visited record, so a file
that makes the parser visit more than its size is a loop. The rules are Postfix's own
(global/record.c, rec_type.h, qmgr_message.c).

One parser serves two ways of access: the whole file in memory, or a window that moves
over it.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

from drainer.sources.common.control_files import fail
from drainer.sources.common.files import CHUNK_BYTES, ReadAt

MAX_BACKWARD_JUMPS = 10_000
"""Postfix's own limit in a file (global/record.c)."""

MAX_RECORD_BYTES = CHUNK_BYTES
"""Longest record that is kept whole; content records may be of any length."""

MAX_ENVELOPE_BYTES = 48 * 1024 * 1024
"""Most data of a file that are kept besides its content: 150,000 recipients fit."""

_FRAME_BYTES = 5
_RECORD_COST = 64
_LOW_BITS = 0x7F
_CRLF = b"\r\n"
_FEW_LINES, _MANY_LINES = 8, 512
_TEXT, _PART, _POINTER, _PADDING = b"NLpw"
_MESSAGE, _EXTRACTED, _END = b"MXE"


class RecordReader:
    """A position in a queue file: framing, pointers, protection against loops.

    Without ``read_at`` the data is the whole file. With it, ``size`` is the length of
    the file, of which only a window is in memory. ``offset`` is that of a record.
    """

    __slots__ = ("_base", "_budget", "_buffer", "_jumps", "_position", "_read_at")

    def __init__(
        self,
        data: bytes = b"",
        *,
        read_at: ReadAt | None = None,
        size: int = 0,
        offset: int = 0,
    ) -> None:
        """Start at a record, by default the first one."""
        self._buffer = data
        self._base = offset
        self._position = self._jumps = 0
        self._read_at = read_at
        self._budget = size if read_at else len(data)

    def records(self, allowed: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        """Yield type and payload of each record, to the segment's marker.

        Follows pointers and skips padding. Raises MessageUnreadable.
        """
        left = MAX_ENVELOPE_BYTES
        while True:
            buffer, text = self._buffer, self._position + 2
            length = buffer[text - 1] if text <= len(buffer) else MAX_RECORD_BYTES
            if length <= _LOW_BITS and text + length <= len(buffer):
                # A short record that is whole in the window: without further calls.
                kind, payload = buffer[text - 2], buffer[text : text + length]
                self._position = text + length
                self._budget -= 2 + length
            else:
                kind, length = self._head()
                payload = b"" if kind == _PADDING else self._take(length)
                if kind == _PADDING:
                    self._skip(length)
            if kind == _PADDING:
                continue
            if kind == _POINTER:
                self._follow(payload)
                continue
            if kind not in allowed:
                detail = f"record type {chr(kind)!r} in the wrong segment"
                fail(f"{detail}, before offset {self.offset}")
            left -= length + _RECORD_COST
            if left < 0:
                fail(f"an envelope of more than {MAX_ENVELOPE_BYTES} bytes")
            yield kind, payload
            if kind in (_MESSAGE, _END):
                return

    def content(self) -> Iterator[bytes]:
        """Yield the content with CRLF line ends, to the 'X' marker.

        A last line without its end gets one, as Postfix sends it (smtp_proto.c).
        """
        line_is_open = False
        while True:
            text, line_is_open = self._text_run(line_is_open=line_is_open)
            if text:
                yield text
            kind, length = self._head()
            if kind == _POINTER:
                self._follow(self._take(length))
            elif kind in (_TEXT, _PART):
                yield from self._long_text(length)
                line_is_open = kind == _PART
                if not line_is_open:
                    yield _CRLF
            elif kind in (_PADDING, _EXTRACTED):
                self._skip(length)
            else:
                detail = f"record type {chr(kind)!r} within the content"
                fail(f"{detail}, before offset {self.offset}")
            if kind == _EXTRACTED:
                break
        if line_is_open:
            yield _CRLF

    def seek_extracted(self, offset: int) -> bool:
        """Skip the content: move behind the 'X' marker, if one is at the offset."""
        if not self._read_at or self._read_at(offset, 1) != bytes((_EXTRACTED,)):
            return False
        self._move(offset)
        _, length = self._head()
        self._skip(length)
        return True

    @property
    def offset(self) -> int:
        """Where the next byte is read, from the start of the file."""
        return self._base + self._position

    def _text_run(self, *, line_is_open: bool) -> tuple[bytes, bool]:
        """Take the text records that are whole in the window: the hot loop.

        Returns their text, and whether its last line is open (unchanged if there are
        none). Local variables and no calls, because this runs once per line of the
        mail; lines of one length, as an attachment has them, are taken together.
        """
        low, buffer, start = _LOW_BITS, self._buffer, self._position
        position, limit, last = start, len(buffer), -1
        lines: list[bytes | bytearray] = []
        append = lines.append
        parts: list[bytes] = []  # of the open line
        # The window may end within a frame: _head moves it or reports.
        with suppress(IndexError):
            while True:
                kind = buffer[position]
                length = buffer[position + 1]
                text = position + 2
                if length > low:
                    more = buffer[text]
                    if more > low:
                        break
                    length = (length & low) | (more << 7)
                    text += 1
                end = text + length
                if end > limit:
                    break
                if kind == _TEXT:
                    if parts:
                        append(b"".join((*parts, buffer[text:end])))
                        parts = []
                    elif length == last <= low and _are_equal(buffer, position):
                        end, equal = _equal_lines(buffer, position)
                        append(equal)
                    else:
                        append(buffer[text:end])
                    last = length
                elif kind == _PART:
                    parts.append(buffer[text:end])
                else:
                    break
                position = end
        self._position = position
        self._budget -= position - start
        append(b"".join(parts))
        is_open = bool(parts) if position > start else line_is_open
        return _CRLF.join(lines), is_open

    def _long_text(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self._take(min(length, CHUNK_BYTES))
            length -= len(piece)
            yield piece

    def _head(self) -> tuple[int, int]:
        """Read type and length of a record; move to its payload."""
        if len(self._buffer) - self._position < _FRAME_BYTES:
            self._load(_FRAME_BYTES)
        buffer, position = self._buffer, self._position
        try:
            kind = buffer[position]
            length = buffer[position + 1]
            position += 2
            if length > _LOW_BITS:
                length &= _LOW_BITS
                for shift in (7, 14, 21):
                    more = buffer[position]
                    position += 1
                    length |= (more & _LOW_BITS) << shift
                    if more <= _LOW_BITS:
                        break
                else:
                    fail(f"bad record length before {self._base + position}")
        except IndexError:
            self._fail_truncated()
        self._budget -= position - self._position + length
        self._position = position
        return kind, length

    def _take(self, length: int) -> bytes:
        if length > MAX_RECORD_BYTES:
            fail(f"a record of {length} bytes at offset {self.offset}")
        if len(self._buffer) - self._position < length:
            self._load(length)
        start = self._position
        payload = self._buffer[start : start + length]
        if len(payload) < length:
            self._fail_truncated()
        self._position = start + length
        return payload

    def _skip(self, length: int) -> None:
        self._position += length
        if self._position > len(self._buffer):
            self._move(self.offset)

    def _load(self, length: int) -> None:
        """Move the window so that it starts at the position."""
        if self._read_at:
            self._base = self.offset
            self._buffer = self._read_at(self._base, max(length, CHUNK_BYTES))
            self._position = 0

    def _follow(self, payload: bytes) -> None:
        """Move to the target of a pointer; zero is a placeholder."""
        text = payload.strip()
        if not text.isdigit() or len(text) > len("123456789012345"):
            fail(f"bad pointer {payload[:20]!r} before {self.offset}")
        if self._budget < 0:
            fail(f"a pointer loop before offset {self.offset}")
        target = int(text)
        if not target:
            return
        if target < self.offset:
            self._jumps += 1
            if self._jumps > MAX_BACKWARD_JUMPS:
                fail(f"more than {MAX_BACKWARD_JUMPS} jumps backward")
        self._move(target)

    def _move(self, offset: int) -> None:
        position = offset - self._base
        if self._read_at and not 0 <= position <= len(self._buffer):
            self._base, self._buffer, position = offset, b"", 0
        self._position = position

    def _fail_truncated(self) -> NoReturn:
        fail(f"it ends within a record or segment, at {self.offset}")


def _are_equal(buffer: bytes, position: int) -> bool:
    """Guess from one record further on whether many text records are equally long."""
    head = buffer[position : position + 2]
    return buffer.startswith(head, position + _FEW_LINES * (2 + head[1]))


def _equal_lines(buffer: bytes, position: int) -> tuple[int, bytearray]:
    """Take the text records of one length below 128 that start at a position.

    The first one is whole. Returns the position behind them, and their text without the
    last line end. A CRLF is as long as the head of such a record, and takes its place.
    """
    length = buffer[position + 1]
    stride = 2 + length
    whole = (len(buffer) - position) // stride
    stop = position + min(whole, _MANY_LINES) * stride
    kinds = buffer[position:stop:stride]
    lengths = buffer[position + 1 : stop : stride]
    count = min(
        len(kinds) - len(kinds.lstrip(kinds[:1])),
        len(lengths) - len(lengths.lstrip(lengths[:1])),
    )
    end = position + count * stride
    text = bytearray(buffer[position + 2 : end])
    text[length::stride] = b"\r" * (count - 1)
    text[length + 1 :: stride] = b"\n" * (count - 1)
    return end, text
