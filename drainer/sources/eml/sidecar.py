"""The envelope of an .eml file in JSON next to it: ``NAME.json``; pure.

An object as ``drainer inspect --json`` prints it. Only ``reverse_path`` and
``recipients`` are required; other keys than these are ignored::

    {"reverse_path": "s@example.com",       "" is the null sender
     "recipients": ["r@example.org",        or with parameters (RFC 3461 4):
         {"forward_path": "q@example.org", "orcpt": "rfc822;Q@example.org",
          "notify": ["FAILURE", "DELAY"]}],
     "done": ["p@example.org"],             already delivered; never sent to
     "arrived": "2026-11-23T17:06:59Z",     RFC 3339 5.6; else the file's time
     "envid": "...", "ret": "FULL" or "HDRS", "body": "7bit" or "8bit",
     "smtputf8": false, "login": "...",
     "verp": "+=",                          delimiters; each recipient gets a separate
                                            sender (list+user=domain@host)
     "whole": true,                         no field on top of the file is a trace
     "client": {"address": "192.0.2.7", "name": "...", "helo": "..."}}

Mailboxes are in the form of the wire (RFC 5321 4.1.2), ORCPT and ENVID decoded.
``null`` is the same as absent.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NoReturn

from msgspec import Struct, field

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import (
    MAX_PARAMETER_LENGTH,
    NULL_SENDER,
    AddressError,
    Client,
    Envelope,
    Recipient,
    unique_recipients,
    wire_mailbox,
)
from drainer.mail.reply import printable
from drainer.runtime.json_input import parse_json
from drainer.sources.common.stored_text import recipient_of

MAX_SIDECAR_BYTES = 4 * 1024 * 1024
"""Largest sidecar, in bytes; enough for some 50,000 recipients."""

_NOTIFY = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
VERP = re.compile(r"[!-~]{2}")
"""Any delimiters that a spool may have; the resulting sender is quoted if needed."""


class Sidecar(Struct, frozen=True, kw_only=True):
    """The content of a sidecar."""

    envelope: Envelope
    client: Client = field(default_factory=Client)
    login: str = ""
    arrived: datetime | None = None
    #: All of the file is the mail: its delivery fields came with it.
    whole: bool = False


def parse_sidecar(data: bytes) -> Sidecar:
    """Return the content of a sidecar.

    Raises MessageUnreadable: 'bad-address' for a sender that no command can carry,
    'no-envelope' when a part is missing, 'corrupt' otherwise.
    """
    try:
        parsed = parse_json(data)
    except ValueError as error:
        _refuse(f"not JSON: {error}")
    if not isinstance(parsed, dict):
        _refuse("not a JSON object")
    for name in ("reverse_path", "recipients"):
        if parsed.get(name) is None:
            raise MessageUnreadable("no-envelope", f"its sidecar has no {name}")
    client = parsed.get("client") or {}
    if not isinstance(client, dict):
        _refuse("client is not an object")
    return Sidecar(
        envelope=_envelope(parsed),
        client=Client(
            address=printable(_text(client, "address")),
            name=printable(_text(client, "name")),
            helo=printable(_text(client, "helo")),
        ),
        login=printable(_text(parsed, "login")),
        arrived=_time(_text(parsed, "arrived")),
        whole=_bool(parsed, "whole"),
    )


def _envelope(parsed: Mapping[str, object]) -> Envelope:
    sender = _text(parsed, "reverse_path")
    recipients = unique_recipients(map(_recipient, _list(parsed, "recipients")))
    done = [_recipient(each).forward_path for each in _list(parsed, "done")]
    if not recipients and not done:
        raise MessageUnreadable("no-envelope", "its sidecar names no recipient")
    return Envelope(
        reverse_path=NULL_SENDER if sender in ("", "<>") else _reverse_path(sender),
        recipients=recipients,
        done=tuple(dict.fromkeys(done)),
        body=_one_of(parsed, "body", ("", "7bit", "8bit")),
        smtputf8=_bool(parsed, "smtputf8"),
        envid=_parameter(parsed, "envid"),
        ret=_one_of(parsed, "ret", ("", "FULL", "HDRS")),
        verp=_verp(parsed),
    )


def _verp(parsed: Mapping[str, object]) -> str:
    verp = _text(parsed, "verp")
    if verp and not VERP.fullmatch(verp):
        _refuse("verp is not a pair of delimiters")
    return verp


def _recipient(given: object) -> Recipient:
    if isinstance(given, str):
        return recipient_of(given)
    if not isinstance(given, dict):
        _refuse("a recipient is neither a text nor an object")
    notify = _list(given, "notify")
    orcpt = _parameter(given, "orcpt")
    if any(each not in _NOTIFY for each in notify):
        _refuse(f"notify has something other than {', '.join(_NOTIFY)}")
    if "NEVER" in notify and len(set(map(str, notify))) > 1:  # RFC 3461 4.1
        _refuse("notify has NEVER together with another")
    if orcpt and ";" not in orcpt:
        _refuse("orcpt is not TYPE;ADDRESS")
    path = given.get("forward_path")
    if not isinstance(path, str):
        _refuse("a recipient is not text")
    return recipient_of(
        path,
        orcpt=orcpt,
        notify=tuple(each for each in _NOTIFY if each in notify),
    )


def _reverse_path(given: str) -> str:
    try:
        return wire_mailbox(given)
    except AddressError as error:
        detail = f"its sender: {printable(str(error))}"
        raise MessageUnreadable("bad-address", detail) from error


def _bool(given: Mapping[str, object], name: str) -> bool:
    value = given.get(name) or False
    if not isinstance(value, bool):
        _refuse(f"{name} is neither true nor false")
    return value


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(f"{name} is not text")
    return value


def _parameter(given: Mapping[str, object], name: str) -> str:
    """Return a DSN parameter that a command may carry encoded."""
    value = _text(given, name)
    if not value.isprintable() or len(value) > MAX_PARAMETER_LENGTH:
        _refuse(f"{name} is not printable or too long")
    return value


def _one_of(given: Mapping[str, object], name: str, legal: tuple[str, ...]) -> str:
    value = _text(given, name)
    if value not in legal:
        _refuse(f"{name} is not one of {', '.join(filter(None, legal))}")
    return value


def _list(given: Mapping[str, object], name: str) -> list[object]:
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(f"{name} is not a list")
    return value


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        _refuse("arrived is not a time as in RFC 3339 5.6")


def _refuse(reason: str) -> NoReturn:
    raise MessageUnreadable("corrupt", f"its sidecar: {printable(reason)}")
