"""Convert the records of a Postfix queue file to a message of ours; pure.

These are not sent in their present state: a message with a pending filter, an address
verification probe, an address that no command can carry, REQUIRETLS, a file that
Postfix has not finished or has marked as corrupt. Each becomes the message's problem.

Identity: the arrival time in microseconds and the reverse path, besides the content.
The name of a queue file is not part of it: it contains the inode, and postsuper changes
it. A file that cannot be read that far is identified by its name, and a corrupt one
also by its first 4 KiB, which is enough to recognise it in two lists.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import (
    MAX_PARAMETER_LENGTH,
    Client,
    Envelope,
    Recipient,
    quote_mailbox,
    unique_recipients,
)
from drainer.mail.message import Problem
from drainer.sources.common.files import ReadAt
from drainer.sources.common.queue_entry import (
    SourceEntry,
    frame_damage,
    raise_damage,
    time_of,
)
from drainer.sources.common.stored_text import (
    done_path_of,
    flags_of,
    mailbox_of,
    notify_of,
    recipient_of,
    text_of,
)
from drainer.sources.common.walk import FilePlace
from drainer.sources.postfix.layout import UNCLEANED
from drainer.sources.postfix.records import RecordReader
from drainer.sources.postfix.segments import (
    EnvelopeRecords,
    PostfixRecipient,
    read_envelope,
    read_extracted,
)

_HEAD_BYTES = 64 * 1024
_NOTIFY = {1: "NEVER", 2: "SUCCESS", 4: "FAILURE", 8: "DELAY"}
_RET = {b"1": "FULL", b"2": "HDRS"}
_PROBE = 256 | 512  # DEL_REQ_FLAG_USR_VRFY, DEL_REQ_FLAG_MTA_VRFY
_SMTPUTF8, _REQUIRETLS = 1, 32  # sendopts.h
_COMPLETE, _MARKED_CORRUPT, _FORCED_EXPIRE = 0o700, 0o400, 0o010
_WRITTEN_FOR = 3600.0
"""Seconds after its last change, in which Postfix may still write a file."""


@dataclass(slots=True)
class QueueFile:
    """A queue file, as far as it was readable."""

    records: EnvelopeRecords = field(default_factory=EnvelopeRecords)
    #: The first bytes of the content, at least IDENTITY_BYTES if it has as many.
    head: bytes = b""
    #: The whole content, if the file is small and undamaged.
    content: bytes | None = None
    #: Reads the content from its start.
    chunks: Callable[[], Iterator[bytes]] = field(
        default_factory=lambda: partial(iter, ())
    )
    error: MessageUnreadable | None = None
    #: `postsuper -r` moved it, complete, into maildrop.
    requeued: bool = False
    #: The start of a corrupt file.
    raw: bytes = b""
    #: Its permissions, which say how far Postfix has got.
    mode: int = _COMPLETE
    #: When it was written, or is due again; seconds since 1970.
    modified: float = 0
    #: Its device and inode.
    inode: tuple[int, int] = (0, 0)


class PostfixEntry(SourceEntry, frozen=True, kw_only=True):
    """A message of a Postfix queue, with its records."""

    parsed: QueueFile


def parse_whole(data: bytes, *, cleaned: bool = True) -> QueueFile:
    """Parse a queue file in memory; ``cleaned`` as in read_envelope."""
    result = QueueFile()
    reader = RecordReader(data)
    try:
        read_envelope(reader, result.records, cleaned=cleaned)
        content = b"".join(reader.content())
        result.head = content
        read_extracted(reader, result.records)
        result.content, result.chunks = content, partial(iter, (content,))
    except MessageUnreadable as error:
        result.error = error
    return _explain(result)


def parse_large(read_at: ReadAt, size: int, *, cleaned: bool = True) -> QueueFile:
    """Parse all but the content of a queue file.

    Skips the content like qmgr, by the first two numbers of the size record, if they
    lead to a content end. Otherwise it walks through the content.
    """
    result = QueueFile()
    reader = RecordReader(read_at=read_at, size=size)
    records = result.records
    try:
        read_envelope(reader, records, cleaned=cleaned)
        result.chunks = partial(_stream, read_at, size, reader.offset)
        chunks = reader.content()
        for chunk in chunks:
            result.head += chunk
            if len(result.head) >= _HEAD_BYTES:
                if not reader.seek_extracted(records.number(1) + records.number(2)):
                    for _ in chunks:
                        pass
                break
        read_extracted(reader, records)
    except MessageUnreadable as error:
        result.error = error
    return _explain(result)


def _stream(read_at: ReadAt, size: int, offset: int) -> Iterator[bytes]:
    return RecordReader(read_at=read_at, size=size, offset=offset).content()


def _explain(parsed: QueueFile) -> QueueFile:
    if parsed.records.being_written:
        detail = "its size record is not filled in yet"
        parsed.error = MessageUnreadable("incomplete", detail)
    return parsed


def describe(
    parsed: QueueFile, place: FilePlace, *, bounce_log: bool = False
) -> PostfixEntry:
    """Return the message of a queue file, with its problem if it has one.

    ``bounce_log`` says that a report to the sender is pending.
    """
    records = parsed.records
    envelope, fault = _envelope(records)
    problem = (
        _queue_problem(parsed, place)
        or _file_problem(parsed, place)
        or _mail_problem(records, fault)
    )
    if problem is None and not envelope.recipients:
        detail = f"{len(records.done)} done, {records.cancelled} cancelled, none remain"
        problem = Problem(code="done-by-backup", detail=detail)
    error = parsed.error
    return PostfixEntry(
        native_id=place.name,
        arrived=_arrival_time(parsed),
        envelope=envelope,
        chunks=partial(raise_damage, error) if error else parsed.chunks,
        raw_bytes=_size(parsed),
        stable=_stable(parsed, place.name),
        files=(place,),
        head=b"" if error else parsed.head,
        client=_client(records.attributes),
        login=text_of(records.attributes.get(b"sasl_username", b"")),
        flags=_flags(parsed, place, bounce_log=bounce_log),
        problem=problem,
        queue=place.parts[0],
        parsed=parsed,
    )


def _stable(parsed: QueueFile, name: str) -> bytes:
    if parsed.error is not None:
        return frame_damage(name, parsed.raw)
    sender = parsed.records.sender or b""
    seconds, microseconds = parsed.records.arrival or (0, 0)
    return b"%d.%06d %d\n%b" % (seconds, microseconds, len(sender), sender)


def _size(parsed: QueueFile) -> int:
    if parsed.content is not None:
        return len(parsed.content)
    records = parsed.records
    return max(records.number(5) or records.number(1), len(parsed.head))


def _arrival_time(parsed: QueueFile) -> datetime:
    """Return when the backup accepted it; the file's time is the next attempt."""
    if parsed.records.arrival is None:
        return time_of(parsed.modified)
    seconds, microseconds = parsed.records.arrival
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def _queue_problem(parsed: QueueFile, place: FilePlace) -> Problem | None:
    """Hold a submission that Postfix has not processed, whatever its queue or state.

    The user who submitted it wrote this file. Its addresses are not rewritten, header
    fields are missing, and Bcc is still there.
    """
    if place.parts[0] == UNCLEANED and not parsed.requeued:
        detail = "it is in maildrop"
        if parsed.error is not None:
            detail += f"; {parsed.error.detail}"
        return Problem(code="not-cleaned", detail=detail)
    return None


def _file_problem(parsed: QueueFile, place: FilePlace) -> Problem | None:
    """Judge the structure and the mode bits.

    A file with its size and its end is complete. Copies lose modes, so another mode
    counts only where it may be Postfix's own: 0400 marks a corrupt file, and a file in
    incoming may still be written.
    """
    mode, error = parsed.mode & 0o777, parsed.error
    if mode & _COMPLETE == _COMPLETE:
        return Problem(code=error.code, detail=error.detail) if error else None
    detail = f"its mode is {mode:04o}, a complete queue file has 0700"
    if mode == _MARKED_CORRUPT:
        return Problem(code="marked-corrupt", detail=detail)
    age = time.time() - parsed.modified
    if error is not None or (place.parts[0] == "incoming" and age < _WRITTEN_FOR):
        return Problem(code="incomplete", detail=detail)
    return None


def _mail_problem(records: EnvelopeRecords, fault: str) -> Problem | None:
    trace_flags = records.attributes.get(b"trace_flags", b"")[:9]
    if trace_flags.isdigit() and int(trace_flags) & _PROBE:
        return Problem(code="probe", detail=f"trace_flags {int(trace_flags)}")
    if fault:
        return Problem(code="bad-address", detail=f"its sender: {fault}")
    if records.number(6) & _REQUIRETLS:
        return Problem(code="requires-tls", detail="its sender asked for REQUIRETLS")
    if records.filter:
        return Problem(code="filter-due", detail=text_of(records.filter))
    return None


def _flags(parsed: QueueFile, place: FilePlace, *, bounce_log: bool) -> tuple[str, ...]:
    records = parsed.records
    return flags_of(
        {
            "hold": place.parts[0] == "hold",
            "forced-expire": bool(parsed.mode & _FORCED_EXPIRE),
            "delay-warned": records.warning == -1,
            "undelivered-report": bounce_log,
            "redirect": bool(records.redirect),
            "filter": bool(records.filter),
        }
    )


def _envelope(records: EnvelopeRecords) -> tuple[Envelope, str]:
    """Return the envelope, and the fault of its sender."""
    reverse_path, fault = "", ""
    if records.sender:
        reverse_path, fault = mailbox_of(records.sender, quote_mailbox)
    attributes = records.attributes
    encoding = attributes.get(b"encoding", b"").lower()
    return (
        Envelope(
            reverse_path=reverse_path,
            recipients=_recipients(records),
            done=tuple(
                dict.fromkeys(done_path_of(d, quote_mailbox) for d in records.done)
            ),
            body=encoding.decode() if encoding in (b"7bit", b"8bit") else "",
            smtputf8=bool(records.number(6) & _SMTPUTF8),
            envid=_strict_text(attributes.get(b"envelope_id", b"")),
            ret=_RET.get(attributes.get(b"ret_flags", b""), ""),
            verp=text_of(records.verp),
        ),
        fault,
    )


def _recipients(records: EnvelopeRecords) -> tuple[Recipient, ...]:
    """Return the recipients to send to, each once.

    A redirect (``>``) replaces them all: Postfix tries the first pending one, rewritten
    to the redirect's address with ORCPT naming the original, and drops the others
    (qmgr_message.c). drainer does the same. ``O`` is used only for that: it is not an
    ORCPT from the client, and drainer never invents one (RFC 3461 4.2).
    """
    pending = records.pending
    if records.redirect:
        pending = [_redirect(records.redirect, first) for first in pending[:1]]
    return unique_recipients(map(_recipient, pending))


def _recipient(raw: PostfixRecipient) -> Recipient:
    notify = notify_of(raw.notify, _NOTIFY) if raw.notify else ()
    orcpt = _strict_text(raw.orcpt) if raw.orcpt else ""
    return recipient_of(raw.address, quote_mailbox, orcpt=orcpt, notify=notify)


def _redirect(target: bytes, first: PostfixRecipient) -> PostfixRecipient:
    original = first.orcpt or b"rfc822;" + (first.original or first.address)
    return first._replace(address=target, orcpt=original)


def _client(attributes: dict[bytes, bytes]) -> Client:
    """Return the original client; else the attributes of the last hop."""

    def attribute(original: bytes, last_hop: bytes) -> str:
        value = attributes.get(original)
        value = attributes.get(last_hop, b"") if value is None else value
        return "" if value == b"unknown" else text_of(value)

    address = attribute(b"log_client_address", b"client_address")
    return Client(
        address=address[5:] if address[:5].lower() == "ipv6:" else address,
        name=attribute(b"log_client_name", b"client_name"),
        helo=attribute(b"log_helo_name", b"helo_name"),
    )


def _strict_text(value: bytes) -> str:
    """Return a DSN parameter, or '' for one that must not go on the wire."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text) <= MAX_PARAMETER_LENGTH else ""
