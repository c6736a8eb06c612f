"""The file of an mbox: opened safely, measured while no program writes to it.

A program that delivers to an mbox or rewrites it holds fcntl, flock or ``FILE.lock``,
depending on how it was built. drainer checks all three until it knows the size, and
writes nothing: ``FILE.lock`` is absent if two checks of the file find it unchanged.
Mail that is appended later is beyond that size. A later rewrite is noticed, because
drainer compares the end of the file. So it holds no lock while it reads mail, and
leaves none behind.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from drainer.errors import MessageUnreadable, SourceError
from drainer.runtime.folders import real_path
from drainer.runtime.locks import try_lock
from drainer.sources.common.files import open_at, read_at, unusable

LOCK_SECONDS = 10.0
"""Seconds that another program may work on the file before drainer gives up."""

_PAUSE_SECONDS = 0.1
_TAIL_BYTES = 4096


@dataclass(slots=True)
class MboxSnapshot:
    """An open file as it was at one moment; its opener closes it."""

    path: str
    descriptor: int
    status: os.stat_result
    _tail: bytes = b""

    @property
    def size(self) -> int:
        """How many bytes are read; what is appended later is not."""
        return self.status.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes, fewer only at the end; raises MessageUnreadable."""
        return read_at(self.descriptor, offset, length)

    def remember(self) -> None:
        """Keep the end, to distinguish an appended file from a rewritten one later."""
        self._tail = self._read_tail()

    def is_same(self) -> bool:
        """Return whether these bytes are unchanged, though others may follow them."""
        status = os.fstat(self.descriptor)
        return signature(status) == signature(self.status) or (
            status.st_size >= self.size and self._read_tail() == self._tail
        )

    def _read_tail(self) -> bytes:
        length = min(self.size, _TAIL_BYTES)
        return self.read(self.size - length, length)


def signature(status: os.stat_result) -> tuple[int, ...]:
    """Return values that change whenever a file is written to or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def open_mbox(path: str) -> Iterator[MboxSnapshot]:
    """Keep the file open, as it was while no program worked on it.

    Raises SourceError when it is not a readable file, or when a program keeps it
    locked.
    """
    descriptor = _open(path)
    try:
        snapshot = MboxSnapshot(path, descriptor, _wait_until_free(path, descriptor))
        snapshot.remember()
        yield snapshot
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    try:
        return open_at(Path(path))
    except OSError as error:
        raise unusable(path, error) from error
    except MessageUnreadable as error:
        message = f"cannot read {path}: {error.detail}"
        hint = "an mbox is one regular file; run drainer as root or as its owner"
        raise SourceError(message, hint=hint) from error


def _wait_until_free(path: str, descriptor: int) -> os.stat_result:
    """Return the file's status at a moment when no program held a lock."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        status = _status_if_free(path, descriptor)
        if status is not None:
            return status
        if time.monotonic() >= end:
            message = f"another program keeps {path} locked"
            hint = (
                "wait until it is done; if no program works on it, remove a left-over"
                f" {path}.lock"
            )
            raise SourceError(message, hint=hint)
        time.sleep(_PAUSE_SECONDS)


def _status_if_free(path: str, descriptor: int) -> os.stat_result | None:
    before = os.fstat(descriptor)
    calls = (fcntl.lockf, fcntl.flock)
    try:
        with suppress(OSError):  # a file system without locks: only the dotlock counts
            if not all(try_lock(descriptor, shared=True, call=each) for each in calls):
                return None
        has_dotlock = os.path.lexists(f"{path}.lock")
        after = os.fstat(descriptor)
    finally:
        for call in calls:
            with suppress(OSError):
                call(descriptor, fcntl.LOCK_UN)
    is_still = signature(before) == signature(after)
    return after if is_still and not has_dotlock else None


def canonical_file(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of an existing regular file, links resolved.

    Raises SourceError that names what is there instead.
    """
    try:
        text = real_path(path)
    except OSError as error:
        raise unusable(os.fspath(path), error) from error
    os.close(_open(text))
    return str(Path(text))
