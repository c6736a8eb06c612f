"""Find out whether a Postfix works in a queue directory, and keep it from starting.

The master holds an exclusive flock on ``pid/master.pid`` until it ends; in a copy of
the directory, no process does. If drainer may not open the file, it reads the kernel's
list of locks.

drainer takes the same lock while it drains a stopped queue in place, and writes its own
number there as master does (master.c). So ``postfix start`` says that the mail system
is running, and ``postfix stop`` ends the drain in order. If the drain takes longer than
the five seconds that the script waits, the script may kill the process group of that
number. A drain that leads none ends by itself, within its grace period. Either way what
it has begun is on hold.
"""

import os
import re
from pathlib import Path

from drainer.errors import OwnedElsewhere, UsageError
from drainer.runtime.folders import open_in
from drainer.runtime.locks import try_lock
from drainer.sources.common.files import directory
from drainer.sources.common.processes import PROC, is_locked, is_running, works_at

_COMMAND = re.compile("master$")
_PID_FILE = "master.pid"
_PID_WIDTH = 32
"""Characters of the number in the file, as master writes it on a 64-bit host."""


def master_runs(root: str) -> bool:
    """Return whether a master runs on this queue directory; changes nothing."""
    try:
        with directory(root, ("pid",)) as pid:
            try:
                if is_locked(_PID_FILE, pid):
                    return not _is_of_drainer(_number(pid))
                return works_at(PROC / str(_number(pid)), root, _COMMAND)
            except PermissionError:
                return _kernel_knows(os.stat(_PID_FILE, dir_fd=pid))
    except OSError:
        return False


def master_number(root: str) -> int:
    """Return the process number that a queue directory names, 0 without one."""
    try:
        with directory(root, ("pid",)) as pid:
            return _number(pid)
    except OSError:
        return 0


def _number(pid: int) -> int:
    """Return the number in the file, 0 without one.

    It alone proves nothing: a copied directory contains it too. Where flock does not
    work (NFS), the process still works in the directory.
    """
    descriptor = open_in(pid, _PID_FILE, os.O_RDONLY | os.O_NONBLOCK)
    try:
        text = os.read(descriptor, 2 * _PID_WIDTH).split()
    finally:
        os.close(descriptor)
    return int(text[0]) if text and text[0].isdigit() else 0


def _is_of_drainer(number: int) -> bool:
    """Return whether the lock's owner is a drain and not a master.

    An owner that is not visible, in another container, counts as a master.
    """
    return (PROC / str(number)).exists() and not is_running(number, _COMMAND)


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


def lock_master(root: str) -> int | None:
    """Keep a Postfix from starting on this queue directory; return the lock.

    Closing the descriptor releases it. None without a folder ``pid``: then no Postfix
    has used the directory yet. Raises UsageError when a master runs, or when drainer
    may not lock it; OwnedElsewhere when another drain has it.
    """
    try:
        with directory(root, ("pid",)) as pid:
            descriptor = open_in(pid, _PID_FILE, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unlockable(root, error) from error
    try:
        is_ours = try_lock(descriptor)
        if is_ours:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid():>{_PID_WIDTH}}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise _unlockable(root, error) from error
    if not is_ours:
        os.close(descriptor)
        raise _busy(root)
    return descriptor


def _busy(root: str) -> UsageError | OwnedElsewhere:
    if master_runs(root):
        return running_error(root)
    message = f"another drain works on {root}"
    return OwnedElsewhere(message, hint="wait for it; `drainer status` shows it")


def running_error(root: str) -> UsageError:
    """Return the error for a queue directory whose Postfix runs."""
    message = f"a Postfix is running on {root}: it would send this mail too"
    hint = (
        "drain postfix:live, which holds its mail first; or stop it (postfix stop) and"
        " drain the directory"
    )
    return UsageError(message, hint=hint)


def _unlockable(root: str, error: OSError) -> UsageError:
    message = f"cannot lock {root}/pid/{_PID_FILE}: {error.strerror}"
    hint = (
        "Postfix must not start while its queue is drained: run drainer as root, where"
        " the directory may be written"
    )
    return UsageError(message, hint=hint)
