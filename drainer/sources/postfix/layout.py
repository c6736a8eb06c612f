"""The layout of a Postfix queue directory (mail_queue.c, dir_forest.c).

A queue is flat or hashed: one directory per leading character of the queue id, or, for
long ids, of the five hexadecimal digits of its microseconds.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from drainer.errors import MessageUnreadable
from drainer.sources.common.files import open_directory

DEFAULT_QUEUES = ("incoming", "active", "deferred")
UNCLEANED = "maildrop"
"""The queue of local submissions that Postfix has not processed: not yet mail."""
QUEUES = (*DEFAULT_QUEUES, "hold", "corrupt", UNCLEANED)

_MAX_DEPTH = 32
_HASH_DEPTHS = 4
_LONG_ID_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_LONG_ID_SECONDS, _LONG_ID_MICROSECONDS = 6, 4


class PostfixEntry(NamedTuple):
    """A name in a queue; its directory stays open until the next one."""

    parts: tuple[str, ...]
    name: str
    descriptor: int
    is_file: bool
    #: Set if this is a hash directory that cannot be read.
    error: MessageUnreadable | None = None


def walk(descriptor: int, parts: tuple[str, ...]) -> Iterator[PostfixEntry]:
    """Yield the names below an open directory that may be queue files, as it is read.

    Descends only into one-character directories. Skips what Postfix itself skips: names
    with a dot (temporary files) and the ``#FIX`` names of postsuper.
    """
    with os.scandir(descriptor) as entries:
        for entry in entries:
            name = entry.name
            if "." in name or name.endswith("#FIX"):
                continue
            if len(name) == 1 and entry.is_dir(follow_symlinks=False):
                yield from _walk_below(descriptor, parts, name)
            else:
                is_file = entry.is_file(follow_symlinks=False)
                yield PostfixEntry(parts, name, descriptor, is_file)


def _walk_below(
    above: int, parts: tuple[str, ...], name: str
) -> Iterator[PostfixEntry]:
    try:
        descriptor = open_directory(name, above)
    except FileNotFoundError:
        return
    except OSError as error:
        yield _unreadable(parts, name, above, str(error.strerror))
        return
    if len(parts) > _MAX_DEPTH:
        os.close(descriptor)
        yield _unreadable(parts, name, above, "nested too deeply")
        return
    try:
        yield from walk(descriptor, (*parts, name))
    finally:
        os.close(descriptor)


def _unreadable(
    parts: tuple[str, ...], name: str, above: int, reason: str
) -> PostfixEntry:
    code, detail = "unreadable", f"a directory of the queue: {reason}"
    error = MessageUnreadable(code, detail)
    return PostfixEntry(parts, name, above, is_file=False, error=error)


def hash_directories(queue_id: str) -> Iterator[tuple[str, ...]]:
    """Yield the directories that may contain a file of that id, flat first."""
    stem = _hash_string(queue_id).ljust(_HASH_DEPTHS, "_")
    for depth in range(_HASH_DEPTHS + 1):
        yield tuple(stem[:depth])


def _hash_string(queue_id: str) -> str:
    """Return the characters that name the directories of an id."""
    mark = queue_id.rfind("z")
    if mark < _LONG_ID_SECONDS + _LONG_ID_MICROSECONDS:
        return queue_id
    microseconds = 0
    for digit in queue_id[mark - _LONG_ID_MICROSECONDS : mark]:
        microseconds = microseconds * len(_LONG_ID_DIGITS) + _LONG_ID_DIGITS.find(digit)
    return f"{max(microseconds, 0):05X}"
