"""Our held messages in a running Postfix: hold, check, and release them.

Each message is written into a note before it is held (postfix_note). A queue id counts
only together with the message's identity, because ids are reused: drainer compares it
after every move.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from drainer.errors import MessageUnreadable
from drainer.runtime.process import utcnow
from drainer.sources.common.files import OpenFiles, directory, sync_directory
from drainer.sources.common.queue_entry import OpenEntry
from drainer.sources.common.walk import FilePlace
from drainer.sources.postfix.instance import PostfixInstance
from drainer.sources.postfix.layout import DEFAULT_QUEUES, hash_directories
from drainer.sources.postfix.marks import is_done, mark_done
from drainer.sources.postfix.message import PostfixEntry
from drainer.sources.postfix.note import HoldEntry, HoldNote
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.protocol import HeldCount, LedgerStatus, ReleasedCount

T = TypeVar("T")

HOLD = "hold"
BATCH = 500
"""Messages that one call of postsuper moves."""
_UNREADABLE = "unreadable"
"""Stands for the identity of a message that cannot be read at the moment."""


class PostfixHold(PostfixQueue):
    """The queue of a Postfix, with our held messages in it."""

    def __init__(self, instance: PostfixInstance, *, queues: Sequence[str]) -> None:
        """Read the queue of this instance; nothing is held yet."""
        super().__init__(instance.queue_directory, queues=queues, acknowledge="remove")
        self.url = f"postfix:live={instance.directory}"
        self._postfix = instance
        #: Open from ``take`` to ``give_back``.
        self._note: HoldNote | None = None

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield nothing: what drainer does not take stays with the server that runs."""
        return iter(())

    def _ours(self) -> Mapping[str, HoldEntry]:
        return self._note.entries() if self._note is not None else {}

    def _hold(self, wanted: Mapping[str, tuple[str, bool]]) -> HeldCount:
        """Note, hold, and check that the held messages are those in the note."""
        assert self._note is not None  # noqa: S101 - take opened it
        self._note.taking({name: identity for name, (identity, _) in wanted.items()})
        self._move("-h", wanted, DEFAULT_QUEUES)
        self._sync_hold(wanted)
        now = {name: self._identity_in_hold(name) for name in wanted}
        held = {name for name, (identity, _) in wanted.items() if now[name] == identity}
        self._note.held(sorted(held))
        # An id was reused between the check and the move, or it is absent.
        others = [name for name in wanted if name not in held]
        self._move("-H", others)
        self._note.back(name for name in others if not self._identity_in_hold(name))
        return HeldCount(len(held), sum(wanted[name][1] for name in held))

    def _move(
        self, option: str, names: Iterable[str], queues: Sequence[str] = (HOLD,)
    ) -> None:
        """Call postsuper, which keeps the note locked too until it ends."""
        assert self._note is not None  # noqa: S101 - nothing is moved before take
        self._postfix.move(option, names, queues, keep=self._note.descriptor)

    def _is_over(self, draft: PostfixEntry) -> bool:
        """Whether qmgr would bounce it at its next failing attempt (qmgr_active.c)."""
        records = draft.parsed.records
        created = records.attributes.get(b"create_time", b"")[:12]
        since = int(created) if created.isdigit() else (records.arrival or (0, 0))[0]
        limit = self._postfix.lifetime(null_sender=not records.sender)
        return utcnow() >= datetime.fromtimestamp(since, UTC) + limit

    def _remove_from_hold(self, identities: Mapping[str, str]) -> list[str]:
        """Delete the messages that are finished; return those that are gone."""
        ours = self._ours()
        names = [name for name in identities if name in ours]
        if not names or self._note is None:
            return []
        self._move("-d", names)
        self._sync_hold(names)
        now = {name: self._identity_in_hold(name) for name in names}
        gone = [n for n in names if now[n] not in (_UNREADABLE, identities[n])]
        self._note.back(gone)
        return gone

    # --- release

    def give_back(
        self,
        note: Path,
        standings: Callable[[Sequence[str]], Mapping[tuple[str, str], LedgerStatus]],
        *,
        everything: bool = False,
    ) -> ReleasedCount:
        """Release unfinished messages, with their done recipients marked."""
        if self._note is None:
            if not note.exists():
                return ReleasedCount()
            self._note = HoldNote(note)
        total = ReleasedCount()
        try:
            for batch in batches(list(self._note.entries().items())):
                known = standings([noted.identity for _, noted in batch])
                part = self._give_back(dict(batch), known, everything=everything)
                total = ReleasedCount(*map(sum, zip(total, part, strict=True)))
        finally:
            self._note.close()
            self._note = None
        return total

    def _give_back(
        self,
        batch: Mapping[str, HoldEntry],
        known: Mapping[tuple[str, str], LedgerStatus],
        *,
        everything: bool,
    ) -> ReleasedCount:
        assert self._note is not None  # noqa: S101 - the caller has opened it
        fates: dict[str, list[str]] = {"back": [], "wait": [], "remove": []}
        released: dict[str, bool] = {}
        for name, noted in batch.items():
            standing = known.get((noted.identity, name))
            if standing and everything:
                standing = standing._replace(waits=False)
            try:
                fate, is_over = self._fate(name, noted, standing)
            except MessageUnreadable:
                fate, is_over = "wait", False
            if fate == "release":
                released[name] = is_over
            else:
                fates[fate].append(name)
        identities = {name: noted.identity for name, noted in batch.items()}
        removed = self._remove_from_hold({n: identities[n] for n in fates["remove"]})
        self._move("-H", released)
        left = {n for n in released if self._identity_in_hold(n)}
        self._note.back([*fates["back"], *(n for n in released if n not in left)])
        over = sum(is_over for name, is_over in released.items() if name not in left)
        waiting = len(fates["wait"]) + len(left)
        return ReleasedCount(len(released) - len(left), over, waiting, len(removed))

    def _fate(
        self, name: str, noted: HoldEntry, standing: LedgerStatus | None
    ) -> tuple[str, bool]:
        """Decide about a held message: 'release', 'wait', 'remove', 'back'.

        The last is for a message that is no longer on hold, or held by others. Also
        returns whether its time is over.
        """
        with self._in_hold(name) as found:
            if found is None:
                return "back", False
            parsed = found.draft.parsed
            if parsed.error:
                return "wait", False
            if found.message.identity != noted.identity:  # reused: before, or after
                return ("back" if noted.held else "release"), False
            over = self._is_over(found.draft)
            if standing is None:
                return "release", over
            if standing.waits:
                return "wait", over
            finished = standing.is_finished and is_done(parsed, standing.final)
            if finished and not self._owes_reports(name):
                return "remove", over
            with directory(self._root, found.place.parts) as descriptor:
                told = mark_done(name, descriptor, parsed, standing.final)
            return ("release" if told else "wait"), over

    def _owes_reports(self, name: str) -> bool:
        """Whether Postfix must still report to its sender; -d would lose that."""
        return any(self._has_log(log, name) for log in ("bounce", "trace"))

    @contextmanager
    def _in_hold(self, name: str) -> Iterator[OpenEntry[PostfixEntry] | None]:
        """Keep the file of that name in hold open; None when there is none.

        Raises MessageUnreadable.
        """
        places = (FilePlace((HOLD, *below), name) for below in hash_directories(name))
        with OpenFiles() as opened:
            found = (self._try(place, opened) for place in places)
            yield next(filter(None, found), None)

    def _identity_in_hold(self, name: str) -> str:
        """Return the identity of the message in hold under that name; '' = none."""
        try:
            with self._in_hold(name) as found:
                return found.message.identity if found else ""
        except MessageUnreadable:
            return _UNREADABLE

    def _sync_hold(self, names: Iterable[str]) -> None:
        """Make moves into and out of hold durable."""
        for parts in {(HOLD, *below) for n in names for below in hash_directories(n)}:
            sync_directory(self._root, parts)


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield BATCH of them at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
