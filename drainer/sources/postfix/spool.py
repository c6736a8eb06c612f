"""``postfix:DIR`` where drainer settles the queue as its own server would.

That is the queue directory of an instance of this host, stopped; and any other queue
directory with ``ack=remove``. While it is drained, drainer holds the lock of its
master, so that Postfix cannot start meanwhile. Before a final dot is sent, the message
moves to hold, durably. So whenever the drain dies and Postfix starts, Postfix sends
nothing that drainer may have delivered. At the end a finished message is removed, final
recipients are marked as done, and a message that drainer tried and did not finish stays
on hold. The next drain continues with it.

``postsuper`` is not used: a directory of another host has no instance here.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.admission.admit import Admission
from drainer.runtime.folders import hand_over, owner_of, refuse_another_owner
from drainer.sources.common.files import (
    batches,
    directory,
    has_name,
    is_directory,
    open_directory,
    source_error,
)
from drainer.sources.common.queue_directory import Touched
from drainer.sources.common.walk import FilePlace
from drainer.sources.postfix.hold import PostfixHold
from drainer.sources.postfix.instance import PostfixInstance, instance_at
from drainer.sources.postfix.layout import (
    DEFAULT_QUEUES,
    HELD,
    QUEUES,
    hash_directories,
)
from drainer.sources.postfix.master import lock_master, running_error
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.protocol import (
    HeldCount,
    ReleasedCount,
    SettlementLedger,
    SourceFormat,
    SourceOption,
    UntakenPart,
)

_RELEASED = "deferred"
"""Where postsuper puts what it releases."""
_USUAL_DEPTHS = {"deferred": 1, "defer": 1}
"""hash_queue_depth as Postfix has it, for a directory without an instance here."""


class PostfixSpool(PostfixHold):
    """The queue directory of a stopped Postfix."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = DEFAULT_QUEUES,
        acknowledge: Literal["keep", "remove"] = "remove",
        instance: PostfixInstance | None = None,
    ) -> None:
        """Read the queue directory, of an instance of this host if one is given."""
        super().__init__(path, queues=queues, acknowledge=acknowledge)
        self.instance = instance
        #: The lock of the master; without one a Postfix runs, or there is no ``pid``.
        self._lock: int | None = None
        self._is_exclusive = False

    def refuse_if_live(self) -> None:
        """Refuse a running Postfix, and a user who cannot keep it from starting."""
        super().refuse_if_live()
        if self.instance is not None and os.geteuid():
            message = f"only root can keep Postfix from starting on {self._root}"
            raise UsageError(message, hint="run drainer as root, on the backup")

    # --- from take to give_back

    def take(self, note: Path, rules: Admission | None) -> Iterator[HeldCount]:
        """Keep Postfix from starting; each message is held before it is sent.

        Without rules a running Postfix is left alone: then only what is on hold counts.
        """
        self._open(note)
        if rules is not None and not self._is_exclusive:
            self._close()
            raise running_error(self._root)
        yield from ()

    def _open(self, note: Path) -> None:
        super()._open(note)
        if self.master_runs():
            return
        try:
            self._lock = lock_master(self._root)
        except BaseException:
            self._close()
            raise
        self._is_exclusive = True

    def _close(self) -> None:
        self._is_exclusive = False
        super()._close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def give_back(
        self, note: Path, ledger: SettlementLedger, *, everything: bool = False
    ) -> ReleasedCount:
        """Settle the queue: also what was tried, and refused before its final dot."""
        if self._note is None and note.exists():
            self._open(note)
        if self._is_exclusive and self.acknowledges:
            for batch in batches(ledger.attempted(self.url)):
                self.begin(batch)
        return super().give_back(note, ledger, everything=everything)

    def settle(
        self, note: Path, ledger: SettlementLedger, *, dry_run: bool = False
    ) -> ReleasedCount:
        """Apply what the ledger knows of a copy, while Postfix does not run."""
        self.refuse_if_live()
        return super().settle(note, ledger, dry_run=dry_run)

    # --- listing

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages of the queues, and those that we hold."""
        yield from super().scan()
        if HELD in self._queues or not self.acknowledges:
            return
        ours = dict(self._ours())
        for entry in self.walk((HELD,)):
            noted = ours.get(entry.place.name)
            spooled = self.list_entry(entry) if noted else None
            if noted and spooled and spooled.message.identity == noted.identity:
                yield spooled

    @property
    def on_hold(self) -> int:
        """How many messages stayed on hold for drainer when it was settled."""
        return len(self._ours())

    def untaken(self) -> list[UntakenPart]:
        """Return parts that the operator left out; what we hold is in none of them."""
        ours = self.on_hold
        parts = [
            part._replace(messages=part.messages - (ours if part.name == HELD else 0))
            for part in super().untaken()
        ]
        return [part for part in parts if part.messages > 0]

    def _candidates(self, first: FilePlace, message: Message) -> Iterator[FilePlace]:
        """Look in hold first for what we hold: a twin is looked for nowhere else."""
        noted = self._ours().get(first.name)
        if noted is not None and noted.identity == message.identity:
            held = self._place_in(HELD, first.name)
            if first != held and self.exists(held):
                yield held
        yield from super()._candidates(first, message)

    def _refuse_unless_ours(self, place: FilePlace) -> None:
        if not self._is_exclusive:
            super()._refuse_unless_ours(place)

    # --- before a final dot is sent

    def begin(self, messages: Sequence[Message]) -> set[str]:
        """Put them on hold, durably; return the ids of those that may be sent.

        What is gone may be sent too, from a copy in quarantine: no server has it.
        """
        if self._note is None or not self.acknowledges:
            return {message.id for message in messages}
        begun, wanted = set(), dict[FilePlace, Message]()
        for message in messages:
            try:
                with self._found(message) as found:
                    place = found.place
            except MessageUnreadable:
                if self._is_from_copy(message):
                    begun.add(message.id)
                continue
            is_ours = place.name in self._ours()
            if place.parts[0] == HELD and (is_ours or self._is_exclusive):
                if not is_ours:
                    self._note.found({place.name: message.identity})
                begun.add(message.id)
            elif self._is_exclusive:
                wanted[place] = message
        held = self._hold({place: each.identity for place, each in wanted.items()})
        return begun | {m.id for place, m in wanted.items() if place.name in held}

    def finish(
        self, messages: Sequence[Message], ledger: SettlementLedger
    ) -> list[str]:
        """Remove finished messages, also those that only a copy was drained of."""
        if not self._is_exclusive:
            return super().finish(messages, ledger)
        self.begin(messages)
        return super().finish(messages, ledger)

    # --- what moves a message

    def _put_on_hold(self, places: Collection[FilePlace]) -> None:
        touched: Touched = set()
        for place in places:
            self._rename(place, self._place_in(HELD, place.name), touched)
        self.sync(touched)

    def _release(self, names: Iterable[str]) -> None:
        touched: Touched = set()
        for name in names:
            target = self._place_in(_RELEASED, name)
            for below in hash_directories(name):
                self._rename(FilePlace((HELD, *below), name), target, touched)
        self.sync(touched)

    def _delete(self, names: Iterable[str]) -> None:
        touched: Touched = set()
        for name in names:
            for queue in ("defer", HELD):  # in this order, so that a rerun repeats it
                for below in hash_directories(name):
                    self.unlink(FilePlace((queue, *below), name), touched)
        self.sync(touched)

    def _place_in(self, queue: str, name: str) -> FilePlace:
        """Return where Postfix looks for a message of a queue."""
        depth = _USUAL_DEPTHS.get(queue, 0)
        if self.instance is not None:
            depth = self.instance.hash_depth(queue)
        below = list(hash_directories(name))
        return FilePlace((queue, *below[min(depth, len(below) - 1)]), name)

    def _rename(self, place: FilePlace, target: FilePlace, touched: Touched) -> None:
        """Move a message; skip it if it is gone. Raises SourceError."""
        if not self.exists(place):
            return
        try:
            self._make_directories(target.parts, place.parts)
            with (
                directory(self._root, place.parts) as here,
                directory(self._root, target.parts) as there,
            ):
                refuse_another_owner(here, there)
                with owner_of(here):
                    if has_name(target.name, there):
                        raise _name_conflict(target)
                    os.rename(
                        place.name, target.name, src_dir_fd=here, dst_dir_fd=there
                    )
        except FileNotFoundError:
            return
        except OSError as error:
            raise _immovable(place, target, error) from error
        touched.update((place.parts, target.parts))

    def _make_directories(self, parts: Sequence[str], like: Sequence[str]) -> None:
        """Make a missing directory of the queue, with the owner of another one."""
        for depth in range(1, len(parts) + 1):
            *above, name = parts[:depth]
            with directory(self._root, above) as descriptor:
                if has_name(name, descriptor):
                    continue
                with owner_of(descriptor):
                    os.mkdir(name, 0o700, dir_fd=descriptor)
                made = open_directory(name, descriptor)
                try:
                    with directory(self._root, like[:1]) as model:
                        hand_over(made, descriptor, model)
                finally:
                    os.close(made)


def _name_conflict(target: FilePlace) -> SourceError:
    message = f"{target.locator} is another message: two have one queue id"
    return SourceError(message, hint="run `postsuper -s`, which gives one a new id")


def _immovable(place: FilePlace, target: FilePlace, error: OSError) -> SourceError:
    message = f"cannot move {place.locator} to {target.locator}: {error.strerror}"
    hint = "run drainer as root or as the owner of the spool, or use ack=keep"
    return source_error(message, error, hint)


def open_queue(
    path: str | os.PathLike[str],
    *,
    queues: Sequence[str] = DEFAULT_QUEUES,
    acknowledge: Literal["", "keep", "remove"] = "",
    copy_of: str = "",
) -> PostfixQueue:
    """Open a queue directory; by default settle it in its place, and keep a copy.

    Raises SourceError, UsageError.
    """
    instance = instance_at(os.fspath(path)) if is_directory(Path(path, "pid")) else None
    mode = acknowledge or ("remove" if instance else "keep")
    if instance is None and mode == "keep":
        return PostfixQueue(path, queues=queues, copy_of=copy_of)
    return PostfixSpool(path, queues=queues, acknowledge=mode, instance=instance)


FORMAT = SourceFormat(
    make=open_queue,
    marks=QUEUES,
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "queues": SourceOption("queues", QUEUES, is_list=True),
        "copy_of": SourceOption("copy_of"),
    },
    listing={"queues": (*DEFAULT_QUEUES, HELD)},
)
