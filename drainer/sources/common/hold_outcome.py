"""What becomes of a message that the ledger knows; the same for every queue."""

import enum
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import has_content
from drainer.sources.common.queue_entry import OpenEntry, SourceEntry
from drainer.sources.protocol import LedgerStatus

T = TypeVar("T")
E = TypeVar("E", bound=SourceEntry)

BATCH = 500
"""Messages that are moved, or looked up in the ledger, together."""


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield BATCH of them at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


class HoldOutcome(enum.Enum):
    """What becomes of a message on hold."""

    REMOVE = enum.auto()
    RELEASE = enum.auto()
    #: It stays on hold, and in the note.
    WAIT = enum.auto()
    #: It is not on hold any more, or others hold it.
    FORGET = enum.auto()


def match_recorded(
    found: OpenEntry[E],
    known: Sequence[LedgerStatus],
    error: MessageUnreadable | None,
) -> LedgerStatus | None:
    """Return the recorded message that this one is, by its whole content.

    ``known`` share its identity, and so its arrival and reverse path. None without any.
    ``error`` is the damage of its files. Raises MessageUnreadable when it is none of
    them, when several look alike and not one of them has this queue id, and when the
    content cannot be compared.
    """
    if error is not None:
        raise error
    same = [
        each
        for each in known
        if each.message.sha256 and has_content(each.message, found.draft.chunks)
    ]
    code = "ambiguous"
    if known and not same:
        detail = "the ledger has another message of its identity"
        raise MessageUnreadable(code, detail)
    named = [e for e in same if e.message.native_id == found.message.native_id]
    best = named or same
    if len(best) > 1:
        raise MessageUnreadable(code, "the ledger has several messages like it")
    return best[0] if best else None
