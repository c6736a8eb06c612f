"""Build a DSN, as bytes, from the recipients of one message and their statuses; pure.

It has three parts (RFC 6522): text for people, fields for programs (RFC 3464), and the
original's header, or all of it. Text from the original, from a reply or from an
envelope is hostile. This module makes it printable, puts it on one line and cuts it
where that does no harm. It never decides where a header or a part ends.
"""

import base64
import hashlib
import quopri
import re
from collections.abc import Iterable, Iterator, Sequence
from email.utils import format_datetime

from drainer.mail.content import MAX_LINE_BYTES, message_id_of
from drainer.mail.dsn.model import (
    CannotReport,
    Dsn,
    DsnAction,
    RecipientStatus,
    host_of,
)
from drainer.mail.dsn.status import status_part
from drainer.mail.dsn.text import text_of
from drainer.mail.envelope import parse_mailbox
from drainer.mail.header import fields_of
from drainer.mail.list_markers import LOOP_FIELD
from drainer.mail.reply import printable

MAX_HEADER_BYTES = 32 * 1024
"""Bytes of the original's header that a DSN carries; whole fields, from the top."""
MAX_CONTENT_BYTES = 50_000
"""Largest original, in bytes, that a DSN carries whole."""

_MESSAGE_ID = re.compile(
    r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,200}@[A-Za-z0-9!#$%&'*+/=?^_`{|}~.:\[\]-]{1,200}>"
)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")


_SUBJECTS = {
    DsnAction.FAILED: "Your message could not be delivered",
    DsnAction.RELAYED: "Your message was passed on",
}


def build(report: Dsn) -> bytes:
    """Return the DSN with CRLF line ends, ready for DATA.

    Skips recipients with NOTIFY=NEVER. Raises CannotReport when no recipient remains,
    or when the sender's address needs SMTPUTF8 and the next hop lacks it. Raises
    AddressError for a sender that is not a mailbox.
    """
    sender = parse_mailbox(report.envelope.reverse_path)
    statuses = [f for f in report.statuses if "NEVER" not in f.recipient.notify]
    if not statuses:
        raise CannotReport("no recipient of this message may be reported")
    if not sender.isascii() and not report.smtputf8:
        message = f"{printable(sender)} needs SMTPUTF8, which the next hop lacks"
        raise CannotReport(message)
    is_global = report.smtputf8 and (
        report.envelope.smtputf8 or not _all_ascii(sender, statuses)
    )
    parts = [
        _words(report, statuses),
        status_part(report, statuses, is_global=is_global),
        _original(report, is_global=is_global),
    ]
    boundary = _boundary(report, parts)
    lines = b"\r\n".join(_header(report, sender, boundary, parts))
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return lines + b"\r\n\r\n" + body + b"--" + boundary + b"--\r\n"


def _all_ascii(sender: str, statuses: Iterable[RecipientStatus]) -> bool:
    texts = (f.recipient.forward_path + f.recipient.orcpt for f in statuses)
    return sender.isascii() and all(text.isascii() for text in texts)


def _boundary(report: Dsn, parts: Sequence[bytes]) -> bytes:
    """Return a boundary that no part contains; always the same for the same DSN."""
    seed = report.message_id
    while True:
        digest = hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()
        boundary = f"=_{digest[:40]}".encode()
        if not any(boundary in part for part in parts):
            return boundary
        seed = digest


def _header(
    report: Dsn, sender: str, boundary: bytes, parts: Sequence[bytes]
) -> Iterator[bytes]:
    host = host_of(report.hostname) or "localhost"
    yield f"From: Mail Delivery System <MAILER-DAEMON@{host}>".encode()
    yield f"To: <{sender}>".encode()
    yield f"Date: {format_datetime(report.date)}".encode()
    if _MESSAGE_ID.fullmatch(report.message_id):
        yield f"Message-ID: {report.message_id}".encode()
    yield f"Subject: {_SUBJECTS[report.action]}".encode()
    original = message_id_of(report.head)
    if _MESSAGE_ID.fullmatch(original):
        yield f"In-Reply-To: {original}".encode()
        yield f"References: {original}".encode()
    yield b"Auto-Submitted: auto-replied"
    yield f"{LOOP_FIELD}: {host}".encode()
    yield b"MIME-Version: 1.0"
    yield b"Content-Type: multipart/report; report-type=delivery-status;"
    yield b'\tboundary="' + boundary + b'"'
    if not all(part.isascii() for part in parts):
        yield b"Content-Transfer-Encoding: 8bit"


# ---- part 1: text for people


def _words(report: Dsn, statuses: Sequence[RecipientStatus]) -> bytes:
    text = text_of(report, statuses)
    head = (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Description: Notification"
    )
    if text.isascii() and max(map(len, text.split("\n"))) <= MAX_LINE_BYTES:
        return head + b"\r\n\r\n" + text.replace("\n", "\r\n").encode()
    encoded = quopri.encodestring(text.encode("utf-8", "replace"))
    head += b"\r\nContent-Transfer-Encoding: quoted-printable"
    return head + b"\r\n\r\n" + encoded.replace(b"\n", b"\r\n")


# ---- part 3: the original


def _original(report: Dsn, *, is_global: bool) -> bytes:
    if _may_return(report):
        kind = b"message/rfc822"
        encoding = b"" if report.content.isascii() else _EIGHT_BIT
        if is_global and not _head_of(report.content).isascii():
            kind = b"message/global"
        return _part(kind, encoding, report.content)
    head = _whole_fields(_head_of(report.head))
    plain = not _BARE.search(head) and _longest_line(head) <= MAX_LINE_BYTES
    if plain and head.isascii():
        return _part(b"text/rfc822-headers", b"", head)
    if plain and is_global and _is_utf8(head):
        return _part(b"message/global-headers", _EIGHT_BIT, head)
    encoded = base64.encodebytes(head).replace(b"\n", b"\r\n")
    return _part(b"text/rfc822-headers", _BASE64, encoded)


_EIGHT_BIT = b"Content-Transfer-Encoding: 8bit\r\n"
_BASE64 = b"Content-Transfer-Encoding: base64\r\n"


def _part(kind: bytes, encoding: bytes, body: bytes) -> bytes:
    head = (
        b"Content-Type: " + kind + b"\r\nContent-Description: Undelivered message\r\n"
    )
    return head + encoding + b"\r\n" + body


def _may_return(report: Dsn) -> bool:
    """Return whether the DSN may carry the whole original: never a cut one."""
    content = report.content
    return (
        report.action is DsnAction.FAILED
        and report.envelope.ret == "FULL"
        and 0 < len(content) <= MAX_CONTENT_BYTES
        and (content.isascii() or report.eight_bit or report.smtputf8)
        and not _BARE.search(content)
        and _is_sound(content)
        and _longest_line(content) <= MAX_LINE_BYTES
    )


def _is_sound(content: bytes) -> bool:
    """Return whether a content has a valid header section."""
    head = _head_of(content)
    return bool(head) and max((f.end for f in fields_of(head)), default=0) == len(head)


def _head_of(content: bytes) -> bytes:
    if content.startswith(b"\r\n"):
        return b""
    head, blank, _ = content.partition(b"\r\n\r\n")
    return head + b"\r\n" if blank else content


def _whole_fields(head: bytes) -> bytes:
    """Return as many fields from the top as the DSN may carry."""
    end = 0
    for each in fields_of(head):
        if each.end > MAX_HEADER_BYTES:
            break
        end = each.end
    return head[:end]


def _longest_line(data: bytes) -> int:
    return max((len(line) for line in data.split(b"\r\n")), default=0)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
