"""Find out whether a Postfix works in a queue directory.

The master holds an exclusive flock on ``pid/master.pid`` until it ends; in a copy of
the directory, no process does. If drainer may not open the file, it reads the kernel's
list of locks.
"""

import os
import re
from pathlib import Path

from drainer.runtime.folders import open_in
from drainer.sources.common.files import directory
from drainer.sources.common.processes import PROC, is_locked, works_at

_COMMAND = re.compile("master$")


def master_runs(root: str) -> bool:
    """Return whether a master runs on this queue directory; changes nothing."""
    try:
        with directory(root, ("pid",)) as pid:
            try:
                return is_locked("master.pid", pid) or _works_there(pid, root)
            except PermissionError:
                return _kernel_knows(os.stat("master.pid", dir_fd=pid))
    except OSError:
        return False


def _works_there(pid: int, root: str) -> bool:
    """Ask /proc: where flock does not work (NFS), the process still works here.

    The number alone proves nothing: a copied directory contains it too.
    """
    descriptor = open_in(pid, "master.pid", os.O_RDONLY | os.O_NONBLOCK)
    try:
        text = os.read(descriptor, 32).strip()
    finally:
        os.close(descriptor)
    return text.isdigit() and works_at(PROC / text.decode(), root, _COMMAND)


def _kernel_knows(status: os.stat_result) -> bool:
    """Search /proc/locks, which every user may read, for a flock on the file."""
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    inode = f":{status.st_ino}"
    return any(
        len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(inode)  # noqa: PLR2004
        for words in map(str.split, locks.splitlines())
    )
