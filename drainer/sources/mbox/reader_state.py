"""What mail readers noted in the header section of a message in an mbox; pure.

Their fields are not part of the mail: Status and X-Status of mbox readers, and the
fields that Thunderbird writes on top of a message.
"""

import re
from typing import NamedTuple

from drainer.mail.header import HEADER_END

_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_VALUE = rb"[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)"
_STATE = re.compile(
    rb"^(status|x-status|x-uid|x-keywords|x-imap|x-imapbase|content-length)" + _VALUE,
    re.IGNORECASE | re.MULTILINE,
)
_ON_TOP = re.compile(
    rb"^(x-mozilla-status2?|x-mozilla-keys|x-account-key|x-uidl)" + _VALUE,
    re.IGNORECASE | re.MULTILINE,
)
_FLAGS = {
    b"status": {b"R": "seen"},
    b"x-status": {b"A": "replied", b"F": "flagged", b"D": "trashed", b"T": "draft"},
}
_MOZILLA_FLAGS = {1: "seen", 2: "replied", 4: "flagged", 8: "trashed"}
"""The bits of X-Mozilla-Status (nsMsgMessageFlags.idl)."""
_HEX = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*\r?\Z")


class ReaderState(NamedTuple):
    """The notes of mail readers in a header section."""

    #: Byte ranges of their fields, which are not part of the mail.
    ranges: tuple[tuple[int, int], ...]
    #: The words of a Maildir's flags.
    flags: tuple[str, ...]


def reader_state(head: bytes, *, has_lengths: bool = False) -> ReaderState:
    """Find the fields of readers at the start of a message.

    ``has_lengths``: the writer of the mbox added the Content-Length. Thunderbird's
    fields count only above the first Received; below it, they came with the mail.
    """
    end = HEADER_END.search(head)
    section = head[: end.start() + 1] if end else head
    received = _RECEIVED.search(section)
    top = section[: received.start()] if received else section
    ranges: list[tuple[int, int]] = []
    flags: dict[str, None] = {}
    for field in (*_STATE.finditer(section), *_ON_TOP.finditer(top)):
        name = field[1].lower()
        if name == b"content-length" and not has_lengths:
            continue
        ranges.append(field.span())
        flags.update(dict.fromkeys(_words(name, field[2])))
    return ReaderState(tuple(sorted(ranges)), tuple(flags))


def _words(name: bytes, value: bytes) -> list[str]:
    if name == b"x-mozilla-status":
        found = _HEX.match(value)
        bits = int(found[1], 16) if found else 0
        return [word for bit, word in _MOZILLA_FLAGS.items() if bits & bit]
    letters = _FLAGS.get(name, {})
    return [word for letter, word in letters.items() if letter in value]
