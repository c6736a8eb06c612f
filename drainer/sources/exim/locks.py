"""Find out whether an Exim works on a spool directory, or on one message of it.

Exim holds an fcntl write lock on the first line of a ``-D`` file while it works on the
message. Our lock belongs to the open file, not to the process, so closing another
descriptor of ours on the same file does not end it. The two kinds of lock exclude each
other (fcntl(2)).
"""

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from drainer.runtime.folders import open_in
from drainer.sources.common.files import directory
from drainer.sources.common.processes import runs_at
from drainer.sources.common.queue_directory import unremovable
from drainer.sources.common.walk import FilePlace
from drainer.sources.exim.message import EximFiles

_COMMAND = re.compile("exim")
_READ_WRITE = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY
"""A lock for writing needs a file that is open for writing."""
_FLOCK = "hhqqi0q"  # l_type, l_whence, l_start, l_len, l_pid, as Linux lays it out


def is_locked(descriptor: int, length: int) -> bool:
    """Return whether a process holds a lock on the first bytes; changes nothing."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    except OSError:  # without locks in the file system, no process has one
        return False
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def lock(descriptor: int, length: int) -> bool:
    """Take the lock while the file is open; False when another process has it.

    The file must be open for writing. Raises OSError when it cannot be locked.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextmanager
def hold_lock(root: str, place: FilePlace, files: EximFiles) -> Iterator[bool]:
    """Hold the lock on a ``-D`` file that we read; yield whether we have it.

    Without one there is nothing to lock, and Exim cannot work on the message either.
    Raises SourceError when the spool does not allow it.
    """
    if files.body is None:
        yield files.error is not None and files.error.code == "vanished"
        return
    with ExitStack() as stack:
        try:
            with directory(root, place.parts) as above:
                descriptor = open_in(above, place.name, _READ_WRITE)
            stack.callback(os.close, descriptor)
            is_same = os.path.sameopenfile(descriptor, files.body)
            has_lock = is_same and lock(descriptor, files.start or 1)
        except FileNotFoundError:
            has_lock = False
        except OSError as error:
            raise unremovable(place, error) from error
        yield has_lock


def exim_runs(root: str) -> bool:
    """Return whether an Exim works on this spool directory; changes nothing.

    The pid file proves nothing: its place depends on the build, and a copy contains it.
    But a daemon listens on a socket named after the spool, and every Exim process has
    the spool as its current directory.
    """
    return _listens(root) or runs_at(root, _COMMAND)


def _listens(root: str) -> bool:
    try:
        sockets = Path("/proc/net/unix").read_bytes()
    except OSError:
        return False
    path = os.fsencode(root) + b"/exim_daemon_notify"
    return any(
        line.endswith((b" " + path, b" @" + path)) for line in sockets.split(b"\n")
    )
