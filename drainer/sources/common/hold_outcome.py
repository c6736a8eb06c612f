"""What becomes of a message that the ledger knows; the same for every queue."""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import batches, has_content
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.common.queue_entry import OpenEntry, SourceEntry
from drainer.sources.common.walk import FilePlace, QueueEntry
from drainer.sources.protocol import LedgerStatus, ReleasedCount, SettlementLedger

E = TypeVar("E", bound=SourceEntry)


class HoldOutcome(enum.Enum):
    """What becomes of a message on hold."""

    REMOVE = enum.auto()
    RELEASE = enum.auto()
    #: It stays on hold, and in the note.
    WAIT = enum.auto()
    #: It is not on hold any more, or others hold it.
    FORGET = enum.auto()


def count_outcomes(outcomes: Counter[HoldOutcome | None]) -> ReleasedCount:
    """Return what a settlement did; None are the messages that were left alone."""
    return ReleasedCount(
        released=outcomes[HoldOutcome.RELEASE],
        waiting=outcomes[HoldOutcome.WAIT],
        removed=outcomes[HoldOutcome.REMOVE],
        unlike=outcomes[None],
    )


def find_settled(
    queue: QueueDirectory[E], entries: Iterable[QueueEntry], ledger: SettlementLedger
) -> Iterator[tuple[FilePlace, Sequence[LedgerStatus]]]:
    """Yield the messages of which the ledger knows more: done, or tried.

    Each comes with the recorded messages of its identity.
    """
    for batch in batches(entry.place for entry in entries if entry.is_file):
        identities = {place: queue.identity_at(place) for place in batch}
        known = ledger.statuses([*filter(None, identities.values())])
        for place, identity in identities.items():
            same = known.get(identity, ())
            if any(each.final or each.is_open for each in same):
                yield place, same


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
    if known and not same:
        detail = "the ledger has another message of its identity"
        raise MessageUnreadable("ambiguous", detail)
    named = [e for e in same if e.message.native_id == found.message.native_id]
    best = named or same
    if len(best) > 1:
        raise MessageUnreadable("ambiguous", "the ledger has several messages like it")
    return best[0] if best else None
