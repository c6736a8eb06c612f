"""The part of a DSN for programs (RFC 3464); pure.

Values are made printable and ASCII, and folded at blanks, so that none of them ends its
field. Only RFC 6533's form has addresses in UTF-8.
"""

import re
from collections.abc import Iterator, Sequence
from email.utils import format_datetime

from drainer.mail.dsn.model import Dsn, DsnAction, RecipientStatus, mta_of
from drainer.mail.envelope import utf8_xtext
from drainer.mail.reply import printable

MAX_VALUE = 900
"""Longest copied text, in characters: a reply or anything else fits on one line."""

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_CLASSES = {DsnAction.FAILED: "54", DsnAction.RELAYED: "2"}


def status_part(
    report: Dsn, statuses: Sequence[RecipientStatus], *, is_global: bool
) -> bytes:
    """Return the body part, with its own header; ``is_global`` is RFC 6533's form."""
    kind = "message/global-delivery-status" if is_global else "message/delivery-status"
    groups = [list(_of_message(report))]
    groups += [list(_of_recipient(report, found, is_global)) for found in statuses]
    text = "\r\n\r\n".join("\r\n".join(group) for group in groups) + "\r\n"
    encoding = "" if text.isascii() else "Content-Transfer-Encoding: 8bit\r\n"
    head = f"Content-Type: {kind}\r\nContent-Description: Delivery report\r\n{encoding}"
    return f"{head}\r\n{text}".encode()


def _of_message(report: Dsn) -> Iterator[str]:
    if report.envelope.envid:
        yield _field("Original-Envelope-Id", report.envelope.envid)
    yield _field("Reporting-MTA", f"dns; {mta_of(report.hostname) or 'localhost'}")
    if helo := mta_of(report.helo):
        yield _field("Received-From-MTA", f"dns; {helo}")
    yield _field("Arrival-Date", format_datetime(report.arrived))


def _of_recipient(
    report: Dsn,
    found: RecipientStatus,
    is_global: bool,  # noqa: FBT001
) -> Iterator[str]:
    kind, semicolon, original = found.recipient.orcpt.partition(";")
    if semicolon and re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind):
        yield _address("Original-Recipient", kind, original, is_global)
    yield _address("Final-Recipient", "rfc822", found.recipient.forward_path, is_global)
    yield f"Action: {report.action}"
    yield f"Status: {_code(found.status, report.action)}"
    primary = mta_of(report.primary)
    if found.reply:
        if primary:
            yield _field("Remote-MTA", f"dns; {primary}")
        yield _field("Diagnostic-Code", f"smtp; {found.reply}")
    if found.last_attempt:
        yield _field("Last-Attempt-Date", format_datetime(found.last_attempt))
    if report.log_id:
        yield _field("Final-Log-Id", report.log_id)


def _address(name: str, kind: str, address: str, is_global: bool) -> str:  # noqa: FBT001
    """Return an address field; UTF-8 as in RFC 6533 3, escaped or unchanged."""
    if kind.lower() != "utf-8" and address.isascii():
        return _field(name, f"{kind}; {address}")
    if is_global and address.isprintable() and len(address.encode()) <= MAX_VALUE:
        return f"{name}: utf-8; {address}"
    return _field(name, f"utf-8; {utf8_xtext(address)}")


def _code(status: str, action: DsnAction) -> str:
    classes = _CLASSES[action]
    good = _STATUS.fullmatch(status) and status[0] in classes
    return status if good else f"{classes[0]}.0.0"


def _field(name: str, value: str) -> str:
    """Return a field in ASCII, its value escaped, cut, and folded at blanks."""
    safe = printable(value, MAX_VALUE).encode("ascii", "backslashreplace").decode()
    words = safe[:MAX_VALUE].split(" ")
    lines = [f"{name}:"]
    for word in filter(None, words):
        if len(lines[-1]) + len(word) >= 76 and len(lines[-1]) > 1:  # noqa: PLR2004
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)
