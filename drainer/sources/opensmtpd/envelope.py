"""Read the envelope from an OpenSMTPD envelope file; pure.

Lines of ``key: value`` (envelope.c); one file is one recipient of a message.
ENVID and ORCPT are stored as they came, in xtext, ORCPT without its type.
"""

import re

from msgspec import Struct

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import (
    Client,
    Envelope,
    quote_mailbox,
    wire_mailbox,
)
from drainer.mail.message import Problem
from drainer.sources.common.stored_text import (
    MailboxForm,
    mailbox_of,
    notify_of,
    parameter_of,
    recipient_of,
    text_of,
)

VERSIONS = ("1", "2", "3")
"""SMTPD_ENVELOPE_VERSION up to OpenSMTPD 7."""

_GZIP = b"\x1f\x8b"
_CRYPTO_VERSION = b"\x01"  # API_VERSION in crypto.c
_REQUIRED = ("version", "type", "sender", "dest", "ctime")
_TYPES = ("mta", "mda", "bounce")
_NOTIFY = {1: "SUCCESS", 2: "FAILURE", 4: "DELAY", 8: "NEVER"}
_LINE = re.compile(r"([A-Za-z0-9-]+)[ \t]*:[ \t]*(.*)")
_MAX_DIGITS = 11


class EnvelopeFile(Struct, frozen=True, kw_only=True):
    """The content of an envelope file."""

    envelope: Envelope
    #: Seconds since 1970.
    created: int
    client: Client
    login: str
    problem: Problem | None
    #: The data that are part of the identity.
    stable: tuple[bytes, ...]


def find_packing(head: bytes) -> str:
    """Return how a file of the queue was packed: compressed, encrypted or ''."""
    if head.startswith(_GZIP):
        return "gzip: the queue is compressed"
    if head.startswith(_CRYPTO_VERSION):
        return "the queue is encrypted"
    return ""


def parse(data: bytes) -> EnvelopeFile:
    """Parse a file; MessageUnreadable('incomplete', 'compressed' or 'corrupt')."""
    if not data:
        raise MessageUnreadable("incomplete", "its envelope file is empty")
    packed = find_packing(data)
    if packed:
        raise MessageUnreadable("compressed", packed)
    if not data.endswith(b"\n") or b"\0" in data:
        detail = "its envelope file is cut off" if b"\0" not in data else "a NUL in it"
        raise MessageUnreadable("corrupt", detail)
    return _explain(_fields(data))


def _fields(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in data[:-1].decode("utf-8", "surrogateescape").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise MessageUnreadable("corrupt", f"not an envelope line: {line[:60]!r}")
        fields[match[1].lower()] = match[2]
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise MessageUnreadable("corrupt", f"no {missing[0]} in its envelope file")
    version, kind, created = fields["version"], fields["type"], fields["ctime"]
    if version not in VERSIONS or kind.lower() not in _TYPES:
        detail = f"version {version[:20]!r}, type {kind[:20]!r}"
        raise MessageUnreadable("corrupt", detail)
    if not (created.isascii() and created.isdigit() and len(created) < _MAX_DIGITS):
        raise MessageUnreadable("corrupt", f"ctime {created[:20]!r}")
    return fields


def _explain(fields: dict[str, str]) -> EnvelopeFile:
    is_local = fields["type"].lower() == "mda"
    target = fields.get("rcpt", fields["dest"]) if is_local else fields["dest"]
    sender, orcpt = fields["sender"], _parameter(fields.get("dsn-orcpt", ""))
    recipient = recipient_of(
        _bytes_of(target),
        _form(target),
        orcpt=f"rfc822;{orcpt}" if orcpt else "",
        notify=_notify(fields.get("dsn-notify", "")),
    )
    ret = fields.get("dsn-ret", "").upper()
    reverse_path, fault = "", ""
    if sender != "@":
        reverse_path, fault = mailbox_of(_bytes_of(sender), _form(sender))
    envelope = Envelope(
        reverse_path=reverse_path,
        recipients=(recipient,),
        envid=_parameter(fields.get("dsn-envid", "")),
        ret=ret if ret in ("FULL", "HDRS") else "",
    )
    stable = (sender, fields["dest"], fields.get("rcpt", ""), fields["ctime"])
    return EnvelopeFile(
        envelope=envelope,
        created=int(fields["ctime"]),
        client=_client(fields),
        login=_text(fields.get("username", "")),
        problem=_problem(fields, fault),
        stable=tuple(map(_bytes_of, stable)),
    )


def _problem(fields: dict[str, str], fault: str) -> Problem | None:
    kind = fields["type"].lower()
    if kind == "bounce":
        detail = _text(fields.get("errorline", "")) or "no reason is given"
        return Problem(code="bounce-due", detail=detail)
    if fault:
        return Problem(code="bad-address", detail=f"its sender: {fault}")
    if kind == "mda":
        detail = f"to {_text(fields['dest'])}"
        return Problem(code="local-delivery", detail=detail)
    return None


def _client(fields: dict[str, str]) -> Client:
    address = fields.get("sockaddr", "").strip("[]")
    return Client(
        address="" if address == "local" else _text(address),
        name=_text(fields.get("hostname", "")),
        helo=_text(fields.get("helo", "")),
    )


def _notify(text: str) -> tuple[str, ...]:
    flags = int(text) if re.fullmatch("[0-9]{1,3}", text) else 0
    return notify_of(flags, _NOTIFY)


def _bytes_of(stored: str) -> bytes:
    return stored.encode("utf-8", "surrogateescape")


def _text(stored: str) -> str:
    return text_of(_bytes_of(stored))


def _form(stored: str) -> MailboxForm:
    """Return how an address is stored: as on the wire only if it is quoted."""
    return wire_mailbox if stored[:1] == '"' else quote_mailbox


def _parameter(stored: str) -> str:
    return "" if stored == "@" else parameter_of(_bytes_of(stored))
