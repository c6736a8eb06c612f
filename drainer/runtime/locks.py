"""Locks on files (flock(2)): one process has a lock, and it ends with that process.

A process that inherits the descriptor keeps the lock too. Mail formats that use record
locks (fcntl(2)) name ``fcntl.lockf`` as the ``call``.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from drainer.runtime.private_files import open_private

_PAUSE_SECONDS = 0.05


def try_lock(
    descriptor: int,
    *,
    shared: bool = False,
    call: Callable[[int, int], object] = fcntl.flock,
) -> bool:
    """Lock an open file without waiting; False when another process has it locked.

    Raises OSError where the file system has no locks.
    """
    try:
        call(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # flock says EACCES on some NFS
        return False
    return True


def is_free(descriptor: int, *, shared: bool = False) -> bool:
    """Return whether an open file could be locked now; release and close it.

    Raises OSError where the file system has no locks.
    """
    try:
        if not try_lock(descriptor, shared=shared):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked now has it open too
        return True
    finally:
        os.close(descriptor)


def is_current(descriptor: int, path: Path) -> bool:
    """Return whether a name still is that of an open file.

    If not, another process has removed or replaced it, and a lock on it means nothing.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def lock_private(path: Path, flags: int = 0, *, patience: float = 0.0) -> int:
    """Open a private file, made if need be, and lock it; return its descriptor.

    Waits up to ``patience`` seconds for another process that has it locked; then raises
    BlockingIOError. Raises OSError, also for a link.
    """
    descriptor = open_private(path, os.O_RDWR | os.O_NOFOLLOW | flags)
    try:
        _wait_for_lock(descriptor, path, patience)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(descriptor: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not try_lock(descriptor):
        if time.monotonic() >= deadline:
            text = "another process has it locked"
            raise BlockingIOError(errno.EWOULDBLOCK, text, str(path))
        time.sleep(_PAUSE_SECONDS)
