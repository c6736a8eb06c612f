"""What a server stores in its spool files: addresses, parameters and other text.

Anyone may have written it. Only what this module returns as a mailbox or as a parameter
is safe on the wire; other text is for people.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from drainer.mail.envelope import (
    MAX_PARAMETER_LENGTH,
    AddressError,
    Envelope,
    Recipient,
    wire_mailbox,
)
from drainer.mail.message import Problem
from drainer.mail.reply import printable

MailboxForm = Callable[[str], str]
"""``wire_mailbox`` if the server stores the form of the wire, ``quote_mailbox`` if it
stores addresses unquoted; raises AddressError."""

_HEX = re.compile(r"\+([0-9A-F]{2})")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_MAX_STORED = 12 * MAX_PARAMETER_LENGTH  # four bytes of UTF-8, three of xtext each
_SHOWN_LENGTH = 300
"""Characters of a bad address that are kept; the ledger has room for 512."""


def text_of(stored: bytes) -> str:
    """Return a text for people, escaped."""
    return printable(stored.decode("utf-8", "replace"))


def mailbox_of(
    stored: bytes | str, form: MailboxForm = wire_mailbox
) -> tuple[str, str]:
    """Return the wire form of a mailbox and '', or '' and its fault."""
    try:
        return form(stored if isinstance(stored, str) else _decode(stored)), ""
    except AddressError as error:
        return "", printable(str(error))


def recipient_of(
    stored: bytes | str,
    form: MailboxForm = wire_mailbox,
    *,
    orcpt: str = "",
    notify: tuple[str, ...] = (),
) -> Recipient:
    """Return a recipient; one with a bad address has a fault, and is never sent to."""
    text = stored if isinstance(stored, str) else _decode(stored)
    path, fault = "", ""
    try:
        path = form(text)
    except AddressError as error:
        path, fault = describe_address(text), printable(str(error))
    return Recipient(forward_path=path, fault=fault, orcpt=orcpt, notify=notify)


def describe_address(text: str) -> str:
    """Return a bad address as text for people: no mailbox, and different for each.

    A tool that reads it again must not take it for an address.
    """
    shown = printable(_ESCAPED_BYTE.sub(_hex_of, text), 10 * _SHOWN_LENGTH)
    if len(shown) > _SHOWN_LENGTH:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        shown = f"{shown[:_SHOWN_LENGTH]}... {digest[:16]}"
    try:
        wire_mailbox(shown)
    except AddressError:
        return shown or "<>"
    return f"{shown}?"


def _hex_of(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]) - 0xDC00:02x}"


def _decode(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")


def done_path_of(stored: bytes, form: MailboxForm = wire_mailbox) -> str:
    """Return a finished address for people; nothing is sent to it."""
    return recipient_of(stored, form).forward_path


def parameter_of(stored: bytes) -> str:
    """Decode a stored ESMTP parameter (RFC 3461 4); '' if it must not be sent again."""
    if len(stored) > _MAX_STORED:
        return ""
    try:
        plain = unquote(_HEX.sub(r"%\1", stored.decode().replace("%", "%25")))
    except UnicodeDecodeError:
        return ""
    is_sound = plain.isprintable() and "\ufffd" not in plain
    return plain if is_sound and len(plain) <= MAX_PARAMETER_LENGTH else ""


def notify_of(flags: int, bits: Mapping[int, str]) -> tuple[str, ...]:
    """Return the keywords of NOTIFY whose bits are set."""
    return tuple(name for bit, name in bits.items() if flags & bit)


def flags_of(flags: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the names of the flags that are set."""
    return tuple(flag for flag, is_set in flags.items() if is_set)


def envelope_problem(
    envelope: Envelope, fault: str, done: str = "no recipient remains"
) -> Problem | None:
    """Judge an envelope: a bad sender, or none left, as ``done`` explains."""
    if fault:
        return Problem(code="bad-address", detail=f"its sender: {fault}")
    if not envelope.recipients:
        return Problem(code="done-by-backup", detail=done)
    return None
