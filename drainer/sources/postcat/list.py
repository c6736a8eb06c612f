"""The list of ``postqueue -j``: one JSON object on one line for each message.

For a message it has the queue, the second of arrival, the sender and the remaining
recipients. Addresses are quoted, with ``?`` for unprintable characters, and the null
sender is MAILER-DAEMON (showq_json.c). It is not a snapshot: a message that moves in
the meantime may occur twice or not at all.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from drainer.errors import MessageUnreadable
from drainer.runtime.json_input import parse_json
from drainer.sources.common.files import read_at

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Largest entry of one message; each recipient takes about 100 bytes."""

_BLOCK_BYTES = 256 * 1024
_QUEUE_ID = re.compile(r"[0-9A-Za-z_]{1,100}")
_MAX_SECONDS = 253_402_300_800  # the year 10000


class PostqueueEntry(NamedTuple):
    """The data of a message in the list."""

    queue_id: str
    queue: str
    #: Seconds since 1970.
    arrived: int
    #: '' = the null sender.
    sender: str
    recipients: frozenset[str]
    #: An operator made Postfix expire it (postsuper -e).
    is_expired: bool


def lines(descriptor: int, size: int, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the non-empty lines from an offset on, with their offsets.

    It cuts a line that is too long; parse_line refuses that one.
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
    """Return the entry of a line; raises MessageUnreadable('corrupt')."""
    if len(line) > MAX_LINE_BYTES:
        _refuse("is too long")
    try:
        found = parse_json(line)
    except ValueError:
        _refuse("is not JSON: was it cut off?")
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
        _refuse("has an impossible queue id or time")
    return PostqueueEntry(
        queue_id=queue_id,
        queue=queue,
        arrived=arrived,
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=recipients,
        is_expired=found.get("forced_expire") is True,
    )


def _refuse(what: str) -> NoReturn:
    raise MessageUnreadable("corrupt", f"a line of the list {what}")
