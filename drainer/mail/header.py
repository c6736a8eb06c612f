"""The header section of a message as fields with their positions; pure.

Nothing is decoded or repaired: a field is the bytes between two offsets. What the
backup wrote is above its own Received field; everything below came with the message
(RFC 5321 4.4).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_RECEIVED_LENGTH = 8192
"""Characters of a Received field that are examined."""

HEADER_END = re.compile(rb"\n\r?\n|\A\r?\n")
"""The blank line after a header section, with the line end before it."""
_FIELD_NAME = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")
_LINE_START_BY = re.compile(r"\n[ \t]+by[ \t]+([^\s;()]+)", re.IGNORECASE)
_BY = re.compile(r"(?:^|\s)by\s+([^\s;()]+)", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)")


class Field(NamedTuple):
    """One header field; ``start`` and ``end`` are offsets, line end included."""

    #: In lower case.
    name: str
    start: int
    end: int
    #: After the colon, unchanged: folded and with its line end.
    value: str


def fields_of(head: bytes, position: int = 0) -> Iterator[Field]:
    """Yield the fields of a header section in order; the first invalid line ends it."""
    while name := _FIELD_NAME.match(head, position):
        end = _line_end(head, position)
        while head[end : end + 1] in (b" ", b"\t"):
            end = _line_end(head, end)
        value = head[name.end() : end].decode("utf-8", "surrogateescape")
        yield Field(name[1].decode().lower(), position, end, value)
        position = end


def _line_end(head: bytes, position: int) -> int:
    end = head.find(b"\n", position) + 1
    return end or len(head)


def unfold(value: str) -> str:
    """Remove the folding; a CR that ends no line stays, and is refused later."""
    return value.replace("\r\n", "").replace("\n", "").strip(" \t")


def received_by(value: str) -> tuple[str, str]:
    """Return the ``by`` host of a Received field, and the text after it.

    A client chooses the HELO name after ``from``. With some servers that name may
    contain blanks and parentheses: ``HELO x by mx2.example``. It never contains a line
    break, so a ``by`` at the start of a folded line is the server's own. Otherwise the
    last one outside of comments counts.
    """
    text = value[:MAX_RECEIVED_LENGTH]
    matches = list(_LINE_START_BY.finditer(text))
    if not matches:
        text = remove_comments(text)
        matches = list(_BY.finditer(text))
    if not matches:
        return "", ""
    return matches[-1][1], text[matches[-1].end() :]


def remove_comments(text: str) -> str:
    """Replace comments by blanks, nested ones to a depth of ten."""
    for _ in range(10):
        text, count = _COMMENT.subn(" ", text)
        if not count:
            break
    return text


def host_name(name: str) -> str:
    """Return a host's name for comparison: lower case, no dot at its end."""
    return name.strip().rstrip(".").lower()
