"""``opensmtpd:DIR``: the spool of a stopped smtpd, or a copy of it.

``queue/XX/ID/message`` is a content. Each file next to it is the envelope of one
recipient, which smtpd removes when that one is done. So each envelope is a separate
message here. drainer lists ``corrupt``. It does not read ``incoming`` (not accepted
yet) and ``purge`` (done), and only counts ``offline`` (submissions of this host).

Identity: sender, recipient and time of the envelope, besides the content.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

from drainer.errors import MessageUnreadable, SourceError
from drainer.mail.message import Problem
from drainer.runtime.folders import owner_of
from drainer.sources.common.control_files import read_capped
from drainer.sources.common.files import OpenFiles, directory, read_at
from drainer.sources.common.processes import refuse_running
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    SourceEntry,
    crlf_chunks,
    damaged_entry,
    frame,
    raise_damage,
    time_of,
)
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.opensmtpd.envelope import EnvelopeFile, find_packing, parse
from drainer.sources.protocol import SourceFormat, SourceOption

_QUEUE, _CORRUPT, _OFFLINE = "queue", "corrupt", "offline"
_CONTENT = "message"
_DEPTH = 3


class OpensmtpdQueue(QueueDirectory[SourceEntry]):
    """A spool directory of OpenSMTPD as a source."""

    scheme: ClassVar[str] = "opensmtpd"
    starts = ((_QUEUE,), (_CORRUPT,))

    def check_layout(self) -> None:
        """Look for the directory ``queue``."""
        root = Path(self._root)
        if (root / _QUEUE).is_dir():
            return
        message = f"{root} is not the spool of an OpenSMTPD"
        hint = f"it should contain the directory {_QUEUE}"
        if root.name == _QUEUE:
            hint = f"name the folder above it: opensmtpd:{root.parent}"
        raise SourceError(message, hint=hint)

    def other_parts(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield the submissions that only smtpd itself can take."""
        yield _OFFLINE, "smtpd: it does so when it starts", (_OFFLINE,)

    def refuse_if_live(self) -> None:
        """Raise UsageError when an smtpd works here: its queue is its root."""
        refuse_running(self._root, "smtpd", "spool")

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: FBT001
        """Take every file but the content for an envelope."""
        if is_directory and (len(place.parts) < _DEPTH or place.parts[0] == _CORRUPT):
            return NameKind.DIRECTORY
        return NameKind.OTHER if place.name == _CONTENT else NameKind.MESSAGE

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read an envelope and open the content next to it."""
        file, status = opened.open(place.name, descriptor)
        try:
            found = parse(read_capped(file, status.st_size))
        except MessageUnreadable as error:
            raw = read_at(file, 0, IDENTITY_BYTES)
            return damaged_entry(place.name, error, raw, status.st_mtime)
        size = 0
        try:
            content, size = _open_content(descriptor, opened)
            chunks = partial(crlf_chunks, content, size)
        except MessageUnreadable as error:
            chunks = partial(raise_damage, error)
        return SourceEntry(
            native_id=place.name,
            arrived=time_of(found.created),
            envelope=found.envelope,
            chunks=chunks,
            raw_bytes=size,
            stable=frame(*found.stable),
            files=(place,),
            client=found.client,
            login=found.login,
            problem=_problem(place, found),
        )

    def clean_up(self, draft: SourceEntry) -> None:
        """Remove the content after the last recipient, and its directory."""
        *above, name = draft.files[0].parts
        with suppress(OSError), directory(self._root, draft.files[0].parts) as here:
            os.fsync(here)
            if os.listdir(here) != [_CONTENT]:  # noqa: PTH208 - not by its path
                return
            with owner_of(here):
                os.unlink(_CONTENT, dir_fd=here)
        with suppress(OSError), directory(self._root, above) as descriptor:
            with owner_of(descriptor):
                os.rmdir(name, dir_fd=descriptor)
            os.fsync(descriptor)


def _open_content(descriptor: int, opened: OpenFiles) -> tuple[int, int]:
    """Open the content: (descriptor, bytes); raises MessageUnreadable."""
    try:
        content, status = opened.open(_CONTENT, descriptor)
    except FileNotFoundError as error:
        raise MessageUnreadable("corrupt", "its content is missing") from error
    if not status.st_size:
        raise MessageUnreadable("corrupt", "its content is empty")
    packed = find_packing(read_at(content, 0, 2))
    if packed:
        raise MessageUnreadable("compressed", packed)
    return content, status.st_size


def _problem(place: FilePlace, found: EnvelopeFile) -> Problem | None:
    if place.parts[0] == _CORRUPT:
        return Problem(code="marked-corrupt", detail="smtpd moved it to corrupt")
    return found.problem


FORMAT = SourceFormat(
    make=OpensmtpdQueue,
    marks=("purge",),
    options={"ack": SourceOption("acknowledge", ("keep", "remove"))},
)
