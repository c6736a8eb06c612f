"""``exim:DIR``: the spool of a stopped Exim 4, or a copy of it.

It reads ``input``, flat or split, and on request ``Finput`` (where some builds put
frozen mail) and named queues. It respects Exim's journal. A listed message remembers
its place, not its files. A later read finds it by its identity, also after it moved
between split and flat.

Removal has Exim's order (deliver.c): log, body, header, journal. While there is a
``-H``, the message is recognised by its identity, so that the next scan repeats a
removal that a crash interrupted.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.common.files import OpenFiles, directory, has_name
from drainer.sources.common.hold_outcome import (
    HoldOutcome,
    count_outcomes,
    find_settled,
    match_recorded,
)
from drainer.sources.common.queue_directory import QueueDirectory, Touched
from drainer.sources.common.queue_entry import OpenEntry, raise_damage
from drainer.sources.common.walk import FilePlace, NameKind, QueueEntry
from drainer.sources.exim.layout import (
    FROZEN,
    MAIN,
    header_beside,
    log_parts,
    queue_parts,
    split_directories,
    stem_of,
)
from drainer.sources.exim.locks import exim_runs, hold_lock
from drainer.sources.exim.message import EximEntry, EximFiles, describe
from drainer.sources.exim.open_files import load, read_content
from drainer.sources.exim.settlement import add_to_journal, freeze, pending_paths
from drainer.sources.protocol import (
    LedgerStatus,
    ReleasedCount,
    SettlementLedger,
    SourceFormat,
    SourceOption,
)


class EximSpool(QueueDirectory[EximEntry]):
    """An Exim spool directory as a source."""

    scheme: ClassVar[str] = "exim"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = (MAIN,),
        acknowledge: Literal["keep", "remove"] = "keep",
    ) -> None:
        """Check that this is a spool directory; raises SourceError, UsageError.

        ``queues`` are ``input``, ``Finput`` or the names of named queues;
        ``acknowledge`` is the same for every queue directory.
        """
        self._queues = {queue: queue_parts(queue) for queue in queues}
        self.starts = tuple(self._queues.values())
        if not self._queues:
            message = "exim: no queue to read"
            raise UsageError(message, hint=f"leave queues out to read {MAIN}")
        super().__init__(path, acknowledge=acknowledge)

    def check_layout(self) -> None:
        """Look for the queue itself, and for the named queues."""
        root = Path(self._root)
        if not any((root / each).is_dir() for each in (MAIN, FROZEN)):
            message = f"{root} is not an Exim spool directory"
            hint = f"it should contain the directory {MAIN}"
            if root.name in (MAIN, FROZEN):
                hint = f"name the folder above it: exim:{root.parent}"
            raise SourceError(message, hint=hint)
        for queue, parts in self._queues.items():
            if queue not in (MAIN, FROZEN) and not root.joinpath(*parts).is_dir():
                message = f"{root} has no named queue {queue!r}"
                hint = f"a named queue is a folder that contains {MAIN}"
                raise SourceError(message, hint=hint)

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield frozen mail and named queues, unless the operator named queues."""
        if set(self._queues) not in ({MAIN}, {MAIN, FROZEN}):
            return
        if FROZEN not in self._queues:
            yield FROZEN, f"--queue {FROZEN}", (FROZEN,)
        for path in sorted(Path(self._root).iterdir()):
            name = path.name
            if name not in (MAIN, FROZEN) and (path / MAIN).is_dir():
                yield f"queue {name}", f"--queue {name}", (name, MAIN)
            if (path / FROZEN).is_dir():
                frozen = f"{name}/{FROZEN}"
                yield f"queue {frozen}", f"--queue {frozen}", (name, FROZEN)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running Exim would deliver the same mail."""
        if exim_runs(self._root):
            message = f"an Exim is running on {self._root}: it would send this mail too"
            hint = (
                "stop it first, queue runners included (systemctl stop exim4). Draining"
                " a copy does not help: Exim sends the same mail from its own spool"
            )
            raise UsageError(message, hint=hint)

    def roots(self) -> tuple[Path, ...]:
        """Return the spool, and each named queue, which could be a separate spool."""
        parts = {parts[:-1] for parts in self._queues.values()}
        return tuple(Path(self._root, *each) for each in sorted(parts))

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Descend into the directories of a split queue; take everything else."""
        is_top = place.parts[-1] in (MAIN, FROZEN)
        is_split = is_top and is_directory and len(place.name) == 1
        return NameKind.DIRECTORY if is_split else NameKind.MESSAGE

    def native_id(self, place: FilePlace) -> str:
        """Return the message id."""
        return stem_of(place.name)

    def entries(self) -> Iterator[QueueEntry]:
        """Yield each ``-H``, each ``-D`` without one, and each irregular file."""
        for entry in super().entries():
            parts, name = entry.place
            stem = stem_of(name)
            header = header_beside(name)
            if entry.is_file and stem == name:
                continue  # temporary, or not Exim's
            if header and has_name(header, entry.descriptor):
                continue
            if entry.is_file and header:
                yield entry._replace(place=FilePlace(parts, header))
            else:
                yield entry

    def list_entry(self, entry: QueueEntry) -> SpooledMessage | None:
        """Read one, also a ``-D`` whose ``-H`` does not exist yet or any more."""
        spooled = super().list_entry(entry)
        body = f"{self.native_id(entry.place)}-D"
        if spooled is None and has_name(body, entry.descriptor):
            detail = "it has a -D file and no -H: being received, or left by a crash"
            return self.list_broken(
                entry.place, MessageUnreadable("incomplete", detail)
            )
        return spooled

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> EximEntry:
        """Read the files of a message; their damage becomes its problem."""
        files = load(self.native_id(place), descriptor, opened)
        return describe(files, place, partial(read_content, files))

    def broken(self, place: FilePlace, error: MessageUnreadable) -> EximEntry:
        """Return what is known of a message that cannot be opened."""
        return describe(EximFiles(error=error), place, partial(raise_damage, error))

    def stream(self, message: Message) -> Iterator[bytes]:
        """Yield a message's content, after checking that its files are the same.

        Raises MessageUnreadable('locked') when a server started to work on it after it
        was listed.
        """
        with self._found(message) as found:
            if found.draft.parsed.is_locked and message.problem is None:
                detail = "a process has locked its -D file since"
                raise MessageUnreadable("locked", detail)
            yield from found.draft.chunks()

    def elsewhere(self, first: FilePlace) -> Iterator[FilePlace]:
        """Yield where any queue may have a message of this id, split or flat."""
        queues = {MAIN: (MAIN,), FROZEN: (FROZEN,)} | self._queues
        for above in queues.values():
            for below in split_directories(self.native_id(first)):
                yield FilePlace((*above, *below), first.name)

    def remove(self, found: OpenEntry[EximEntry], touched: Touched) -> bool:
        """Remove the files of a message under its lock; False when Exim has that."""
        parts, name = found.place
        stem = stem_of(name)
        body = FilePlace(parts, f"{stem}-D")
        with hold_lock(self._root, body, found.draft.parsed) as is_ours:
            if not is_ours:
                return False
            is_split = len(parts) > 1 and len(parts[-1]) == 1
            for above in {parts, parts[:-1] if is_split else parts}:
                with suppress(SourceError):  # a log is not mail, and may be elsewhere
                    self.unlink(FilePlace(log_parts(above), stem), touched)
            self.unlink(body, touched)
            is_removed = super().remove(found, touched)
            self.unlink(FilePlace(parts, f"{stem}-J"), touched)
            return is_removed

    # ---- settle the whole spool

    def settle(
        self, note: Path, ledger: SettlementLedger, *, dry_run: bool = False
    ) -> ReleasedCount:
        """Apply what the ledger knows, so that Exim may start on the spool.

        A finished message is removed, and a finished recipient of another one added to
        the journal. A message that drainer has tried and not finished is frozen: the
        next drain continues with it. ``note`` is not needed.
        """
        del note
        self.refuse_if_live()
        outcomes: Counter[HoldOutcome | None] = Counter()
        touched: Touched = set()
        for place, known in find_settled(self, self.entries(), ledger):
            outcomes[self._settle(place, known, touched, dry_run=dry_run)] += 1
        self.sync(touched)
        return count_outcomes(outcomes)

    def _settle(
        self,
        place: FilePlace,
        known: Sequence[LedgerStatus],
        touched: Touched,
        *,
        dry_run: bool,
    ) -> HoldOutcome | None:
        """Settle one message; None if it is left alone."""
        with OpenFiles() as opened:
            try:
                found = self._try(place, opened)
                if found is None:
                    return HoldOutcome.FORGET
                error = found.draft.parsed.error
                status = match_recorded(found, known, error)
            except MessageUnreadable:
                return None
            if status is None:
                return HoldOutcome.FORGET
            pending = pending_paths(found.draft.parsed)
            done = [each for each, path in pending.items() if path in status.final]
            outcome = (
                HoldOutcome.WAIT
                if status.waits or status.is_open
                else HoldOutcome.RELEASE
            )
            if status.is_finished and len(done) == len(pending):
                outcome = HoldOutcome.REMOVE
            if dry_run:
                return outcome
            if outcome is HoldOutcome.REMOVE:
                return outcome if self.remove(found, touched) else None
            return (
                outcome
                if self._mark(found, done, freezes=outcome is HoldOutcome.WAIT)
                else None
            )

    def _mark(
        self, found: OpenEntry[EximEntry], done: Sequence[bytes], *, freezes: bool
    ) -> bool:
        """Tell Exim which recipients are done; False when it has the message."""
        parts, name = found.place
        stem, files = stem_of(name), found.draft.parsed
        body = FilePlace(parts, f"{stem}-D")
        is_frozen = files.header is not None and b"frozen" in files.header.variables
        with hold_lock(self._root, body, files) as is_ours:
            if not is_ours:
                return False
            try:
                with directory(self._root, parts) as folder:
                    if freezes and not is_frozen:
                        freeze(folder, stem, int(time.time()))
                    if done:
                        add_to_journal(folder, stem, done)
            except OSError as error:
                message = f"cannot settle {found.place.locator}: {error.strerror}"
                hint = "run it as root or as the owner of the spool"
                raise SourceError(message, hint=hint) from error
            return True


FORMAT = SourceFormat(
    make=EximSpool,
    marks=(MAIN,),
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "queues": SourceOption("queues", is_list=True),
    },
    listing={"queues": (MAIN, FROZEN)},
)
