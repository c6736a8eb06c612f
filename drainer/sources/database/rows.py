"""Convert a row of mail to a Message: pure functions over database values.

Every value may be hostile: an unreadable one becomes the message's problem.

Identity: SHA-256 over a tag, the row's id and, in the built-in spool, the name that the
writer gave, else the arrival, the reverse path and the first 4 KiB. In a mapped table:
the table's name, the row's id and the first 4 KiB.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from drainer.errors import MessageUnreadable
from drainer.mail.content import message_id_of
from drainer.mail.envelope import (
    AddressError,
    Client,
    Envelope,
    Recipient,
    unique_recipients,
    wire_mailbox,
)
from drainer.mail.message import Message, Problem
from drainer.mail.reply import printable
from drainer.runtime.json_input import parse_json
from drainer.sources.common.files import escape_name
from drainer.sources.common.stored_text import recipient_of
from drainer.sources.database.mapping import TableMapping

HEAD_BYTES = 4096
IMPORTED = re.compile(r"drainer:([0-9a-f]{32})")
"""The name of a message from `spool import`: it keeps its id."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOTIFY = frozenset({"NEVER", "SUCCESS", "FAILURE", "DELAY"})
_MAX_NAME = 250
_ESCAPED_OR_QUOTE = re.compile(r'\\.|"', re.DOTALL)


def identity(mapping: TableMapping, row: Mapping[str, Any], arrived: datetime) -> str:
    """Return the message's id: 32 hex digits."""
    head = bytes_of(row["head"], lenient=True)[:HEAD_BYTES]
    name = str(row.get("message_id") or "")
    id_ = str(row["id"]).encode(errors="replace")
    if mapping.is_built_in:
        if imported := IMPORTED.fullmatch(name):
            return imported[1]
        if name:
            return _digest(b"database-name", id_, name.encode(errors="replace"))
        when = str((arrived - _EPOCH) // timedelta(microseconds=1)).encode()
        sender = str(row["reverse_path"]).encode(errors="replace")
        return _digest(b"database", id_, when, sender, head)
    table = mapping.name.encode(errors="replace")
    return _digest(b"database-row", table, id_, head)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:32]


def bytes_of(value: object, *, lenient: bool = False) -> bytes:
    """Return a content's bytes; text is what SQLite makes of a database in UTF-16.

    Raises MessageUnreadable('corrupt') for any other value.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        errors = "replace" if lenient else "surrogateescape"
        try:
            return value.encode(errors=errors)
        except UnicodeEncodeError as error:
            raise MessageUnreadable("corrupt", f"not UTF-16: {error.reason}") from None
    if lenient:
        return b""
    raise MessageUnreadable("corrupt", f"the content is {type(value).__name__}")


def arrival(value: object, *, micros: bool = False) -> datetime:
    """Return a time: datetime (naive is UTC), seconds or ISO 8601; or ValueError."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        scale = timedelta(microseconds=1) if micros else timedelta(seconds=1)
        moment = (
            _EPOCH + scale * float(value) if not micros else _EPOCH + scale * int(value)
        )
    elif isinstance(value, str):
        moment = datetime.fromisoformat(value)
    else:
        raise ValueError(f"not a time: {type(value).__name__}")  # noqa: TRY004 - one kind of failure
    return (
        moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    )


def mailbox(value: object) -> str:
    """Return a mailbox in wire form, from that form or unquoted; AddressError."""
    if not isinstance(value, str):
        raise AddressError(f"an address is {type(value).__name__}, not text")
    return wire_mailbox(value)


def message_of(
    url: str,
    mapping: TableMapping,
    row: Mapping[str, Any],
    children: Sequence[Mapping[str, Any]] = (),
) -> Message:
    """Return the message of a row (with its recipients' rows); never raises."""
    problem, moment = None, _EPOCH
    try:
        moment = arrival(row["arrived"], micros=mapping.is_built_in)
    except (ValueError, OverflowError, ArithmeticError) as error:
        problem = Problem(code="corrupt", detail=f"arrived: {error}")
    envelope = Envelope()
    try:
        envelope = _envelope(mapping, row, children)
    except AddressError as error:
        detail = f"its sender: {printable(str(error))}"
        problem = problem or Problem(code="bad-address", detail=detail)
    except ValueError as error:
        problem = problem or Problem(code="no-envelope", detail=str(error))
    if problem is None and not envelope.recipients:
        code = "done-by-backup" if envelope.done else "no-envelope"
        problem = Problem(code=code, detail="no recipient remains")
    if not row["size"]:
        problem = problem or Problem(code="corrupt", detail="its content is empty")
    head = bytes_of(row["head"], lenient=True)
    native = str(row.get("message_id") or row["id"])
    return Message(
        identity=identity(mapping, row, moment),
        source=url,
        native_id=escape_name(native[:_MAX_NAME]),
        queue=escape_name(mapping.name[:_MAX_NAME]),
        locator=escape_name(str(row["id"])),
        arrived=moment,
        envelope=envelope,
        size_bytes=int(row["size"] or 0),
        client=Client(
            address=_text(row, "client_address"),
            name=_text(row, "client_name"),
            helo=_text(row, "helo"),
        ),
        login=_text(row, "login"),
        message_id=message_id_of(head),
        problem=problem,
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)[:1000]


def _envelope(
    mapping: TableMapping, row: Mapping[str, Any], children: Sequence[Mapping[str, Any]]
) -> Envelope:
    reverse_path = row["reverse_path"]
    if reverse_path is None:
        raise ValueError("the reverse path is NULL; the null sender is an empty text")
    pending, done = [], []
    for child in children or _children(mapping, row.get("recipients")):
        recipient = _recipient(child)
        if child.get("is_open", True):
            pending.append(recipient)
        else:
            done.append(recipient.forward_path)
    verp = _text(row, "verp")
    body, ret = _text(row, "body").lower(), _text(row, "ret").upper()
    return Envelope(
        reverse_path=mailbox(reverse_path) if reverse_path not in ("", "<>") else "",
        recipients=unique_recipients(pending),
        done=tuple(dict.fromkeys(done)),
        body=body if body in ("7bit", "8bit") else "",
        smtputf8=bool(row.get("smtputf8")),
        envid=_text(row, "envid"),
        ret=ret if ret in ("FULL", "HDRS") else "",
        verp=verp if len(verp) == len("+=") else "",
    )


def _recipient(child: Mapping[str, Any]) -> Recipient:
    value, notify = child["forward_path"], _text(child, "notify").upper().split(",")
    return recipient_of(
        str(value),
        lambda _: mailbox(value),
        orcpt=_text(child, "orcpt"),
        notify=tuple(word for word in notify if word in _NOTIFY),
    )


def _children(mapping: TableMapping, value: object) -> Iterable[Mapping[str, Any]]:
    """Return the recipients in one column."""
    if value is None or mapping.recipients_format == "table":
        return []
    found: object = [value]
    if mapping.recipients_format == "delimited" and isinstance(value, str):
        found = [part.strip() for part in _split(value, mapping.recipients_delimiter)]
        found = [part for part in found if part]
    elif mapping.recipients_format in ("json", "array"):
        found = _json(value) if isinstance(value, str | bytes) else value
    if not isinstance(found, list | tuple):
        raise ValueError(f"the recipients are {type(found).__name__}, not a list")  # noqa: TRY004 - one kind of failure
    return [{"forward_path": each} for each in found]


def _split(value: str, delimiter: str) -> list[str]:
    """Return the parts of a list; a quoted delimiter does not end a part."""
    parts = value.split(delimiter)
    found: list[list[str]] = []
    is_open = False
    for part in parts:
        if is_open:
            found[-1].append(part)
        else:
            found.append([part])
        is_open ^= _ESCAPED_OR_QUOTE.findall(part).count('"') % 2 == 1
    return parts if is_open else [delimiter.join(each) for each in found]


def _json(value: str | bytes) -> object:
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"the recipients are not valid JSON: {error}") from None
