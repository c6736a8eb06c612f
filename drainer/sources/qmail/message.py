"""Read the envelope from the files of a qmail queue; pure.

Records are a letter, an address in internal (unquoted) form and a NUL (qmail's
INTERNALS; qmail-queue.c, qmail-send.c). ``info`` has F and the sender. ``local`` and
``remote`` have T for each remaining recipient and D for each that was delivered or
failed, overwritten in place. ``todo``, which qmail-send has not split yet, has u, p, F
and T together.

DSN, 8BITMIME and SMTPUTF8 are not recorded, nor is the client.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Envelope, quote_mailbox, unique_recipients
from drainer.mail.message import Problem
from drainer.sources.common.stored_text import (
    done_path_of,
    mailbox_of,
    recipient_of,
    text_of,
)

DOUBLE_BOUNCE = b"#@[]"
"""The sender of a report on a report; outside of qmail it is the null sender."""

_done_path = partial(done_path_of, form=quote_mailbox)
_VERP_MARK = b"-@[]"
_LETTERS = {
    "info": frozenset(b"F"),
    "local": frozenset(b"TD"),
    "remote": frozenset(b"TD"),
    "todo": frozenset(b"upFT"),
}


@dataclass(slots=True)
class QmailRecords:
    """The data in the files of one message."""

    sender: bytes | None = None
    pending: list[bytes] = field(default_factory=list)
    #: What qmail would have delivered itself; virtual domains have a prefix.
    local: list[bytes] = field(default_factory=list)
    done: list[bytes] = field(default_factory=list)


def read(kind: str, data: bytes, records: QmailRecords) -> None:
    """Add the data of one file of the directory ``kind``; raises MessageUnreadable."""
    for letter, value in _split(kind, data):
        if letter == b"F":
            if records.sender is not None:
                raise MessageUnreadable("corrupt", f"two senders in {kind}")
            records.sender = value
        elif letter == b"D":
            records.done.append(value)
        elif letter == b"T":
            target = records.local if kind == "local" else records.pending
            target.append(value)
    if kind == "todo" and not records.pending:
        raise MessageUnreadable("corrupt", "todo names no recipient")


def _split(kind: str, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not data:  # qmail makes a file only when it has a record for it
        raise MessageUnreadable("corrupt", f"{kind} is empty")
    if not data.endswith(b"\0"):
        raise MessageUnreadable("corrupt", f"{kind} is cut off")
    for record in data[:-1].split(b"\0"):
        letter = record[:1]
        if not letter or letter[0] not in _LETTERS[kind]:
            raise MessageUnreadable("corrupt", f"{kind} has a record {record[:40]!r}")
        yield letter, record[1:]


def explain(records: QmailRecords, prefix: str) -> tuple[Envelope, Problem | None]:
    """Return the envelope and its problem.

    ``prefix`` is what a virtual domain puts before the local part and a dash.
    """
    local = [_bare(each, prefix) for each in records.local]
    pending = (*records.pending, *filter(None, local))
    reverse_path, verp, fault = _sender(records.sender or b"")
    envelope = Envelope(
        reverse_path=reverse_path,
        recipients=unique_recipients(
            recipient_of(raw, quote_mailbox) for raw in pending
        ),
        done=tuple(dict.fromkeys(map(_done_path, records.done))),
        verp=verp,
    )
    if records.sender is None:
        return envelope, Problem(code="corrupt", detail="its files name no sender")
    if fault:
        detail = f"its sender: {fault}"
        return envelope, Problem(code="bad-address", detail=detail)
    strange = [raw for raw, bare in zip(records.local, local, strict=True) if not bare]
    return envelope, _recipient_problem(records, strange)


def _recipient_problem(records: QmailRecords, strange: list[bytes]) -> Problem | None:
    if strange:
        detail = f"to {_done_path(strange[0])}; strip_prefix may name its prefix"
        return Problem(code="local-delivery", detail=detail)
    if not records.pending and not records.local:
        detail = f"{len(records.done)} done, none remain"
        return Problem(code="done-by-backup", detail=detail)
    return None


def _sender(stored: bytes) -> tuple[str, str, str]:
    """Return the reverse path, VERP delimiters, and the fault.

    ``list-@host-@[]`` is sent as ``list-user=domain@host`` (qmail-send.c,
    senderadd): with our delimiters, ``list@host`` and ``-=``.
    """
    if stored in (b"", DOUBLE_BOUNCE):
        return "", "", ""
    if not stored.endswith(_VERP_MARK):
        path, fault = mailbox_of(stored, quote_mailbox)
        return path, "", fault
    local, at, host = stored.removesuffix(_VERP_MARK).rpartition(b"@")
    mark = local[-1:].decode("latin-1")
    if not at or len(local) < len("x-") or not mark.isascii() or not mark.isprintable():
        return "", "", f"VERP sender {text_of(stored)}"
    path, fault = mailbox_of(local[:-1] + at + host, quote_mailbox)
    return path, f"{mark}=", fault


def _bare(stored: bytes, prefix: str) -> bytes:
    """Return a local recipient without its prefix; b'' if it has another one."""
    start = os.fsencode(f"{prefix}-")
    return stored.removeprefix(start) if prefix and stored.startswith(start) else b""
