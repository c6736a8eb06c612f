"""The layout of Exim's spool directory.

A queue is flat, or split by the sixth character of the message id; Exim itself looks in
both. ``ID-H`` makes a message, ``ID-D`` has its body, ``ID-J`` what was done since.
``hdr.ID``, ``ID-K`` and ``*.eml`` are temporary.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from drainer.errors import MessageUnreadable, UsageError
from drainer.sources.common.files import open_directory

MAIN, FROZEN = "input", "Finput"
"""The queue itself; where builds with move_frozen_messages put frozen mail."""

_SUFFIX_LENGTH = len("-H")
_SPLIT_AT = 5
_LOGS = {MAIN: "msglog", FROZEN: "Fmsglog"}


class EximEntry(NamedTuple):
    """A name in a queue; its directory stays open until the next one."""

    parts: tuple[str, ...]
    name: str
    descriptor: int
    is_file: bool
    #: Set if this is a directory of a split queue that cannot be read.
    error: MessageUnreadable | None = None

    @property
    def stem(self) -> str:
        """The message id, if this is a ``-H`` or ``-D``; else the name."""
        return self.name[:-_SUFFIX_LENGTH] if self._has_suffix else self.name

    @property
    def _has_suffix(self) -> bool:
        return self.name.endswith(("-H", "-D")) and len(self.name) > _SUFFIX_LENGTH


def queue_parts(queue: str) -> tuple[str, ...]:
    """Return the directories of a queue; UsageError for an invalid name."""
    if queue in (MAIN, FROZEN):
        return (queue,)
    if not queue or "/" in queue or "\0" in queue or queue in (".", ".."):
        message = f"not a queue of Exim: {queue!r}"
        hint = f"name {MAIN}, {FROZEN}, or a named queue (a folder of the spool)"
        raise UsageError(message, hint=hint)
    return (queue, MAIN)


def split_directories(stem: str) -> tuple[tuple[str, ...], ...]:
    """Return the directories below a queue that may contain a message."""
    letter = stem[_SPLIT_AT : _SPLIT_AT + 1]
    return ((), (letter,)) if letter and letter not in "./" else ((),)


def log_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directory of the message log next to a message's directory."""
    return tuple(_LOGS.get(part, part) for part in parts)


def walk(
    descriptor: int, parts: tuple[str, ...], *, is_top: bool = True
) -> Iterator[EximEntry]:
    """Yield the names below an open directory that may be messages, as it is read.

    These are each ``-H``, each ``-D`` without one, and anything that is not a regular
    file. Other files are temporary, or not Exim's.
    """
    with os.scandir(descriptor) as entries:
        for each in entries:
            name = each.name
            if is_top and len(name) == 1 and each.is_dir(follow_symlinks=False):
                yield from _walk_below(descriptor, parts, name)
                continue
            entry = EximEntry(
                parts, name, descriptor, each.is_file(follow_symlinks=False)
            )
            if name == entry.stem and entry.is_file:
                continue
            if _belongs_to_another(name, descriptor):
                continue
            yield entry


def _belongs_to_another(name: str, descriptor: int) -> bool:
    """Return whether a ``-D``, ``-J`` or ``-K`` has its ``-H`` next to it."""
    if not name.endswith(("-D", "-J", "-K")):
        return False
    return exists(f"{name[:-_SUFFIX_LENGTH]}-H", descriptor)


def exists(name: str, descriptor: int) -> bool:
    """Return whether a name exists in a directory, whatever it is."""
    try:
        os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return False
    return True


def _walk_below(above: int, parts: tuple[str, ...], name: str) -> Iterator[EximEntry]:
    try:
        descriptor = open_directory(name, above)
    except FileNotFoundError:
        return
    except OSError as error:
        code, detail = "unreadable", f"a directory of the queue: {error.strerror}"
        reason = MessageUnreadable(code, detail)
        yield EximEntry(parts, name, above, is_file=False, error=reason)
        return
    try:
        yield from walk(descriptor, (*parts, name), is_top=False)
    finally:
        os.close(descriptor)
