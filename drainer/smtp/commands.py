"""MAIL and RCPT as bytes, with the parameters that the primary understands.

drainer drops a parameter that the primary does not offer, where the standard allows it
(RFC 3461 4.5: DSN). Where it does not, the message has a problem (RFC 6531 3.2:
SMTPUTF8; RFC 6152 3: 8BITMIME).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from drainer.mail.envelope import (
    AddressError,
    Recipient,
    ascii_form,
    is_ascii,
    verp_sender,
    xtext,
)
from drainer.mail.message import ContentFacts, Message, Problem

Extensions = Mapping[str, str]
_MAX_DIGITS = 20
"""Digits of a number in an EHLO reply: SIZE may have as many (RFC 1870 3)."""


def size_limit(extensions: Extensions) -> int:
    """Return the primary's SIZE limit in bytes; 0 = none stated (RFC 1870 3)."""
    return _number(extensions.get("size", "").strip())


def recipient_limit(extensions: Extensions) -> int:
    """Return RCPTMAX of LIMITS (RFC 9422 3); 0 = not stated."""
    for word in extensions.get("limits", "").split():
        name, _, value = word.partition("=")
        if name.upper() == "RCPTMAX":
            return _number(value)
    return 0


@lru_cache(maxsize=64)
def _number(text: str) -> int:
    """Return a number that the primary sent; 0 if it is not one, or absurd."""
    is_sound = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_sound else 0


def misfit(
    message: Message,
    facts: ContentFacts,
    recipients: Sequence[Recipient],
    peer: Extensions,
) -> Problem | None:
    """Return why this primary cannot take the message as it is, or None."""
    try:
        sender_of(message, recipients)
    except AddressError as error:  # expanding VERP made it too long
        return Problem(code="bad-address", detail=str(error))
    limit = size_limit(peer)
    if limit and facts.size_bytes > limit:
        detail = f"{facts.size_bytes} bytes, the limit is {limit}"
        return Problem(code="too-large", detail=detail)
    if "smtputf8" not in peer and needs_smtputf8(message, facts, recipients):
        return Problem(code="needs-smtputf8", detail="EHLO does not list SMTPUTF8")
    if facts.has_8bit and "8bitmime" not in peer:
        return Problem(code="needs-8bitmime", detail="EHLO does not list 8BITMIME")
    return None


def needs_smtputf8(
    message: Message, facts: ContentFacts, recipients: Sequence[Recipient]
) -> bool:
    """Return whether the message cannot travel without SMTPUTF8 (RFC 6531 3.4)."""
    addresses = (message.envelope.reverse_path, *[r.forward_path for r in recipients])
    if not (is_ascii(*addresses) or is_ascii(*map(ascii_form, addresses))):
        return True
    return message.envelope.smtputf8 and facts.header_8bit


def mail_command(
    message: Message,
    facts: ContentFacts,
    recipients: Sequence[Recipient],
    peer: Extensions,
) -> bytes:
    """Return MAIL FROM with its parameters, without the line end."""
    envelope = message.envelope
    words = [f"MAIL FROM:<{_path(sender_of(message, recipients), peer)}>"]
    if "size" in peer:
        words.append(f"SIZE={facts.size_bytes}")
    if "8bitmime" in peer and facts.has_8bit:
        words.append("BODY=8BITMIME")
    elif "8bitmime" in peer and envelope.body:
        words.append("BODY=8BITMIME" if envelope.body == "8bit" else "BODY=7BIT")
    addresses = (envelope.reverse_path, *[r.forward_path for r in recipients])
    if "smtputf8" in peer and (envelope.smtputf8 or not is_ascii(*addresses)):
        words.append("SMTPUTF8")  # that is all of what needs it, and more
    if "dsn" in peer and envelope.ret:
        words.append(f"RET={envelope.ret}")
    if "dsn" in peer and envelope.envid:
        words.append(f"ENVID={xtext(envelope.envid)}")
    return " ".join(words).encode()


def sender_of(message: Message, recipients: Sequence[Recipient]) -> str:
    """Return the reverse path, VERP expanded; AddressError when that is impossible."""
    envelope = message.envelope
    if envelope.verp and envelope.reverse_path and len(recipients) == 1:
        first = recipients[0]
        path = first.original or first.forward_path  # the one that the list knows
        return verp_sender(envelope.reverse_path, path, envelope.verp)
    return envelope.reverse_path


def _path(mailbox: str, peer: Extensions) -> str:
    """Return an address for this primary: without SMTPUTF8 its domain as A-labels."""
    return mailbox if "smtputf8" in peer else ascii_form(mailbox)


def rcpt_command(recipient: Recipient, peer: Extensions) -> bytes:
    """Return RCPT TO with its parameters, without the line end."""
    words = [f"RCPT TO:<{_path(recipient.forward_path, peer)}>"]
    if "dsn" in peer:
        if recipient.notify:
            words.append(f"NOTIFY={','.join(recipient.notify)}")
        if orcpt := recipient.orcpt_xtext():
            words.append(f"ORCPT={orcpt}")
    return " ".join(words).encode()
