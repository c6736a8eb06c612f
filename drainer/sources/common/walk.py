"""Walk a server's queue: names, places, and which of them are messages.

A directory stays open while its names are examined. drainer follows no links, and
lists an unreadable directory like a damaged message.
"""

import enum
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import (
    directory,
    escape_name,
    open_directory,
    unescape_name,
)

MAX_DEPTH = 32
"""Directories below the root of a queue: more than the characters of a queue id, which
a hashed Postfix queue may have."""


class FilePlace(NamedTuple):
    """The place of a file: the directories from the root down, and its name."""

    parts: tuple[str, ...]
    name: str

    @property
    def locator(self) -> str:
        """The path below the root, printable and reversible."""
        return escape_name("/".join((*self.parts, self.name)))

    @property
    def queue(self) -> str:
        """The directory below the root, printable; ``.`` for the root itself."""
        return escape_name("/".join(self.parts)) or "."

    @property
    def is_safe(self) -> bool:
        """Return whether no part of it leads out of the spool."""
        return not {"", ".", ".."} & {*self.parts, self.name}


def place_of(locator: str) -> FilePlace:
    """Return the place of a locator."""
    *parts, name = unescape_name(locator).split("/")
    return FilePlace(tuple(parts), name)


class NameKind(enum.Enum):
    """The meaning of a name in a queue."""

    MESSAGE = enum.auto()
    DIRECTORY = enum.auto()
    OTHER = enum.auto()


class QueueEntry(NamedTuple):
    """A message file by its name, with its directory open until the next one."""

    place: FilePlace
    descriptor: int
    is_file: bool
    #: Set if this is a directory of the queue that cannot be read.
    error: MessageUnreadable | None = None


Judge = Callable[[FilePlace, bool], NameKind]
"""Returns the kind of a place; the flag says whether it is a directory."""


def walk(root: str, start: tuple[str, ...], judge: Judge) -> Iterator[QueueEntry]:
    """Yield what ``judge`` says is a message, while the directories are read.

    Raises OSError when the first directory cannot be opened.
    """
    with directory(root, start) as descriptor:
        yield from _walk(descriptor, start, judge)


def _walk(
    descriptor: int, parts: tuple[str, ...], judge: Judge
) -> Iterator[QueueEntry]:
    with os.scandir(descriptor) as entries:
        for entry in entries:
            place = FilePlace(parts, entry.name)
            kind = judge(place, entry.is_dir(follow_symlinks=False))
            if kind is NameKind.DIRECTORY:
                yield from _walk_below(descriptor, place, judge)
            elif kind is NameKind.MESSAGE:
                is_file = entry.is_file(follow_symlinks=False)
                yield QueueEntry(place, descriptor, is_file)


def _walk_below(above: int, place: FilePlace, judge: Judge) -> Iterator[QueueEntry]:
    if len(place.parts) >= MAX_DEPTH:
        error = MessageUnreadable("unreadable", "nested too deeply")
        yield QueueEntry(place, above, is_file=False, error=error)
        return
    try:
        descriptor = open_directory(place.name, above)
    except FileNotFoundError:
        return
    except OSError as failure:
        detail = f"a directory of the queue: {failure.strerror}"
        error = MessageUnreadable("unreadable", detail)
        yield QueueEntry(place, above, is_file=False, error=error)
        return
    try:
        yield from _walk(descriptor, (*place.parts, place.name), judge)
    finally:
        os.close(descriptor)
