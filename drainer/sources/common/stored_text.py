"""What a server stores in its spool files: addresses, parameters and other text.

Anyone may have written it. Only what this module returns as a mailbox or as a parameter
is safe on the wire; other text is for people.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from drainer.mail.envelope import (
    MAX_PARAMETER_LENGTH,
    AddressError,
    Envelope,
    wire_mailbox,
)
from drainer.mail.message import Problem
from drainer.mail.reply import printable

MailboxForm = Callable[[str], str]
"""``wire_mailbox`` if the server stores the form of the wire, ``quote_mailbox`` if it
stores addresses unquoted; raises AddressError."""

_HEX = re.compile(r"\+([0-9A-F]{2})")
_MAX_STORED = 12 * MAX_PARAMETER_LENGTH  # four bytes of UTF-8, three of xtext each
_SHOWN_FAULTS = 3


def text_of(stored: bytes) -> str:
    """Return a text for people, escaped."""
    return printable(stored.decode("utf-8", "replace"))


def mailbox_of(
    stored: bytes, faults: list[str], form: MailboxForm = wire_mailbox
) -> str:
    """Return the wire form of an address, or '' and a fault."""
    try:
        return form(stored.decode("utf-8", "surrogateescape"))
    except AddressError as error:
        faults.append(printable(str(error)))
        return ""


def done_path_of(stored: bytes, form: MailboxForm = wire_mailbox) -> str:
    """Return a finished address for people; nothing is sent to it."""
    return mailbox_of(stored, [], form) or text_of(stored)


def parameter_of(stored: bytes) -> str:
    """Decode an ESMTP parameter that is stored encoded (RFC 3461 4).

    '' for one that must not go on the wire again.
    """
    if len(stored) > _MAX_STORED:
        return ""
    try:
        plain = unquote(_HEX.sub(r"%\1", stored.decode().replace("%", "%25")))
    except UnicodeDecodeError:
        return ""
    is_sound = plain.isprintable() and "\ufffd" not in plain
    return plain if is_sound and len(plain) <= MAX_PARAMETER_LENGTH else ""


def flags_of(flags: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the names of the flags that are set."""
    return tuple(flag for flag, is_set in flags.items() if is_set)


def envelope_problem(
    envelope: Envelope, faults: Sequence[str], done: str = "no recipient remains"
) -> Problem | None:
    """Judge an envelope: bad addresses, or none left, which ``done`` explains."""
    if faults:
        detail = "; ".join(faults[:_SHOWN_FAULTS])
        return Problem(code="bad-address", detail=detail)
    if not envelope.recipients:
        return Problem(code="done-by-backup", detail=done)
    return None
