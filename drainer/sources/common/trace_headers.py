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

trace_envelope chooses the envelope among these fields. With ``backup_host`` each
Received above the backup's own one ends a block, and the block next to the backup's own
counts that names an envelope. Without recipients in any of them, the ``for`` clause
names one. Never To or Cc: the author writes those, and they differ for mailing lists,
Bcc and redirects. The sender of an mbox From_ line is the last resort.

Exchange's replay directory puts X-Sender, X-Receiver and other fields on top of a file.
They count only if the file starts with one of them, because mail programs write
X-Sender too.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.envelope import Envelope
from drainer.mail.header import (
    Field,
    fields_of,
    host_name,
    received_by,
    remove_comments,
)
from drainer.mail.message import Problem
from drainer.sources.common.path_list import ListedPath
from drainer.sources.common.trace_envelope import (
    REPLAY_FIELDS,
    FoundEnvelope,
    TraceRules,
    find_envelope,
)
from drainer.sources.protocol import SourceOption

_INJECTED_FIELDS = REPLAY_FIELDS | {
    "x-createdby", "x-endofinjectedxheaders", "x-extendedmessageprops",
    "x-helodomain", "x-source", "x-sourceipaddress",
}  # fmt: skip
_READER_FIELDS = frozenset(
    ("x-mozilla-status", "x-mozilla-status2", "x-mozilla-keys", "x-account-key")
)
"""What Thunderbird puts above the fields of the delivery."""

_FROM_LINE = re.compile(rb">*From ([^ \r\n]*)[^\n]*(?:\n|\Z)")
_FOR = re.compile(
    r"\sfor\s+(?:<((?:\"(?:[^\"\\]|\\.)*\"|[^<>\"\s])+)>|([^\s;<>()@]+@[^\s;<>()]+))(?:;|\s|$)",
    re.IGNORECASE,
)


TRACE_OPTIONS = {name: SourceOption(name) for name in TraceRules.__struct_fields__}
"""The options of a source whose messages keep their envelope in trace fields."""


class Trace(Struct, frozen=True, kw_only=True):
    """The content of the trusted block."""

    envelope: Envelope = Envelope()
    #: Byte ranges of the header section that are not part of the mail.
    stripped: tuple[tuple[int, int], ...] = ()
    problem: Problem | None = None


class _TrustedFields(NamedTuple):
    """The fields that the backup wrote, or a hop behind it."""

    #: Between two Received fields each; the one next to the backup's own first.
    blocks: Sequence[Sequence[Field]]
    #: The backup's own Received, if it is known.
    own: Field | None = None
    #: Whether the file is from Exchange's replay directory.
    is_replay: bool = False


def read_trace(head: bytes, rules: TraceRules, *, from_line: bytes = b"") -> Trace:
    """Return the envelope of a message from its header section.

    ``head`` is the start of the message and may be longer than the header section;
    lines end in LF or CRLF. ``from_line`` is an mbox From_ line that the caller
    removed. From_ lines that still start the message are removed too.
    """
    leading = _FROM_LINE.match(head)
    start = 0
    while line := _FROM_LINE.match(head, start):
        start = line.end()
    trusted = _trusted_fields(fields_of(head, start), rules)
    found = _find(trusted, rules, _from_path(_FROM_LINE.match(from_line) or leading))
    ranges = [(0, start)] if start else []
    ranges += sorted(
        (each.start, each.end)
        for block in trusted.blocks
        for each in block
        if rules.writes(each.name)
        or (trusted.is_replay and each.name in _INJECTED_FIELDS)
    )
    return Trace(
        envelope=found.envelope,
        stripped=tuple(ranges),
        problem=_problem(found, rules),
    )


def _from_path(line: re.Match[bytes] | None) -> str | None:
    """Return the sender of a From_ line; None if it names none."""
    text = line[1].decode("utf-8", "surrogateescape") if line else ""
    return None if text in ("", "-") else text.removeprefix("<").removesuffix(">")


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


def _trusted_fields(fields: Iterator[Field], rules: TraceRules) -> _TrustedFields:
    """Return the fields above the Received that bounds them."""
    host = host_name(rules.backup_host)
    blocks: list[list[Field]] = [[]]
    is_replay = False
    for index, each in enumerate(fields):
        is_replay = is_replay or (index == 0 and each.name in REPLAY_FIELDS)
        if each.name != "received":
            blocks[-1].append(each)
        elif not host:
            return _TrustedFields(blocks, None, is_replay)
        elif host_name(received_by(each.value)[0]) == host:
            return _TrustedFields(blocks[::-1], each, is_replay)
        else:
            blocks.append([])
    if host:
        return _TrustedFields(())

    def is_on_top(each: Field) -> bool:
        return rules.writes(each.name) or each.name in (
            _INJECTED_FIELDS if is_replay else _READER_FIELDS
        )

    return _TrustedFields([list(takewhile(is_on_top, blocks[0]))], None, is_replay)


def _find(
    trusted: _TrustedFields, rules: TraceRules, from_path: str | None
) -> FoundEnvelope:
    """Return the envelope of the first block that names one."""
    found = [find_envelope(block, rules, from_path) for block in trusted.blocks]
    whole = [each for each in found if each.is_complete]
    if whole:
        return whole[0]
    partial = [each for each in found if each.envelope.recipients or each.fault]
    if not partial and trusted.own is not None and not rules.recipient_header:
        text = remove_comments(received_by(trusted.own.value)[1])
        clause = _FOR.search(text)
        if clause:
            return _with_recipient(found, clause[1] or clause[2])
    return (*partial, *found, FoundEnvelope(None, Envelope()))[0]


def _with_recipient(found: Sequence[FoundEnvelope], text: str) -> FoundEnvelope:
    """Return the first sender with the recipient of a ``for`` clause."""
    named = [each for each in found if each.sender is not None]
    result = (*named, *found)[0]
    recipient = ListedPath(text, {}).recipient()
    envelope = replace(result.envelope, recipients=(recipient,))
    return result._replace(envelope=envelope)


def _problem(found: FoundEnvelope, rules: TraceRules) -> Problem | None:
    where = "the trusted block"
    if rules.backup_host:
        where = f"the fields above the Received of {rules.backup_host}"
    if found.rival:
        pairs = f"{found.fields.title()} and {found.rival.title()}"
        detail = f"{pairs} differ in {where}: name the right ones by sender_header"
        detail += " and recipient_header"
        return Problem(code="no-envelope", detail=detail)
    if found.fault:
        return Problem(code="bad-address", detail=f"its sender: {found.fault}")
    if not found.envelope.recipients:
        return Problem(code="no-envelope", detail=f"no recipient in {where}")
    if found.sender is None:
        return Problem(code="no-envelope", detail=f"no sender in {where}")
    return None
