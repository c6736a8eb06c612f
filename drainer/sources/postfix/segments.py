"""The data in the envelope and the extracted segment of a Postfix queue file; pure.

Both contain recipients. qmgr_message.c defines which of several records of a kind
counts, and which attribute belongs to which recipient.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from drainer.sources.common.control_files import fail
from drainer.sources.postfix.records import RecordReader

_RECIPIENT, _DONE, _CANCELLED = b"RD/"
_SIZE, _TIME, _SENDER, _ORIGINAL, _ATTRIBUTE = b"CTSOA"
_FILTER, _REDIRECT, _VERP, _WARNING = b"L>VW"
_MAX_SECONDS = 253_402_300_800  # the year 10000
_MICROSECONDS = 1_000_000
_ENVELOPE_TYPES = frozenset(b"MCTcFILSDRO/WVA>K<ion")
_EXTRACTED_TYPES = frozenset(b"EDRO/PreAFIL>Kon")
_PSEUDO_ATTRIBUTES = {
    ord("i"): b"envelope_id",
    ord("<"): b"ret_flags",
    ord("o"): b"dsn_orig_rcpt",
    ord("n"): b"notify_flags",
}
_FIRST_COUNTS = frozenset({b"create_time", b"sasl_username"})
_LAST_COUNTS = frozenset(
    b"encoding envelope_id ret_flags trace_flags client_address client_name helo_name"
    b" log_client_address log_client_name log_helo_name".split()
)
"""The attributes that mean something to drainer; a file has some twenty."""


class PostfixRecipient(NamedTuple):
    """A recipient as stored: bytes, unquoted."""

    address: bytes
    #: The RCPT address before aliases ('O'); b'' = not recorded.
    original: bytes
    orcpt: bytes
    notify: int


@dataclass(slots=True)
class EnvelopeRecords:
    """The data in the envelope and the extracted segment."""

    sender: bytes | None = None
    #: Seconds and microseconds.
    arrival: tuple[int, int] | None = None
    #: The numbers of the 'C' record; empty without one.
    sizes: tuple[int, ...] = ()
    pending: list[PostfixRecipient] = field(default_factory=list)
    #: Delivered or bounced by Postfix.
    done: list[bytes] = field(default_factory=list)
    #: Deleted by a milter.
    cancelled: int = 0
    #: Those that mean something to drainer.
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    redirect: bytes = b""
    filter: bytes = b""
    verp: bytes = b""
    #: The time of the next delay warning; -1 after one was sent.
    warning: int | None = None

    @property
    def being_written(self) -> bool:
        """Whether the size record still holds the zeros of an unfinished file."""
        return bool(self.sizes) and not any(self.sizes)

    def number(self, field_number: int) -> int:
        """Return a field of the 'C' record, counted from 1; 0 = absent."""
        return self.sizes[field_number - 1] if len(self.sizes) >= field_number else 0


def read_envelope(
    reader: RecordReader, into: EnvelopeRecords, *, cleaned: bool = True
) -> None:
    """Read the first segment; data read so far stay when this raises.

    The execute bit is set before Postfix's fsync returns, so a file may lack required
    data; this is where they are checked. A submission that was not yet ``cleaned`` has
    no size record.
    """
    gather(reader.records(_ENVELOPE_TYPES), into)
    if into.sender is None:
        fail("no sender record")
    if into.arrival is None:
        fail("no arrival time record")
    if cleaned and not into.sizes:
        fail("no size record")


def read_extracted(reader: RecordReader, into: EnvelopeRecords) -> None:
    """Read the last segment, which may contain recipients too, up to 'E'."""
    gather(reader.records(_EXTRACTED_TYPES), into)


def pending_places(reader: RecordReader) -> Iterator[tuple[int, bytes]]:
    """Yield offset and address of every recipient record that is still to do.

    The offset is that of the record's type. Postfix overwrites it with ``D`` when it is
    done with the recipient (deliver_completed.c).
    """
    for segment in (_ENVELOPE_TYPES, _EXTRACTED_TYPES):
        for kind, payload in reader.records(segment):
            if kind == _RECIPIENT:
                size, head = len(payload), 2
                while size := size >> 7:
                    head += 1
                yield reader.offset - len(payload) - head, payload
        if segment is _ENVELOPE_TYPES:
            for _ in reader.content():
                pass


class _PartialRecipient:
    """Attributes that belong to the next recipient record, of any kind."""

    __slots__ = ("notify", "orcpt", "original")

    def __init__(self) -> None:
        self.original = self.orcpt = b""
        self.notify = 0


def gather(records: Iterator[tuple[int, bytes]], into: EnvelopeRecords) -> None:
    """Sort the records of a segment; duplicates as in qmgr_message.c.

    O, ORCPT and NOTIFY belong only to the next recipient record; done and cancelled
    ones use them up too.
    """
    following = _PartialRecipient()
    for kind, payload in records:
        if kind == _ATTRIBUTE:
            _attribute(payload, into, following)
        elif kind == _RECIPIENT:
            original, orcpt = following.original, following.orcpt
            into.pending.append(
                PostfixRecipient(payload, original, orcpt, following.notify)
            )
            following = _PartialRecipient()
        elif kind == _ORIGINAL:
            following.original = payload
        elif kind == _DONE:
            into.done.append(payload)
            following = _PartialRecipient()
        elif kind == _CANCELLED:
            into.cancelled += 1
            following = _PartialRecipient()
        elif kind in _PSEUDO_ATTRIBUTES:
            _attribute(_PSEUDO_ATTRIBUTES[kind] + b"=" + payload, into, following)
        else:
            _single(kind, payload, into)


def _attribute(
    payload: bytes, into: EnvelopeRecords, following: _PartialRecipient
) -> None:
    name, _, value = payload.partition(b"=")
    name, value = name.strip(), value.strip()
    if not value:  # a placeholder
        return
    if name in _LAST_COUNTS:
        into.attributes[name] = value
    elif name in _FIRST_COUNTS:
        into.attributes.setdefault(name, value)
    elif name == b"dsn_orig_rcpt":
        following.orcpt = value
    elif name == b"notify_flags":
        following.notify = int(value[:9]) & 0xF if value.isdigit() else 0


def _single(kind: int, payload: bytes, into: EnvelopeRecords) -> None:
    """Keep a record that counts once: some by the first, some by the last."""
    if kind == _SIZE:
        into.sizes = into.sizes or _numbers(payload)
    elif kind == _TIME:
        into.arrival = into.arrival or _arrival(payload)
    elif kind == _SENDER:
        into.sender = payload if into.sender is None else into.sender
    elif kind == _WARNING:
        into.warning = _warning(payload) if into.warning is None else into.warning
    elif kind == _FILTER:
        into.filter = payload
    elif kind == _REDIRECT:
        into.redirect = payload
    elif kind == _VERP:
        into.verp = payload


def _numbers(payload: bytes) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in payload[:200].split())
    except ValueError:
        fail(f"not numbers: {payload[:40]!r}")


def _warning(payload: bytes) -> int:
    return (*_numbers(payload), 0)[0]


def _arrival(payload: bytes) -> tuple[int, int]:
    """Read seconds and unpadded microseconds (old files have no microseconds)."""
    seconds, microseconds, *_ = (*_numbers(payload), 0, 0)
    if not (0 < seconds < _MAX_SECONDS and 0 <= microseconds < _MICROSECONDS):
        fail(f"not a time: {payload[:40]!r}")
    return seconds, microseconds
