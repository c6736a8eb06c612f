"""The messages of a Postfix that drainer put on hold: find, remove, and release them.

Each message is written into a note before it is held (drainer.sources.postfix.note). A
queue id counts only together with the message's identity, because ids are reused:
drainer compares it after every move. Before it removes or marks a message, the whole
content and the recipients must be those that the ledger has.
"""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from drainer.errors import MessageUnreadable
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.common.files import OpenFiles, batches, directory
from drainer.sources.common.hold_outcome import (
    HoldOutcome,
    count_outcomes,
    find_settled,
    match_recorded,
)
from drainer.sources.common.queue_directory import EntryGone
from drainer.sources.common.queue_entry import OpenEntry
from drainer.sources.common.walk import FilePlace, place_of
from drainer.sources.postfix.layout import (
    DEFAULT_QUEUES,
    HELD,
    UNCLEANED,
    hash_directories,
)
from drainer.sources.postfix.marks import is_done, mark_done
from drainer.sources.postfix.message import PostfixEntry
from drainer.sources.postfix.note import HoldEntry, HoldNote, parse_note
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.protocol import (
    LedgerStatus,
    ReleasedCount,
    SettlementLedger,
)

UNREADABLE = "unreadable"
"""Stands for the identity of a message that cannot be read at the moment."""


class PostfixHold(PostfixQueue):
    """The queue of a Postfix, with our held messages in it."""

    #: Whether a message that was tried and is not finished stays on hold.
    _keeps_open_messages = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str],
        acknowledge: Literal["keep", "remove"] = "remove",
    ) -> None:
        """Read this queue directory; nothing is held yet."""
        super().__init__(path, queues=queues, acknowledge=acknowledge)
        self.holds_key = self._root
        #: Open from ``take`` to ``give_back``.
        self._note: HoldNote | None = None
        #: What stayed on hold when the note was last looked at.
        self._noted: Mapping[str, HoldEntry] = {}
        #: What was on hold for us at any time of this run.
        self._was_ours: set[str] = set()
        #: Messages that the last ``settle`` could not recognise for sure.
        self._unlike = 0

    def _ours(self) -> Mapping[str, HoldEntry]:
        return self._note.entries() if self._note is not None else self._noted

    def peek(self, note: Path) -> None:
        """Learn from the note what earlier runs hold, to list it; changes nothing."""
        with suppress(OSError):
            self._noted = parse_note(note)

    # --- what moves a message

    @abstractmethod
    def _put_on_hold(self, places: Collection[FilePlace]) -> None:
        """Move messages of the queues into hold, durably; skip absent ones."""

    @abstractmethod
    def _release(self, names: Iterable[str]) -> None:
        """Move messages out of hold, durably; skip absent ones."""

    @abstractmethod
    def _delete(self, names: Iterable[str]) -> None:
        """Delete messages in hold with their logs, durably; skip absent ones."""

    def _is_over(self, draft: PostfixEntry) -> bool:
        """Whether Postfix would bounce it at its next failing attempt, if known."""
        del draft
        return False

    # --- hold

    def _hold(self, wanted: Mapping[FilePlace, str]) -> set[str]:
        """Note, hold, and check messages and their identities; return the held ids."""
        assert self._note is not None  # noqa: S101 - take opened it
        identities = {place.name: identity for place, identity in wanted.items()}
        self._note.taking(identities)
        self._was_ours.update(identities)
        self._put_on_hold(wanted.keys())
        now = {name: self._identity_in_hold(name) for name in identities}
        held = {name for name, identity in identities.items() if now[name] == identity}
        self._note.record_held(sorted(held))
        # An id was reused between the check and the move, or it is absent.
        others = [name for name in identities if name not in held]
        self._release(others)
        self._note.back(name for name in others if not self._identity_in_hold(name))
        return held

    # --- held messages

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again; after ``take``, no other process may send it."""
        with self._found(message) as found:
            if self._note is not None:
                self._refuse_unless_ours(found.place)
            return self._spooled(found)

    def _refuse_unless_ours(self, place: FilePlace) -> None:
        if place.parts[0] != HELD or place.name not in self._ours():
            detail = "Postfix has it: it is not on hold for us"
            raise MessageUnreadable("locked", detail)

    # --- before a final dot is sent

    def _is_from_copy(self, message: Message) -> bool:
        """Return whether it is sent from a copy in quarantine: no server has it.

        What was on hold for us in this run and is gone now, others have taken.
        """
        if place_of(message.locator).name in self._was_ours:
            return False
        try:
            with self._found(message):
                return False
        except EntryGone:
            return True
        except MessageUnreadable:
            return False

    # --- finished

    def finish(
        self, messages: Sequence[Message], ledger: SettlementLedger
    ) -> list[str]:
        """Remove them from hold, after comparing each one with the ledger.

        One with a pending report stays: Postfix gets it back, and sends the report.
        """
        done, removable = [], {}
        known = ledger.statuses([message.identity for message in messages])
        for message in messages:
            try:
                with self._found(message) as found:
                    status = _match(found, known.get(message.identity, ()))
                    is_ours = found.place.name in self._ours()
                    if is_ours and self._may_remove(found, status):
                        removable[found.place.name] = message
            except EntryGone:
                done.append(message.id)
            except MessageUnreadable:
                continue
        removed = self._remove_held({n: m.identity for n, m in removable.items()})
        return done + [removable[name].id for name in removed]

    def _may_remove(
        self, found: OpenEntry[PostfixEntry], status: LedgerStatus | None
    ) -> bool:
        return (
            status is not None
            and status.is_finished
            and is_done(found.draft.parsed, status.final)
            and not self._owes_reports(found.place.name)
        )

    def _remove_held(self, identities: Mapping[str, str]) -> list[str]:
        """Delete our finished messages; return those that are gone."""
        if not identities or self._note is None:
            return []
        self._delete(identities)
        now = {name: self._identity_in_hold(name) for name in identities}
        gone = [n for n in identities if now[n] not in (UNREADABLE, identities[n])]
        self._note.back(gone)
        return gone

    # --- settle what is on hold

    def give_back(
        self, note: Path, ledger: SettlementLedger, *, everything: bool = False
    ) -> ReleasedCount:
        """Settle our held messages: remove, keep or release each of them."""
        if self._note is None:
            if not note.exists():
                return ReleasedCount()
            self._open(note)
        assert self._note is not None  # noqa: S101 - it is open now
        total = ReleasedCount()
        try:
            for batch in batches(list(self._note.entries().items())):
                known = ledger.statuses([noted.identity for _, noted in batch])
                part = self._give_back(dict(batch), known, everything=everything)
                total = ReleasedCount(*map(sum, zip(total, part, strict=True)))
            self._noted = dict(self._note.entries())
        finally:
            self._close()
        return total

    def _open(self, note: Path) -> None:
        """Continue with what earlier runs hold; raises the errors of ``take``."""
        self._note = HoldNote(note)
        self._was_ours = set(self._note.entries())

    def _close(self) -> None:
        if self._note is not None:
            self._note.close()
            self._note = None

    def _give_back(
        self,
        batch: Mapping[str, HoldEntry],
        known: Mapping[str, Sequence[LedgerStatus]],
        *,
        everything: bool,
    ) -> ReleasedCount:
        assert self._note is not None  # noqa: S101 - the caller has opened it
        outcomes: dict[HoldOutcome, list[str]] = {
            outcome: [] for outcome in HoldOutcome
        }
        over = set()
        for name, noted in batch.items():
            try:
                same = known.get(noted.identity, ())
                outcome, is_over = self._outcome(
                    name, noted, same, everything=everything
                )
            except MessageUnreadable:
                outcome, is_over = HoldOutcome.WAIT, False
            outcomes[outcome].append(name)
            if is_over:
                over.add(name)
        removable = {
            name: batch[name].identity for name in outcomes[HoldOutcome.REMOVE]
        }
        removed = self._remove_held(removable)
        self._release(outcomes[HoldOutcome.RELEASE])
        left = {n for n in outcomes[HoldOutcome.RELEASE] if self._identity_in_hold(n)}
        released = [name for name in outcomes[HoldOutcome.RELEASE] if name not in left]
        self._note.back([*outcomes[HoldOutcome.FORGET], *released])
        waiting = len(outcomes[HoldOutcome.WAIT]) + len(left)
        return ReleasedCount(
            len(released), len(over.intersection(released)), waiting, len(removed)
        )

    def _outcome(
        self,
        name: str,
        noted: HoldEntry,
        known: Sequence[LedgerStatus],
        *,
        everything: bool,
    ) -> tuple[HoldOutcome, bool]:
        """Decide about a held message, and mark its final recipients.

        Also returns whether its time is over. Raises MessageUnreadable.
        """
        with self._in_hold(name) as found:
            if found is None:
                return HoldOutcome.FORGET, False
            if found.message.identity != noted.identity:  # reused: before, or after
                return (
                    HoldOutcome.FORGET if noted.held else HoldOutcome.RELEASE
                ), False
            over = self._is_over(found.draft)
            status = _match(found, known)
            if status is None:
                return HoldOutcome.RELEASE, over
            outcome = self._decide(found, status, everything=everything)
            if outcome is HoldOutcome.REMOVE:
                return outcome, over
            if noted.of_others:
                outcome = HoldOutcome.FORGET
            with directory(self._root, found.place.parts) as descriptor:
                marked = mark_done(name, descriptor, found.draft.parsed, status.final)
            return (outcome if marked else HoldOutcome.WAIT), over

    def _decide(
        self, found: OpenEntry[PostfixEntry], status: LedgerStatus, *, everything: bool
    ) -> HoldOutcome:
        if self._may_remove(found, status):
            return HoldOutcome.REMOVE
        waits = status.waits or (status.is_open and self._keeps_open_messages)
        return HoldOutcome.WAIT if waits and not everything else HoldOutcome.RELEASE

    # --- settle the whole queue

    def settle(
        self, note: Path, ledger: SettlementLedger, *, dry_run: bool = False
    ) -> ReleasedCount:
        """Apply what the ledger knows of a copy: hold what it knows, then settle that.

        What others hold stays on hold, unless it is finished.
        """
        self._unlike = 0
        if dry_run:
            return self._forecast(ledger)
        self._open(note)
        assert self._note is not None  # noqa: S101 - it is open now
        try:
            for batch in batches(self._find_known(ledger)):
                places = {found.place: found.message.identity for found, _ in batch}
                held = {p.name: i for p, i in places.items() if p.parts[0] == HELD}
                ours = self._ours()
                self._note.found({n: i for n, i in held.items() if n not in ours})
                self._hold({p: i for p, i in places.items() if p.name not in held})
        except BaseException:
            self._close()
            raise
        return self.give_back(note, ledger)._replace(unlike=self._unlike)

    def _forecast(self, ledger: SettlementLedger) -> ReleasedCount:
        outcomes: Counter[HoldOutcome | None] = Counter(
            self._decide(found, status, everything=False)
            for found, status in self._find_known(ledger)
        )
        outcomes[None] = self._unlike
        return count_outcomes(outcomes)

    def _find_known(
        self, ledger: SettlementLedger
    ) -> Iterator[tuple[OpenEntry[PostfixEntry], LedgerStatus]]:
        """Yield what the ledger knows more of than the queue: done, or tried."""
        starts = (*DEFAULT_QUEUES, UNCLEANED, HELD)
        entries = (entry for queue in starts for entry in self.walk((queue,)))
        for place, known in find_settled(self, entries, ledger):
            yield from self._recognise(place, known)

    def _recognise(
        self, place: FilePlace, known: Sequence[LedgerStatus]
    ) -> Iterator[tuple[OpenEntry[PostfixEntry], LedgerStatus]]:
        """Yield the message there with its status, if it is the recorded one."""
        with OpenFiles() as opened:
            try:
                found = self._try(place, opened)
                status = _match(found, known) if found is not None else None
            except MessageUnreadable:
                self._unlike += 1
                return
            if found is not None and status is not None:
                yield found, status

    # --- look

    def _owes_reports(self, name: str) -> bool:
        """Whether Postfix must still report to its sender; removing would lose that."""
        return any(self._has_log(log, name) for log in ("bounce", "trace"))

    @contextmanager
    def _in_hold(self, name: str) -> Iterator[OpenEntry[PostfixEntry] | None]:
        """Keep a file in hold open; None without one. Raises MessageUnreadable."""
        places = (FilePlace((HELD, *below), name) for below in hash_directories(name))
        with OpenFiles() as opened:
            found = (self._try(place, opened) for place in places)
            yield next(filter(None, found), None)

    def _identity_in_hold(self, name: str) -> str:
        """Return the identity of the message in hold under that name; '' = none."""
        try:
            with self._in_hold(name) as found:
                return found.message.identity if found else ""
        except MessageUnreadable:
            return UNREADABLE


def _match(
    found: OpenEntry[PostfixEntry], known: Sequence[LedgerStatus]
) -> LedgerStatus | None:
    """Return the recorded message that this one is; raises MessageUnreadable."""
    return match_recorded(found, known, found.draft.parsed.error)
