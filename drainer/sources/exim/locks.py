"""Whether an Exim is at work on a spool directory, or on one message of it.

Exim holds an fcntl write lock on the first line of a ``-D`` file while it works
on the message. Ours belongs to the open file, not to the process, so that
another descriptor of ours on the same file cannot end it; the two kinds stand
in each other's way as one should expect (fcntl(2)).
"""

import fcntl
import os
import struct
from pathlib import Path

_FLOCK = "hhqqi0q"  # l_type, l_whence, l_start, l_len, l_pid, as Linux lays it out


def is_locked(descriptor: int, length: int) -> bool:
    """Tell whether a process holds a lock on the first octets; changes nothing."""
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted)
    except OSError:  # a file system without locks has nobody holding one
        return False
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def lock(descriptor: int, length: int) -> bool:
    """Take the lock for as long as the file is open; False when another has it.

    The file must be open for writing. Raises OSError when it cannot be locked.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, length, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True


def exim_runs(root: str) -> bool:
    """Tell whether an Exim works on this spool directory; changes nothing.

    The pid file proves nothing (its place is the build's choice, and a copy
    brings it along). But a daemon listens on a socket named after the spool,
    and every Exim process stands in the spool directory.
    """
    return _listens(root) or any(_stands_in(root, each) for each in _processes())


def _listens(root: str) -> bool:
    try:
        sockets = Path("/proc/net/unix").read_bytes()
    except OSError:
        return False
    path = os.fsencode(root) + b"/exim_daemon_notify"
    return any(
        line.endswith((b" " + path, b" @" + path)) for line in sockets.split(b"\n")
    )


def _processes() -> list[Path]:
    try:
        return [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    except OSError:
        return []


def _stands_in(root: str, process: Path) -> bool:
    try:
        name = (process / "comm").read_bytes()
        return name.startswith(b"exim") and (process / "cwd").samefile(root)
    except OSError:
        return False
