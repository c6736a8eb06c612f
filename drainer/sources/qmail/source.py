"""``qmail:DIR``: the queue of a stopped qmail, or a copy of it.

A message is a number, with a file in each of several directories: ``mess`` (the
content), and either ``todo`` (the envelope as received) or ``info``, ``local`` and
``remote`` (the envelope split by qmail-send). While ``todo`` exists, drainer ignores
the others, because qmail-send creates them again. The number is the inode of the
content, which a copy does not keep, so drainer takes it only as a name. A content
without an envelope was never accepted, or a crash left it; qmail-clean removes it after
36 hours.

Identity: the sender besides the content, whose first line contains the process and the
time of qmail-queue.
"""

import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import Problem
from drainer.sources.common.control_files import read_capped
from drainer.sources.common.files import OpenFiles, directory, read_at
from drainer.sources.common.processes import is_locked, runs_in
from drainer.sources.common.queue_directory import EntryGone, QueueDirectory
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    SourceEntry,
    crlf_chunks,
    damaged_entry,
    frame,
    time_of,
)
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.protocol import SourceFormat, SourceOption
from drainer.sources.qmail.message import QmailRecords, explain, read

_CONTENT, _TODO, _BOUNCE = "mess", "todo", "bounce"
_SPLIT = ("local", "remote", "info")
_COMMAND = re.compile("qmail-send")


class QmailQueue(QueueDirectory[SourceEntry]):
    """A queue directory of qmail as a source."""

    scheme: ClassVar[str] = "qmail"
    starts = ((_CONTENT,),)

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        strip_prefix: str = "",
        acknowledge: Literal["keep", "remove"] = "keep",
    ) -> None:
        """Check that this is a queue; raises SourceError.

        ``strip_prefix`` is what a virtual domain puts before local parts, without its
        dash; ``acknowledge`` is the same for every queue directory.
        """
        self._prefix = strip_prefix
        super().__init__(path, acknowledge=acknowledge)

    def check_layout(self) -> None:
        """Look for the directory of contents."""
        root = Path(self._root)
        if (root / _CONTENT).is_dir():
            return
        message = f"{root} is not a qmail queue"
        hint = f"it should contain the directories {_CONTENT}, info and remote"
        if (root / "queue" / _CONTENT).is_dir():
            hint = f"name the folder in it: qmail:{root}/queue"
        raise SourceError(message, hint=hint)

    def refuse_if_live(self) -> None:
        """Raise UsageError when a qmail-send holds the lock of this queue."""
        held = bool(runs_in(self._root, _COMMAND))
        with suppress(OSError), directory(self._root, ("lock",)) as lock:
            held = held or is_locked("sendmutex", lock)
        if held:
            message = f"a qmail-send is running on {self._root}"
            hint = (
                "stop it first. Draining a copy does not help: qmail-send sends the"
                " same mail from its own queue"
            )
            raise UsageError(message, hint=hint)

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Take every file below ``mess`` for a content."""
        is_hash = is_directory and len(place.parts) == 1
        return NameKind.DIRECTORY if is_hash else NameKind.MESSAGE

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Open a content and read its envelope from the other directories."""
        content, status = opened.open(place.name, descriptor)
        size = status.st_size
        try:
            records, files = self._records(place, opened)
        except EntryGone:
            raise
        except MessageUnreadable as error:
            raw = read_at(content, 0, IDENTITY_BYTES)
            return damaged_entry(place.name, error, raw, status.st_mtime)
        envelope, problem = explain(records, self._prefix)
        if not size:
            problem = Problem(code="corrupt", detail="its content is empty")
        has_report = self.exists(FilePlace((_BOUNCE,), place.name))
        return SourceEntry(
            native_id=place.name,
            arrived=time_of(status.st_mtime),
            envelope=envelope,
            chunks=partial(crlf_chunks, content, size),
            raw_bytes=size,
            stable=frame(records.sender or b""),
            files=() if has_report else (*files, place),  # removal loses the report
            flags=("undelivered-report",) if has_report else (),
            problem=problem,
        )

    def _records(
        self, place: FilePlace, opened: OpenFiles
    ) -> tuple[QmailRecords, tuple[FilePlace, ...]]:
        """Read the envelope; return its files too, in the order of their removal.

        Raises EntryGone, which is 'incomplete', without a file; MessageUnreadable.
        """
        records = QmailRecords()
        found = self._read(_TODO, place, opened)
        if found is not None:
            data, todo = found
            read(_TODO, data, records)
            return records, (todo, FilePlace(("intd", *todo.parts[1:]), place.name))
        files: list[FilePlace] = []
        for kind in _SPLIT:
            found = self._read(kind, place, opened)
            if found is not None:
                read(kind, found[0], records)
                files.append(found[1])
        if not files or files[-1].parts[0] != "info":
            raise EntryGone("incomplete", "a content without an envelope")
        if len(files) == 1 and not Path(self._root, "remote").is_dir():
            raise MessageUnreadable("unreadable", "the queue has no directory remote")
        return records, tuple(files)

    def _read(
        self, kind: str, place: FilePlace, opened: OpenFiles
    ) -> tuple[bytes, FilePlace] | None:
        """Read a file of the same number; None when there is none.

        Patched servers hash ``todo`` too, and a small queue may be flat.
        """
        for parts in dict.fromkeys(((kind, *place.parts[1:]), (kind,))):
            try:
                with directory(self._root, parts) as descriptor:
                    file, status = opened.open(place.name, descriptor)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                self._refuse_link(parts)  # else it is a message of a flat queue
                continue
            except OSError as error:
                raise MessageUnreadable(
                    "unreadable", f"{kind}: {error.strerror}"
                ) from error
            return read_capped(file, status.st_size), FilePlace(parts, place.name)
        return None

    def _refuse_link(self, parts: tuple[str, ...]) -> None:
        """Raise MessageUnreadable('unreadable') for a link that is not followed.

        A file that is not read there must not count as done.
        """
        for depth in range(1, len(parts) + 1):
            if Path(self._root, *parts[:depth]).is_symlink():
                detail = f"{'/'.join(parts[:depth])} is a link"
                raise MessageUnreadable("unreadable", detail)


FORMAT = SourceFormat(
    make=QmailQueue,
    marks=(_CONTENT,),
    options={
        "ack": SourceOption("acknowledge", ("keep", "remove")),
        "strip_prefix": SourceOption("strip_prefix"),
    },
)
