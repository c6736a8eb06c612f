"""Read the envelope from a Haraka queue file; pure.

A file is a length (four bytes, big-endian), that many bytes of JSON, and the content as
on the wire: CRLF line ends, dot-stuffed, without the final dot (outbound/index.js,
build_todo; hmail.js, read_todo).
"""

import json
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import (
    AddressError,
    Envelope,
    Recipient,
    parse_mailbox,
    quote_mailbox,
    unique_recipients,
    wire_mailbox,
)
from drainer.mail.reply import printable
from drainer.runtime.json_input import parse_json
from drainer.sources.common.stored_text import mailbox_of, recipient_of

LENGTH_BYTES = 4

_NAME_PARTS = 7
_OLD_NAME_PARTS = 4
_MAX_SECONDS = 2**35
_MAX_NAME = 255


class HarakaTodo(Struct, frozen=True, kw_only=True):
    """The content of a queue file's JSON."""

    envelope: Envelope
    #: Seconds since 1970.
    queued: float
    #: Of the transaction; shared by its files, one per domain.
    uuid: str
    #: Haraka was configured to use TLS or not to send.
    needs_tls: bool
    #: The fault of its sender; '' = none.
    fault: str
    #: The data that are part of the identity.
    stable: tuple[bytes, ...]


class HarakaName(Struct, frozen=True):
    """The parts of a file name: arrival_next_attempts_pid_tag_counter_host."""

    #: Attempts that failed so far.
    attempts: int
    #: Of the process that holds it, or held it last.
    process: int
    #: The part that stays when the file is renamed.
    tag: str
    arrival: str


def parse_name(name: str) -> HarakaName | None:
    """Parse a file name; None if it is not one of Haraka's.

    Names of Haraka 2 (next_attempts_pid_count.host) have no tag and change at every
    start, so the whole name replaces it.
    """
    parts = name.split("_")
    if len(parts) == _NAME_PARTS and all(map(_is_number, parts[:4])):
        return HarakaName(int(parts[2]), int(parts[3]), parts[4], parts[0])
    if len(parts) == _OLD_NAME_PARTS and all(map(_is_number, parts[:3])):
        return HarakaName(int(parts[1]), int(parts[2]), name, "")
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18  # noqa: PLR2004


def parse_todo(data: bytes) -> HarakaTodo:
    """Parse the JSON; raises MessageUnreadable('corrupt')."""
    try:
        found = parse_json(data)
    except ValueError as error:
        detail = f"its JSON: {printable(str(error))[:200]}"
        raise MessageUnreadable("corrupt", detail) from error
    if not isinstance(found, dict):
        raise MessageUnreadable("corrupt", "its JSON is not an object")
    sender, listed = found.get("mail_from"), found.get("rcpt_to")
    if not isinstance(sender, dict) or not isinstance(listed, list):
        raise MessageUnreadable("corrupt", "its JSON names no sender or recipients")
    return _explain(found, sender, listed)


def _explain(
    found: Mapping[str, object], sender: Mapping[str, object], listed: list[object]
) -> HarakaTodo:
    recipients = unique_recipients(map(_recipient, listed))
    reverse_path, fault = "", ""
    if sender.get("user") or sender.get("host"):
        reverse_path, fault = mailbox_of("", lambda _: _wire_form(sender))
    seconds, name = _seconds(found.get("queue_time")), _name(found.get("uuid"))
    paths = sorted(each.forward_path for each in recipients)
    return HarakaTodo(
        envelope=Envelope(reverse_path=reverse_path, recipients=recipients),
        queued=seconds,
        uuid=name,
        needs_tls=found.get("force_tls") is True,
        fault=fault,
        stable=tuple(map(_bytes_of, (name, repr(seconds), reverse_path, *paths))),
    )


def _seconds(value: object) -> float:
    """Return a time in milliseconds as seconds; 0 if it is invalid."""
    if isinstance(value, int | float) and 0 <= value <= _MAX_SECONDS * 1000:
        return value / 1000
    return 0.0


def _name(value: object) -> str:
    """Return a uuid; '' if it is invalid."""
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        return ""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return ""
    return value


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _recipient(address: object) -> Recipient:
    return recipient_of(_format_address(address), lambda _: _wire_form(address))


def _format_address(address: object) -> str:
    """Return a stored address as text for people."""
    if not isinstance(address, dict):
        return json.dumps(address)
    user, host = address.get("user"), address.get("host")
    return f"{user}@{host}" if host else str(user)


def _wire_form(address: object) -> str:
    """Return the wire form that Haraka would send; raises AddressError.

    Haraka sends user and host; some versions store the local part with its quotes, and
    some without.
    """
    if not isinstance(address, dict):
        raise AddressError(f"not an address: {type(address).__name__}")
    user, host = address.get("user"), address.get("host")
    if not isinstance(user, str) or not isinstance(host, str | None):
        raise AddressError(f"no user and host among {', '.join(address)[:60]!r}")
    if not host:
        return parse_mailbox(user)
    if '"' in user:
        return wire_mailbox(f"{user}@{host}")
    return quote_mailbox(f"{user}@{host}")


def unstuff(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Remove the added dots (RFC 5321 4.5.2); complete the last line with CRLF."""
    at_start, tail = True, b"\r\n"
    for chunk in chunks:
        if not chunk:
            continue
        plain = chunk.replace(b"\n.", b"\n")
        yield plain[1:] if at_start and chunk.startswith(b".") else plain
        at_start = chunk.endswith(b"\n")
        tail = (tail + chunk)[-2:]
    if tail != b"\r\n":
        yield b"\n" if tail.endswith(b"\r") else b"\r\n"
