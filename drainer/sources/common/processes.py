"""Whether a server's process is at work in a directory, by the kernel's /proc.

What may not be looked at (another user's process) counts as not being there.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from drainer.runtime.folders import open_in

_PROC = Path("/proc")


def runs_in(root: str, command: re.Pattern[str]) -> int:
    """Return the number of a process that works in a directory, or 0.

    It works there when its current directory or its root is the directory or
    lies in it, and ``command`` matches the beginning of its name.
    """
    for process in _processes():
        try:
            name = (process / "comm").read_text(errors="replace").strip()
            if command.match(name) and _stands_in(process, root):
                return int(process.name)
        except OSError:
            continue
    return 0


def is_running(number: int, command: re.Pattern[str]) -> bool:
    """Tell whether a process exists and ``command`` matches the begin of its name."""
    try:
        name = (_PROC / str(number) / "comm").read_text(errors="replace")
    except OSError:
        return False
    return bool(command.match(name))


def is_locked(name: str, dir_fd: int, *, by_readers: bool = False) -> bool:
    """Tell whether another process holds a flock on a file of a directory.

    Tries a shared lock without waiting, and drops it at once; ``by_readers`` asks for
    shared locks too, so that an exclusive one is tried. A file that is
    absent or may not be opened counts as not locked.
    """
    try:
        descriptor = open_in(dir_fd, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        wanted = fcntl.LOCK_EX if by_readers else fcntl.LOCK_SH
        fcntl.flock(descriptor, wanted | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for name in os.listdir(_PROC):  # noqa: PTH208 - names are what is needed
        if name.isdigit() and name != own:
            yield _PROC / name


def _stands_in(process: Path, root: str) -> bool:
    for link in ("cwd", "root"):
        place = str((process / link).readlink())
        if place == root or place.startswith(f"{root.rstrip('/')}/"):
            return True
    return False
