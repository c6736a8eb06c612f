"""Exim's ``-H`` and ``-J`` files as they are stored (spool_in.c, spool_out.c); pure.

``-H`` is text, but not all of it is lines: values of ACL variables and header fields
have a length, and may contain text that looks like lines.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from drainer.sources.common.control_files import fail

MAX_RECIPIENTS = 200_000
"""Most recipients, and most done addresses; Exim stops far below."""

MAX_FIELDS = 100_000

_MAX_DIGITS = 12
_MAX_SECONDS = 253_402_300_800  # the year 10000
_MAX_FIRST_LINE = 300
_COUNTED = frozenset({b"acl", b"aclc", b"aclm"})
_KEPT = frozenset(
    (
        b"N", b"auth_id", b"body_linecount", b"dsn_envid", b"dsn_ret", b"frozen",
        b"helo_name", b"host_address", b"host_name", b"localerror", b"manual_thaw",
        b"received_time_usec", b"smtputf8", b"spool_file_wireformat",
    )
)  # fmt: skip
_ERRORS_TO, _DSN = 1, 2
_DELETED = ord("*")


class EximRecipient(NamedTuple):
    """A recipient as stored: bytes, quoted as on the wire."""

    address: bytes
    #: Still in xtext, as the client sent it.
    orcpt: bytes = b""
    #: Bits: 2 NEVER, 4 SUCCESS, 8 FAILURE, 16 DELAY.
    notify: int = 0
    #: Another envelope sender for this recipient; b'' = none.
    errors_to: bytes = b""
    #: An alias that is expanded only once became this address.
    is_child: bool = False


@dataclass(slots=True)
class EximHeader:
    """The content of a ``-H`` file."""

    #: The message id of the first line.
    id: bytes
    #: b'' = the null sender.
    sender: bytes
    #: Seconds since the epoch.
    received: int
    #: How many delay warnings were sent.
    warnings: int
    #: The ``-name value`` lines that drainer uses.
    variables: dict[bytes, bytes] = field(default_factory=dict)
    #: The tree of non-recipients: delivered, failed, or an alias's child.
    done: list[bytes] = field(default_factory=list)
    recipients: list[EximRecipient] = field(default_factory=list)
    #: The header section, with LF, without the fields that Exim has deleted.
    section: bytes = b""

    def number(self, name: bytes) -> int:
        """Return a variable that is a count; 0 if absent or not a number."""
        text = self.variables.get(name, b"")
        return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else 0


def parse_header(data: bytes) -> EximHeader:
    """Parse a ``-H`` file; raises MessageUnreadable('corrupt')."""
    cursor = _Cursor(data)
    header = _preamble(cursor)
    line = _variables(cursor, header.variables)
    _tree(cursor, line, header.done)
    header.recipients = _recipients(cursor)
    if cursor.line("a blank line"):
        fail("no blank line after the recipients")
    header.section = _section(cursor)
    return header


def parse_journal(data: bytes) -> list[bytes]:
    """Return the addresses in ``-J``: done since ``-H`` was last written.

    Raises MessageUnreadable('corrupt') when it is cut: its last line is unknown, so
    drainer might send twice.
    """
    if not data:
        return []
    if not data.endswith(b"\n") or b"\0" in data:
        fail("its journal (-J) is cut off")
    lines = data[:-1].split(b"\n", MAX_RECIPIENTS)
    if len(lines) > MAX_RECIPIENTS:
        fail(f"its journal (-J) has more than {MAX_RECIPIENTS} lines")
    return lines


class _Cursor:
    """A position in the file."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def line(self, what: str) -> bytes:
        """Return the next line without its end."""
        end = self.data.find(b"\n", self.position)
        if end < 0:
            fail(f"the -H file ends where {what} should be")
        start, self.position = self.position, end + 1
        return self.data[start:end]

    def take(self, length: int, what: str) -> bytes:
        """Return the next bytes; they must end with a line end."""
        start, self.position = self.position, self.position + length
        taken = self.data[start : self.position]
        if len(taken) < length or not taken.endswith(b"\n"):
            fail(f"the length of {what} at {start} is wrong, or the -H file is cut off")
        return taken


def _number(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        fail(f"{what} is not a number: {text[:40]!r}")
    return int(text)


def _preamble(cursor: _Cursor) -> EximHeader:
    """Read the four lines that are always there."""
    first = cursor.line("the message id")
    if not first.endswith(b"-H") or len(first) > _MAX_FIRST_LINE:
        fail(f"its first line is not its name: {first[:40]!r}")
    cursor.line("the user")  # 'login uid gid' of the user that ran Exim
    sender = cursor.line("the sender")
    if not (sender.startswith(b"<") and sender.endswith(b">")):
        fail(f"no sender in angle brackets: {sender[:40]!r}")
    received, _, warnings = cursor.line("the time").partition(b" ")
    seconds = _number(received, "the time of arrival")
    if seconds >= _MAX_SECONDS:
        fail(f"not a time: {seconds}")
    return EximHeader(first[:-2], sender[1:-1], seconds, _number(warnings, "a count"))


def _variables(cursor: _Cursor, into: dict[bytes, bytes]) -> bytes:
    """Read the lines that start with a minus; return the line after them."""
    while (line := cursor.line("the tree of done addresses")).startswith(b"-"):
        name, _, value = _remove_taint(line[1:]).partition(b" ")
        if name in _COUNTED:
            length = value.rpartition(b" ")[2]
            cursor.take(_number(length, "the length of an ACL variable") + 1, "one")
        elif name in _KEPT:
            into[name] = value
    return line


def _remove_taint(line: bytes) -> bytes:
    """Remove the marks of values from outside: ``-name``, ``-(lookup)name``."""
    line = line.removeprefix(b"-")
    if line.startswith(b"("):
        line = line.partition(b")")[2]
    return line


def _tree(cursor: _Cursor, line: bytes, into: list[bytes]) -> None:
    """Read the tree in its order: the left subtree comes before the right one."""
    if line == b"XX":
        return
    expected = 1
    while expected:
        if line[:1] not in (b"Y", b"N") or line[1:2] not in (b"Y", b"N"):
            fail(f"the tree of done addresses is broken: {line[:40]!r}")
        if line[2:3] != b" " or len(into) >= MAX_RECIPIENTS:
            fail("the tree of done addresses is broken, or too large")
        into.append(line[3:])
        expected += line[:2].count(b"Y") - 1
        if expected:
            line = cursor.line("a done address")


def _recipients(cursor: _Cursor) -> list[EximRecipient]:
    count = _number(cursor.line("the number of recipients"), "the recipients' number")
    if count > MAX_RECIPIENTS:
        fail(f"more than {MAX_RECIPIENTS} recipients")
    return [parse_recipient(cursor.line("a recipient")) for _ in range(count)]


def parse_recipient(line: bytes) -> EximRecipient:
    """Read a recipient from the right, where its parts can be separated.

    ``address``, ``address orcpt LEN,FLAGS errors_to LEN,PARENT#BITS``, and the formats
    of older versions: ``address PARENT``, ``address N,N,N``.
    """
    if b"\0" in line or not line:
        fail(f"not a recipient: {line[:40]!r}")
    rest = line.rstrip(b"0123456789")
    digits = line[len(rest) :]
    if not digits or rest[-1:] not in (b"#", b" ", b","):
        return EximRecipient(line)
    if not rest.endswith(b"#"):
        return EximRecipient(rest.rstrip(b"-0123456789,").rstrip(b" "))
    bits = _number(digits, "the bits of a recipient")
    rest = rest[:-1]
    errors_to = orcpt = b""
    notify, parent = 0, -1
    if bits & _ERRORS_TO:
        rest, errors_to, parent = _counted(rest)
    if bits & _DSN:
        rest, orcpt, notify = _counted(rest)
    if not rest:
        fail(f"a recipient without an address: {line[:40]!r}")
    return EximRecipient(rest, orcpt, max(notify, 0), errors_to, parent >= 0)


def _counted(text: bytes) -> tuple[bytes, bytes, int]:
    """Cut ``... VALUE LEN,NUMBER``; return what is before, the value, the number."""
    before, _, numbers = text.rpartition(b" ")
    length, comma, number = numbers.partition(b",")
    size = _number(length, "the length of a recipient's part")
    if not comma or size > len(before):
        fail(f"a broken recipient: {text[:40]!r}")
    cut = len(before) - size
    if before[cut - 1 : cut] != b" ":
        fail(f"the length of a recipient's part is wrong: {text[:40]!r}")
    if number == b"-1":  # the parent of an address that has none
        return before[: cut - 1], before[cut:], -1
    value = _number(number, "the number of a recipient's part")
    return before[: cut - 1], before[cut:], value


def _section(cursor: _Cursor) -> bytes:
    """Read the header fields, each with its length; skip the deleted ones."""
    fields: list[bytes] = []
    data, size, count = cursor.data, len(cursor.data), 0
    while cursor.position < size:
        count += 1
        if count > MAX_FIELDS:
            fail(f"more than {MAX_FIELDS} header fields")
        start = cursor.position
        end = start
        while end < size and data[end] in b"0123456789":
            end += 1
        length = _number(data[start:end], "the length of a header field")
        if data[end + 1 : end + 2] != b" ":
            fail(f"no header field at {start}")
        cursor.position = end + 2
        text = cursor.take(length, "a header field")
        if b"\0" in text:
            fail("a NUL in a header field")
        if data[end] != _DELETED:
            fields.append(text)
    return b"".join(fields)


def done_test(addresses: list[bytes]) -> Callable[[bytes], bool]:
    """Return a function that finds whether an address is among these.

    Exim writes the domain of done addresses in lower case, whatever the case of the
    recipient; the local part counts unchanged.
    """
    keys = set(map(_key, addresses))
    return lambda address: _key(address) in keys


def _key(address: bytes) -> tuple[bytes, bytes]:
    local, _, domain = address.rpartition(b"@")
    return local, domain.lower()
