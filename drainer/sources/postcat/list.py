"""The list that ``postqueue -j`` prints: a JSON object for each message, a line each.

Of a message it tells the queue, the second of arrival, the sender and who is left;
addresses are quoted, with ``?`` for what is not printable, and the null sender is
called MAILER-DAEMON (showq_json.c). It is no snapshot: a message that moves
meanwhile may be there twice or not at all.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import read_at

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Of one message; each recipient takes some 100 octets."""

_BLOCK_BYTES = 256 * 1024
_QUEUE_ID = re.compile(r"[0-9A-Za-z_]{1,100}")
_MAX_SECONDS = 253_402_300_800  # the year 10000


class PostqueueEntry(NamedTuple):
    """What the list says about a message."""

    queue_id: str
    queue: str
    #: Seconds since 1970.
    arrived: int
    #: '' is the null sender.
    sender: str
    recipients: frozenset[str]
    #: An operator told Postfix to give it up (postsuper -e).
    is_expired: bool


def lines(descriptor: int, size: int, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the lines from an offset on that are not empty, with their offsets.

    A line that is too long is cut off there; parse_line refuses it.
    """
    rest = b""
    while offset < size:
        block = read_at(descriptor, offset, min(_BLOCK_BYTES, size - offset))
        if not block:
            return
        start = offset - len(rest)
        offset += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield start, line
            start += len(line) + 1
        if len(rest) > MAX_LINE_BYTES:
            yield start, rest
            return
    if rest.strip():
        yield size - len(rest), rest


def parse_line(line: bytes) -> PostqueueEntry:
    """Return what a line says; raises MessageUnreadable('corrupt')."""
    if len(line) > MAX_LINE_BYTES:
        _refuse("is endless")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        _refuse("is no JSON: was it cut off?")
    try:
        queue_id, queue, arrived, sender = (
            found[name] for name in ("queue_id", "queue_name", "arrival_time", "sender")
        )
        recipients = frozenset(each["address"] for each in found["recipients"])
    except (KeyError, TypeError):
        _refuse("is not what postqueue -j prints")
    texts = (queue_id, queue, sender, *recipients)
    if not all(isinstance(each, str) for each in texts) or type(arrived) is not int:
        _refuse("is not what postqueue -j prints")
    if not _QUEUE_ID.fullmatch(queue_id) or not 0 < arrived < _MAX_SECONDS:
        _refuse("has a queue id or a time that cannot be")
    return PostqueueEntry(
        queue_id=queue_id,
        queue=queue,
        arrived=arrived,
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=recipients,
        is_expired=found.get("forced_expire") is True,
    )


def _refuse(what: str) -> NoReturn:
    code = "corrupt"
    raise MessageUnreadable(code, f"a line of the list {what}")
