"""Remove a message from Exim's spool, as Exim does, and under its lock.

The order is Exim's (deliver.c): log, body, header, journal. While there is a ``-H``,
the message is recognised by its identity, so that the next scan repeats a removal that
a crash interrupted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from drainer.errors import SourceError
from drainer.runtime.folders import open_in, owner_of
from drainer.sources.common.files import directory
from drainer.sources.exim.layout import log_parts
from drainer.sources.exim.locks import lock
from drainer.sources.exim.message import EximPlace
from drainer.sources.exim.open_files import EximOpenFiles

_READ_WRITE = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY
"""A lock for writing needs a file that is open for writing."""


def remove(
    root: str, place: EximPlace, found: EximOpenFiles, touched: set[tuple[str, ...]]
) -> bool:
    """Remove the files of a message; False when a server has locked it.

    Adds the changed directories to ``touched``. Raises SourceError when the spool does
    not allow removal.
    """
    with _lock_of(root, place, found) as is_ours:
        if is_ours:
            for parts in {log_parts(place.parts), log_parts(_queue(place))}:
                with suppress(SourceError):  # a log is not mail, and may be elsewhere
                    _unlink(root, parts, place.stem, touched)
            for suffix in ("-D", "-H", "-J"):
                _unlink(root, place.parts, place.stem + suffix, touched)
        return is_ours


def _queue(place: EximPlace) -> tuple[str, ...]:
    """Return the directories of the queue, without that of a split one."""
    is_split = len(place.parts) > 1 and len(place.parts[-1]) == 1
    return place.parts[:-1] if is_split else place.parts


@contextmanager
def _lock_of(root: str, place: EximPlace, found: EximOpenFiles) -> Iterator[bool]:
    """Hold Exim's lock on a message; yield whether we have it.

    Without a ``-D`` there is nothing to lock, and Exim cannot work on it either.
    """
    if found.descriptor is None:
        error = found.files.error
        yield error is not None and error.code == "vanished"
        return
    name = f"{place.stem}-D"
    try:
        with _explaining(place.parts, name), directory(root, place.parts) as above:
            descriptor = open_in(above, name, _READ_WRITE)
    except FileNotFoundError:
        yield False
        return
    try:
        is_same = os.path.sameopenfile(descriptor, found.descriptor)
        with _explaining(place.parts, name):
            has_lock = is_same and lock(descriptor, found.start or 1)
        yield has_lock
    finally:
        os.close(descriptor)


def _unlink(
    root: str, parts: tuple[str, ...], name: str, touched: set[tuple[str, ...]]
) -> None:
    try:
        with (
            _explaining(parts, name),
            directory(root, parts) as descriptor,
            owner_of(descriptor),
        ):
            os.unlink(name, dir_fd=descriptor)
    except FileNotFoundError:
        return
    touched.add(parts)


@contextmanager
def _explaining(parts: tuple[str, ...], name: str) -> Iterator[None]:
    """Turn an error that forbids a removal into one for the operator."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"cannot remove {'/'.join((*parts, name))}: {error.strerror}"
        hint = 'use ack = "keep", or run as root or as the owner of the spool'
        raise SourceError(message, hint=hint) from error
