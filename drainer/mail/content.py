"""Content on its way to the wire: examined, dot-stuffed, never changed.

Chunks always have CRLF line ends. A CR or LF that is not part of a CRLF is *bare*. Some
servers take it for a line end and some do not, which makes SMTP smuggling possible. So
this module counts them, and none is sent unnoticed (RFC 5321 2.3.8, 4.1.1.4).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from drainer.errors import MessageUnreadable
from drainer.mail.message import ContentFacts, SpooledMessage

MAX_HEADER_BYTES = 512 * 1024
"""Bytes of a header section that are kept to count fields; the rest is content."""

MAX_LINE_BYTES = 998
"""Longest line, without its line end (RFC 5322 2.1.1)."""

_MESSAGE_ID = b"\nmessage-id:"
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_TEXT = re.compile(
    rb"^content-type[ \t]*:\s*(?:text/(?:plain|html)|multipart/alternative)\b",
    re.IGNORECASE | re.MULTILINE,
)
_TYPED = re.compile(rb"^content-type[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class ContentSurvey:
    """Collect the facts of a content in one pass: feed every chunk, then finish."""

    def __init__(self, *, digest: bool = False) -> None:
        """Start empty; ``digest`` also computes the SHA-256."""
        self._size = self._bare = 0
        self._8bit = self._head_8bit = self._attached = False
        self._head = bytearray()
        self._hops: int | None = None
        self._after_cr = False
        self._sha256 = hashlib.sha256() if digest else None

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk, of any size."""
        if not chunk:
            return
        self._size += len(chunk)
        if not self._8bit and not chunk.isascii():
            self._8bit = True
        if self._hops is None:
            self._feed_head(chunk)
        self._count_bare(chunk)
        if self._sha256 is not None:
            self._sha256.update(chunk)

    def _feed_head(self, chunk: bytes) -> None:
        searched = max(0, len(self._head) - 3)
        self._head += chunk
        end = self._head.find(b"\r\n\r\n", searched)
        if self._head.startswith(b"\r\n"):
            end = 0
        if end >= 0 or len(self._head) > MAX_HEADER_BYTES:
            self._close_head(end if end >= 0 else MAX_HEADER_BYTES)

    def _close_head(self, end: int) -> None:
        head = bytes(self._head[:end])
        self._hops = len(_RECEIVED.findall(head))
        self._head_8bit = not head.isascii()
        self._attached = bool(_TYPED.search(head)) and not _TEXT.search(head)
        self._head.clear()

    def _count_bare(self, chunk: bytes) -> None:
        ends = len(chunk) - len(chunk.translate(None, b"\r\n"))  # quicker than count
        bare = ends - 2 * chunk.count(b"\r\n")
        if self._after_cr:  # the CR before the chunk was counted as bare
            bare += -2 if chunk.startswith(b"\n") else 0
        self._bare += bare
        self._after_cr = chunk.endswith(b"\r")

    def finish(self) -> ContentFacts:
        """Return the facts; feed nothing afterwards."""
        if self._hops is None:
            self._close_head(len(self._head))
        return ContentFacts(
            size_bytes=self._size,
            has_8bit=self._8bit,
            header_8bit=self._head_8bit,
            bare_newlines=self._bare,
            hops=self._hops or 0,
            has_attachment=self._attached,
            sha256=self._sha256.hexdigest() if self._sha256 else "",
        )


def survey(chunks: Iterable[bytes], *, digest: bool = False) -> ContentFacts:
    """Return the facts of a whole content."""
    result = ContentSurvey(digest=digest)
    for chunk in chunks:
        result.feed(chunk)
    return result.finish()


def crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Turn LF line ends into CRLF and complete the last line.

    An existing CRLF is a line end too. A CR elsewhere stays a bare CR.
    """
    after_cr, ends_line = False, True
    for chunk in chunks:
        if not chunk:
            continue
        head = b""
        if after_cr and chunk.startswith(b"\n"):
            head, chunk = b"\n", chunk[1:]  # noqa: PLW2901 - the CR was sent already
        after_cr = chunk.endswith(b"\r") if chunk else False
        ends_line = chunk.endswith(b"\n") if chunk else True
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")  # noqa: PLW2901
        yield head + chunk.replace(b"\n", b"\r\n")
    if not ends_line:
        yield b"\r\n"


def whole(chunks: Iterator[bytes], expected: int) -> Iterator[bytes]:
    """Yield a content that is as long as it was surveyed.

    Otherwise it raises MessageUnreadable before its end, so that no final dot follows:
    the file was still being written, or has been replaced.
    """
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > expected:
            break
        yield chunk
    if size != expected:
        raise MessageUnreadable("vanished", f"{size} bytes instead of {expected}")


def dot_stuff(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Double the dot at the start of every line (RFC 5321 4.5.2)."""
    tail = b"\r\n"  # the last two bytes before the chunk
    for chunk in chunks:
        if not chunk:
            continue
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        if (chunk.startswith(b".") and tail == b"\r\n") or (
            chunk.startswith(b"\n.") and tail.endswith(b"\r")
        ):
            cut = chunk.index(b".")
            stuffed = stuffed[:cut] + b"." + stuffed[cut:]
        yield stuffed
        tail = chunk[-2:] if len(chunk) > 1 else tail[-1:] + chunk


def replace_bare_newlines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put a space for every bare CR or LF, as Postfix's cleanup does.

    Only on the operator's request, because it breaks signatures. Line ends that are
    split between two chunks stay whole.
    """
    held = b""
    for chunk in chunks:
        data = held + chunk
        held = b"\r" if data.endswith(b"\r") else b""
        yield _BARE.sub(b" ", data[: len(data) - len(held)])
    if held:
        yield b" "


def message_id_of(head: bytes) -> str:
    """Return the text of the Message-ID field from the start of a content.

    ``head`` has LF or CRLF line ends. '' = no such field, or one that must not be
    printed: longer than a line (RFC 5322 2.1.1), or not printable UTF-8.
    """
    if head.startswith((b"\r\n", b"\n")):
        return ""
    for blank_line in (b"\r\n\r\n", b"\n\n"):
        head = head.partition(blank_line)[0]
    start = (b"\n" + head).lower().find(_MESSAGE_ID)
    if start < 0:
        return ""
    line, *rest = head[start + len(_MESSAGE_ID) - 1 :].split(b"\n", 8)
    for more in rest:
        if not more.startswith((b" ", b"\t")):
            break
        line += more
    try:
        text = line.replace(b"\r", b"").strip().decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text.encode()) <= MAX_LINE_BYTES else ""


class HeldContent(NamedTuple):
    """A content in memory, with CRLF line ends."""

    data: bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield it in one piece."""
        if self.data:
            yield self.data


def held_bytes(spooled: SpooledMessage | None) -> int:
    """Return how much of a message's content is in memory."""
    content = spooled.content if spooled is not None else None
    return len(content.data) if isinstance(content, HeldContent) else 0
