"""``haraka:DIR``: the queue directory of a stopped Haraka, or a copy of it.

A message is one file per recipient domain. Its name contains times and attempts and
changes with every attempt, except for its tag. When Haraka has delivered a part, it
writes a new file with the remaining recipients, then removes the old one. A crash in
between leaves both, and they count as two messages, because files that share their
uuid are otherwise those of several domains.

Identity: uuid, time, sender and recipients of the file besides the content.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.message import Problem
from drainer.sources.common.control_files import MAX_CONTROL_BYTES, refuse_countless
from drainer.sources.common.files import OpenFiles, directory, read_at, unusable
from drainer.sources.common.marker import MARKER
from drainer.sources.common.processes import is_running
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.common.queue_entry import (
    IDENTITY_BYTES,
    SourceEntry,
    damaged_entry,
    file_chunks,
    frame,
    time_of,
)
from drainer.sources.common.stored_text import envelope_problem, flags_of
from drainer.sources.common.walk import FilePlace, NameKind
from drainer.sources.haraka.message import (
    LENGTH_BYTES,
    HarakaTodo,
    parse_name,
    parse_todo,
    unstuff,
)
from drainer.sources.protocol import SourceFormat, SourceOption

_TEMPORARY = ("__tmp__.", ".")
_MARKED = "error."
_COMMAND = re.compile("haraka|node")


class HarakaQueue(QueueDirectory[SourceEntry]):
    """A queue directory of Haraka as a source."""

    scheme: ClassVar[str] = "haraka"

    def check_layout(self) -> None:
        """Look for a queue file; an empty directory must have the usual name."""
        root = Path(self._root)
        if root.name == "queue" or any(_is_mark(name) for name in self._names()):
            return
        message = f"{root} is not a Haraka queue directory"
        hint = "it should contain files named TIME_TIME_ATTEMPTS_PID_..."
        if (root / "queue").is_dir():
            hint = f"name the folder in it: haraka:{root}/queue"
        raise SourceError(message, hint=hint)

    def _names(self) -> list[str]:
        try:
            with directory(self._root) as descriptor:
                return os.listdir(descriptor)  # noqa: PTH208 - not by its path
        except OSError as error:
            raise unusable(self._root, error) from error

    def refuse_if_live(self) -> None:
        """Raise UsageError when a Haraka that holds one of the files still runs.

        Their names contain its process number. A copy of the queue of a running Haraka
        is refused too, because that Haraka delivers the same mail.
        """
        names = filter(None, map(parse_name, self._names()))
        for process in sorted({name.process for name in names}):
            if is_running(process, _COMMAND):
                message = f"a Haraka (process {process}) holds files of {self._root}"
                raise UsageError(message, hint="stop it first")

    def judge(self, place: FilePlace, is_directory: bool) -> NameKind:  # noqa: ARG002, FBT001
        """Take everything but our marker for a message: it contains nothing else."""
        return NameKind.OTHER if place.name == MARKER else NameKind.MESSAGE

    def key(self, place: FilePlace) -> str:
        """Return the part that an attempt does not change: arrival and tag."""
        name = parse_name(place.name)
        return f"{name.arrival}_{name.tag}" if name else place.name

    def native_id(self, place: FilePlace) -> str:
        """Return the tag of a file name."""
        name = parse_name(place.name)
        return name.tag if name else place.name

    def load(self, place: FilePlace, descriptor: int, opened: OpenFiles) -> SourceEntry:
        """Read the start of a queue file."""
        if place.name.startswith(_TEMPORARY):
            detail = "Haraka gives a temporary name to such a file"
            raise MessageUnreadable("incomplete", detail)
        file, status = opened.open(place.name, descriptor)
        size = status.st_size
        try:
            start = _start(file, size)
            todo = parse_todo(_json(file, start))
        except MessageUnreadable as error:
            raw = read_at(file, 0, IDENTITY_BYTES)
            name = self.native_id(place)
            return damaged_entry(name, error, raw, status.st_mtime)
        return SourceEntry(
            native_id=todo.uuid or self.native_id(place),
            arrived=time_of(todo.queued),
            envelope=todo.envelope,
            chunks=partial(_content, file, size, start),
            raw_bytes=size - start,
            stable=frame(*todo.stable),
            files=(place,),
            flags=_flags(place, todo),
            problem=_problem(place, todo),
        )


def _is_mark(name: str) -> bool:
    return parse_name(name) is not None or name.startswith((_TEMPORARY[0], _MARKED))


def _start(file: int, size: int) -> int:
    """Return where the content starts; raises MessageUnreadable('corrupt')."""
    if not size:
        raise MessageUnreadable("corrupt", "it is empty")
    length = int.from_bytes(read_at(file, 0, LENGTH_BYTES), "big")
    start = LENGTH_BYTES + length
    if start >= size or length > MAX_CONTROL_BYTES:
        detail = f"{length} bytes of JSON in a file of {size}"
        raise MessageUnreadable("corrupt", detail)
    return start


def _json(file: int, start: int) -> bytes:
    """Read the JSON; raises MessageUnreadable('corrupt') for too many values."""
    data = read_at(file, LENGTH_BYTES, start - LENGTH_BYTES)
    refuse_countless(data.count(b"{") + data.count(b"["))
    return data


def _content(file: int, size: int, start: int) -> Iterator[bytes]:
    return unstuff(file_chunks(file, size, start))


def _flags(place: FilePlace, todo: HarakaTodo) -> tuple[str, ...]:
    name = parse_name(place.name)
    attempted = name is not None and name.attempts > 0
    return flags_of({"attempted": attempted, "force-tls": todo.needs_tls})


def _problem(place: FilePlace, todo: HarakaTodo) -> Problem | None:
    if place.name.startswith(_MARKED):
        return Problem(code="marked-corrupt", detail="Haraka renamed it to error.")
    return envelope_problem(todo.envelope, todo.fault)


FORMAT = SourceFormat(
    make=HarakaQueue,
    marks=(),
    options={"ack": SourceOption("acknowledge", ("keep", "remove"))},
)
