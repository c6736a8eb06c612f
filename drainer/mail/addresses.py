"""The mailboxes that a header field names (RFC 5322 3.4), strictly and without haste.

Python's own parser recurses for each comment, and finds an address in what is none.
"""

from drainer.mail.envelope import AddressError, parse_mailbox


class _Reader:
    """One pass over a field's value; comments, names and groups are left out."""

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
        """Close one mailbox."""
        chars = self._plain if self._angle is None else self._angle
        text = "".join(chars).strip(" \t")
        if text or self._angle is not None:
            self.found.append(text)
        self._plain, self._angle = [], None
        self._is_in_angle = False


def mailboxes_of(value: str) -> tuple[str, ...]:
    """Return the mailboxes of an unfolded value in order; '' for what is none."""
    reader = _Reader()
    for char in value:
        reader.feed(char)
    reader.end()
    return tuple(map(_checked, reader.found))


def _checked(text: str) -> str:
    try:
        return parse_mailbox(text) if "@" in text else ""
    except AddressError:
        return ""
