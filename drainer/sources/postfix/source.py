"""``postfix:DIR``: a copy of a Postfix queue; what all its readers share.

It reads incoming, active, deferred and, on request, hold, corrupt and maildrop. The
folder may contain any of these, hashed or not. A listed message remembers its place,
not its file: queue ids are reused and files are renamed. A later read finds a message
by its identity.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import SpooledMessage
from drainer.sources.common.files import (
    SMALL_FILE_BYTES,
    OpenFiles,
    ReadAt,
    canonical,
    read_at,
)
from drainer.sources.common.queue_directory import QueueDirectory, Touched
from drainer.sources.common.queue_entry import IDENTITY_BYTES, OpenEntry
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.postfix.layout import (
    DEFAULT_QUEUES,
    HELD,
    QUEUES,
    UNCLEANED,
    hash_directories,
)
from drainer.sources.postfix.master import master_runs, running_error
from drainer.sources.postfix.message import (
    PostfixEntry,
    QueueFile,
    describe,
    parse_large,
    parse_whole,
)


class PostfixQueue(QueueDirectory[PostfixEntry]):
    """A Postfix queue directory as a source."""

    scheme: ClassVar[str] = "postfix"
    #: False while a scan knows that no report to a sender is pending.
    _may_owe_reports = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        queues: Sequence[str] = DEFAULT_QUEUES,
        acknowledge: Literal["keep", "remove"] = "keep",
        copy_of: str = "",
    ) -> None:
        """Check that this is a queue directory; raises SourceError, UsageError.

        ``acknowledge`` is the same for every queue directory. ``copy_of`` is the queue
        directory that it is a copy of, if the operator names it.
        """
        self.copy_of = copy_of and canonical(copy_of.removeprefix("postfix:"))
        self._queues = tuple(dict.fromkeys(queues))
        self.starts = tuple((queue,) for queue in self._queues)
        unknown = [queue for queue in self._queues if queue not in QUEUES]
        if unknown or not self._queues:
            message = f"not a Postfix queue: {', '.join(unknown) or 'none given'}"
            raise UsageError(message, hint=f"legal: {', '.join(QUEUES)}")
        super().__init__(path, acknowledge=acknowledge)

    def check_layout(self) -> None:
        """Look for one of the queues."""
        root = Path(self._root)
        if any((root / queue).is_dir() for queue in QUEUES):
            return
        message = f"{root} is not a Postfix queue directory"
        hint = f"it should contain one or more of {', '.join(QUEUES)}"
        if root.name in QUEUES:
            hint = f"name the folder above it: postfix:{root.parent}"
        raise SourceError(message, hint=hint)

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the other queues, unless the operator named queues."""
        if set(self._queues) in ({*DEFAULT_QUEUES}, {*DEFAULT_QUEUES, HELD}):
            for queue in QUEUES:
                if queue not in self._queues:
                    yield queue, f"--queue {queue}", (queue,)

    def master_runs(self) -> bool:
        """Return whether a Postfix works in this directory."""
        return master_runs(self._root)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a running Postfix would deliver the same mail."""
        if self.master_runs():
            raise running_error(self._root)

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Skip what Postfix itself skips; descend into one-character directories.

        It skips names with a dot (temporary files) and postsuper's ``#FIX`` names.
        """
        name = place.name
        if "." in name or name.endswith("#FIX"):
            return NameKind.OTHER
        is_hash = is_directory and len(name) == 1
        return NameKind.DIRECTORY if is_hash else NameKind.MESSAGE

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages queue by queue, in directory order, as they are read."""
        with self._look_for_reports():
            yield from super().scan()

    @contextmanager
    def _look_for_reports(self) -> Iterator[None]:
        """Look once whether there is any bounce log, not again for each message."""
        self._may_owe_reports = False
        with suppress(SourceError):
            self._may_owe_reports = any(True for _ in self.walk(("bounce",)))
        try:
            yield
        finally:
            self._may_owe_reports = True

    def load(
        self, place: FilePlace, descriptor: int, opened: OpenFiles
    ) -> PostfixEntry:
        """Read a queue file; its damage becomes the problem of the message."""
        file, status = opened.open(place.name, descriptor)
        size, read = status.st_size, partial(read_at, file)
        if place.parts[0] != UNCLEANED:
            parsed = _parse(read, size, cleaned=True)
        elif status.st_uid == os.fstat(descriptor).st_uid:
            parsed = _parse_requeued(read, size)
        else:
            parsed = _parse(read, size, cleaned=False)
        if parsed.error is not None and parsed.error.code == "corrupt":
            parsed.raw = read(0, IDENTITY_BYTES)
        parsed.mode, parsed.modified = status.st_mode, status.st_mtime
        parsed.inode = (status.st_dev, status.st_ino)
        return self._describe(parsed, place)

    def broken(self, place: FilePlace, error: MessageUnreadable) -> PostfixEntry:
        """Return what is known of a message that cannot be opened."""
        return self._describe(QueueFile(error=error), place)

    def _describe(self, parsed: QueueFile, place: FilePlace) -> PostfixEntry:
        owes = self._may_owe_reports and self._has_log("bounce", place.name)
        return describe(parsed, place, bounce_log=owes)

    def elsewhere(self, first: FilePlace) -> Iterator[FilePlace]:
        """Yield where any queue may have a file of this queue id."""
        for queue in QUEUES:
            for below in hash_directories(first.name):
                yield FilePlace((queue, *below), first.name)

    def remove(self, found: OpenEntry[PostfixEntry], touched: Touched) -> bool:
        """Remove the logs in defer and trace, then the queue file.

        In this order, so that a rerun repeats it. A message with a pending bounce log
        stays: postsuper would delete the log too, and the sender would never get the
        report.
        """
        name = found.place.name
        if self._has_log("bounce", name):
            return False
        for log in ("defer", "trace"):
            for place in _log_places(log, name):
                self.unlink(place, touched)
        return super().remove(found, touched)

    def _has_log(self, log: str, name: str) -> bool:
        return any(map(self.exists, _log_places(log, name)))


def _parse(read: ReadAt, size: int, *, cleaned: bool) -> QueueFile:
    if size <= SMALL_FILE_BYTES:
        return parse_whole(read(0, size), cleaned=cleaned)
    return parse_large(read, size, cleaned=cleaned)


def _parse_requeued(read: ReadAt, size: int) -> QueueFile:
    """Read a file in maildrop that belongs to Postfix, and not to a submitting user.

    ``postsuper -r`` moves complete queue files there. Such a file has its size record.
    """
    parsed = _parse(read, size, cleaned=True)
    if parsed.error is not None:
        return _parse(read, size, cleaned=False)
    parsed.requeued = True
    return parsed


def _log_places(log: str, name: str) -> Iterator[FilePlace]:
    return (FilePlace((log, *below), name) for below in hash_directories(name))
