"""Read the envelope from the trace fields that the backup wrote; pure.

A stored message keeps its envelope only in fields that the delivering server put on
top. Anything from a client is below the backup's own Received field, because servers
prepend theirs (RFC 5321 4.4). So only the *trusted block* counts, and only it is
removed before replay:

- ``backup_host`` given: the fields above the topmost Received whose ``by`` is
  that host, and that field's own ``for`` clause. Without such a field, nothing counts.
- not given: the fields above the topmost Received.
- not given, and no Received at all: a stranger may have written all of the header. Only
  the first unbroken run of delivery fields counts, which is where a delivery agent puts
  them.

Recipients come only from the configured field if there is one, else from the first kind
that is present: X-Original-To (what the client asked for) before Delivered-To (after
aliases), Envelope-To and similar ones, then ``for``. All fields of that kind count, and
each may list several. Never from To or Cc: the author writes those, and they differ for
mailing lists, Bcc and redirects.

The sender comes from Return-Path, else an X-Envelope-From, else the mbox From_
line; ``<>`` and MAILER-DAEMON without a domain are the null sender.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from msgspec import Struct

from drainer.mail.envelope import (
    NULL_SENDER,
    AddressError,
    Recipient,
    RecipientCollector,
    parse_mailbox,
)
from drainer.mail.header import (
    Field,
    fields_of,
    host_name,
    received_by,
    unfold,
    without_comments,
)
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.sources.protocol import SourceOption

_RECIPIENT_KINDS: tuple[tuple[str, ...], ...] = (
    ("x-original-to",),
    ("delivered-to",),
    ("envelope-to", "x-envelope-to"),
    ("x-rcpt-to", "x-mdrcpt-to", "original-recipient"),
)
_SENDER_KINDS = ("return-path", "x-envelope-from", "x-return-path", "x-mailfrom")
_DELIVERY_FIELDS = frozenset(
    (*_SENDER_KINDS, *(name for kind in _RECIPIENT_KINDS for name in kind))
) | {"delivery-date"}

_FROM_LINE = re.compile(rb">*From ([^ \r\n]*)[^\n]*(?:\n|\Z)")
_FOR = re.compile(
    r"\sfor\s+(?:<((?:\"(?:[^\"\\]|\\.)*\"|[^<>\"\s])+)>|([^\s;<>()@]+@[^\s;<>()]+))(?:;|\s|$)",
    re.IGNORECASE,
)


class TraceRules(Struct, frozen=True, kw_only=True):
    """What the operator says about the backup's trace fields."""

    #: The name that the backup writes after ``by``; '' = the topmost Received counts.
    backup_host: str = ""
    #: The only field for recipients; '' = the known ones, by rank.
    recipient_header: str = ""
    #: What qmail put before the local part of Delivered-To (virtualdomains).
    strip_prefix: str = ""

    def writes(self, name: str) -> bool:
        """Return whether delivery adds a field of this name (in lower case)."""
        return (
            name in _DELIVERY_FIELDS
            or name.startswith("x-envelope-")
            or name == self.recipient_header.lower()
        )


TRACE_OPTIONS = {name: SourceOption(name) for name in TraceRules.__struct_fields__}
"""The options of a source whose envelopes are in trace fields."""


class Trace(Struct, frozen=True, kw_only=True):
    """The content of the trusted block."""

    reverse_path: str = NULL_SENDER
    recipients: tuple[Recipient, ...] = ()
    #: Byte ranges of the header section that are not part of the mail.
    stripped: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None


def read_trace(head: bytes, rules: TraceRules, *, from_line: bytes = b"") -> Trace:
    """Return the envelope of a message from its header section.

    ``head`` is the start of the message and may be longer than the header section;
    lines end in LF or CRLF. ``from_line`` is an mbox From_ line that the caller
    removed. A From_ line that still starts the message is removed too.
    """
    leading = _FROM_LINE.match(head)
    start = 0
    while line := _FROM_LINE.match(head, start):
        start = line.end()
    block, own = _trusted(fields_of(head, start), rules)
    from_path = _FROM_LINE.match(from_line) or leading
    faults: list[str] = []
    recipients = _recipients(block, own, rules, faults)
    sender = _sender(block, from_path[1] if from_path else None, faults)
    ranges = [(0, start)] if start else []
    ranges += [(each.start, each.end) for each in block if rules.writes(each.name)]
    return Trace(
        reverse_path=sender or NULL_SENDER,
        recipients=recipients,
        stripped=tuple(ranges),
        problem=_problem(recipients, sender, faults, rules),
    )


def cut(chunks: Iterator[bytes], ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes outside of the ranges, which are in order."""
    offset = 0
    remaining = list(ranges)
    for chunk in chunks:
        position = 0
        while remaining and remaining[0][0] < offset + len(chunk):
            start, end = (max(edge - offset, 0) for edge in remaining[0])
            if start > position:
                yield chunk[position:start]
            position = min(end, len(chunk))
            if end > len(chunk):
                break
            del remaining[0]
        if position < len(chunk):
            yield chunk[position:] if position else chunk
        offset += len(chunk)


def _trusted(
    fields: Iterator[Field], rules: TraceRules
) -> tuple[Sequence[Field], Field | None]:
    """Return the trusted block, and the backup's own Received when it is known."""
    host = host_name(rules.backup_host)
    above: list[Field] = []
    for each in fields:
        if each.name == "received":
            if not host:
                return above, None
            if host_name(received_by(each.value)[0]) == host:
                return above, each
        above.append(each)
    if host:
        return (), None
    return list(takewhile(lambda each: rules.writes(each.name), above)), None


def _recipients(
    block: Sequence[Field],
    own: Field | None,
    rules: TraceRules,
    faults: list[str],
) -> tuple[Recipient, ...]:
    kinds = _RECIPIENT_KINDS
    if rules.recipient_header:
        kinds = ((rules.recipient_header.lower(),),)
    for kind in kinds:
        texts = [
            text
            for each in block
            if each.name in kind
            for text in _addresses(each, rules.strip_prefix)
        ]
        if texts:
            return _collect(texts, faults)
    if own is not None and not rules.recipient_header:
        found = _FOR.search(without_comments(received_by(own.value)[1]))
        if found:
            return _collect([found[1] or found[2]], faults)
    return ()


def _addresses(each: Field, prefix: str) -> Iterator[str]:
    """Yield the addresses that a field lists; skip invalid ones."""
    value = unfold(each.value)
    if each.name == "original-recipient":  # RFC 3798 2.3: type;address
        value = value.partition(";")[2]
    for part in _split(value):
        text = part.strip(" \t")
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
        if not text or text.lower() == "unknown":  # getmail's word for it
            continue
        if prefix and each.name == "delivered-to":
            text = text.removeprefix(prefix)
        yield text


def _split(value: str) -> Iterator[str]:
    """Split at the commas outside of quoted strings, in linear time."""
    start = 0
    quoted = escaped = False
    for index, char in enumerate(value):
        if escaped:
            escaped = False
        elif char == '"':
            quoted = not quoted
        elif quoted and char == "\\":
            escaped = True
        elif char == "," and not quoted:
            yield value[start:index]
            start = index + 1
    yield value[start:]


def _collect(texts: Sequence[str], faults: list[str]) -> tuple[Recipient, ...]:
    collector = RecipientCollector()
    for text in texts:
        try:
            collector.add(Recipient(forward_path=parse_mailbox(text)))
        except AddressError as error:
            faults.append(printable(str(error)))
    return tuple(collector.recipients.values())


def _sender(
    block: Sequence[Field], from_path: bytes | None, faults: list[str]
) -> str | None:
    """Return the reverse path, or None if no field of the backup names it."""
    values = [
        each.value for kind in _SENDER_KINDS for each in block if each.name == kind
    ]
    if from_path is not None:
        values.append(from_path.decode("utf-8", "surrogateescape"))
    if not values:
        return None
    text = unfold(values[0])
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    if not text or text.upper() == "MAILER-DAEMON":
        return NULL_SENDER
    try:
        return parse_mailbox(text)
    except AddressError as error:
        faults.append(printable(str(error)))
        return NULL_SENDER


def _problem(
    recipients: Sequence[Recipient],
    sender: str | None,
    faults: Sequence[str],
    rules: TraceRules,
) -> Problem | None:
    if faults:
        return Problem(code="bad-address", detail="; ".join(faults[:3]))
    where = "the trusted block"
    if rules.backup_host:
        where = f"the fields above the Received of {rules.backup_host}"
    if not recipients:
        return Problem(code="no-envelope", detail=f"no recipient in {where}")
    if sender is None:
        return Problem(code="no-envelope", detail=f"no sender in {where}")
    return None
