"""The mailboxes that a header field names (RFC 5322 3.4), parsed strictly, in one pass.

Python's own parser recurses for each comment, and finds addresses where none are.
"""

import re
from collections.abc import Sequence

from drainer.mail.envelope import AddressError, parse_mailbox
from drainer.mail.header import unfold
from drainer.mail.mailbox import canonical_mailbox

_PHRASE = r'(?:[^"(),:;<>@\[\\\]]|"(?:[^"\\]|\\.)*")*'
_ONE_AUTHOR = re.compile(rf"{_PHRASE}<([^<>]*)>|([^(),:;<>\s]+)")
"""The two forms of a From value that all programs read the same way."""
MAX_AUTHOR_LENGTH = 2000


class _Reader:
    """One pass over a field's value; it skips comments, names and groups."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._plain: list[str] = []
        self._angle: list[str] | None = None
        self._is_in_angle = self._is_quoted = self._is_escaped = False
        self._depth = 0

    def feed(self, char: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
            self._keep(char)
        elif char == "\\" and (self._is_quoted or self._depth):
            self._is_escaped = True
            self._keep(char)
        elif self._depth:
            self._depth += {"(": 1, ")": -1}.get(char, 0)
        elif char == '"':
            self._is_quoted = not self._is_quoted
            self._keep(char)
        elif self._is_quoted:
            self._keep(char)
        else:
            self._feed_special(char)

    def _feed_special(self, char: str) -> None:
        match char:
            case "(":
                self._depth = 1
            case "<":
                self._is_in_angle = True
                self._angle = [] if self._angle is None else [*self._angle, "<"]
            case ">":
                self._is_in_angle = False
            case "," | ";" if not self._is_in_angle:
                self.end()
            case ":" if not self._is_in_angle:
                self._plain.clear()  # the name of a group
            case _:
                self._keep(char)

    def _keep(self, char: str) -> None:
        if self._depth:
            return
        if self._is_in_angle and self._angle is not None:
            self._angle.append(char)
        else:
            self._plain.append(char)

    def end(self) -> None:
        """Finish one mailbox."""
        chars = self._plain if self._angle is None else self._angle
        text = "".join(chars).strip(" \t")
        if text or self._angle is not None:
            self.found.append(text)
        self._plain, self._angle = [], None
        self._is_in_angle = False


def mailboxes_of(value: str) -> tuple[str, ...]:
    """Return the mailboxes of an unfolded value in order; '' for an invalid one."""
    reader = _Reader()
    for char in value:
        reader.feed(char)
    reader.end()
    return tuple(map(_parse_or_empty, reader.found))


def author_of(value: str) -> str:
    """Return the one address of an unfolded From value; '' if it is not plain.

    Lists, groups, comments and addresses outside the angle brackets are not plain: the
    signer may have taken another address as the author.
    """
    if len(value) > MAX_AUTHOR_LENGTH:
        return ""
    match = _ONE_AUTHOR.fullmatch(value.strip(" \t"))
    if match is None:
        return ""
    return _parse_or_empty((match[1] or match[2] or "").strip(" \t"))


def only_author(values: Sequence[str]) -> str:
    """Return the canonical address of the only From (RFC 5322 3.6.2); '' if none.

    ``values`` are all From values of a message, unchanged.
    """
    return canonical_mailbox(author_of(unfold(values[0]))) if len(values) == 1 else ""


def _parse_or_empty(text: str) -> str:
    try:
        return parse_mailbox(text) if "@" in text else ""
    except AddressError:
        return ""
