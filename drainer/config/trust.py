"""Reads files that control what drainer does, unless others could have changed them.

A configuration names commands that drainer runs and hosts that it sends mail to. Like
ssh and sudo, drainer refuses a file that belongs to another user than the caller or
root, that others can write, or that others can replace in its folder.
"""

import os
import shlex
import stat
from pathlib import Path

from drainer.errors import UsageError

_MAX_LINKS = 40
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_trusted(path: Path) -> bytes:
    """Return the content of a file.

    Raises UsageError when another user could have changed it; OSError.
    """
    real, is_shared = _resolve(path)
    with os.fdopen(os.open(real, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        _check_owner(path, status)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a regular file")
        if status.st_mode & _OTHERS_MAY_WRITE:
            raise _refusal(path, "others can write to it", f"chmod go-w {_quote(path)}")
        if is_shared and status.st_nlink > 1:
            message = f"{path} is not used: it is a hard link in a shared folder"
            raise UsageError(
                message, hint="move it to a folder that only you can write"
            )
        return file.read()


def _resolve(path: Path) -> tuple[Path, bool]:
    """Follow the links to a file; only root or the caller may have made them.

    Also returns whether others can put files into its folder.
    """
    for _ in range(_MAX_LINKS):
        folder = Path(os.path.realpath(path.parent))
        # Ignore the root directory: in a container, anyone may own it.
        shared = [_is_shared(path, each) for each in (folder, *folder.parents)[:-1]]
        path = folder / path.name
        if not path.is_symlink():
            return path, bool(shared and shared[0])
        _check_owner(path, path.lstat())
        path = folder / path.readlink()
    raise UsageError(f"{path} leads through too many links")


def _is_shared(path: Path, folder: Path) -> bool:
    """Whether others can add files to a folder; refuse it if they can replace files."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    finally:
        os.close(descriptor)
    if read_only:  # a volume of Kubernetes: its mode allows writing, the mount does not
        return False
    if _is_foreign(status):
        reason = f"the folder {folder} belongs to user {status.st_uid}"
        raise _refusal(path, reason, f"chown {os.geteuid()} {_quote(folder)}")
    is_open = bool(status.st_mode & _OTHERS_MAY_WRITE)
    if is_open and not status.st_mode & stat.S_ISVTX:
        reason = f"others can write to the folder {folder}"
        raise _refusal(path, reason, f"chmod go-w {_quote(folder)}")
    return is_open


def _check_owner(path: Path, status: os.stat_result) -> None:
    if _is_foreign(status):
        owner, caller = status.st_uid, os.geteuid()
        who = "root" if caller == 0 else f"root or to you (user {caller})"
        reason = f"it belongs to user {owner}, not to {who}"
        raise _refusal(path, reason, f"chown {caller} {_quote(path)}")


def _is_foreign(status: os.stat_result) -> bool:
    return status.st_uid not in (0, os.geteuid())


def _quote(path: Path) -> str:
    return shlex.quote(str(path.absolute()))


def _refusal(path: Path, reason: str, remedy: str) -> UsageError:
    hint = f"read its content, then run: {remedy}"
    return UsageError(f"{path} is not used: {reason}", hint=hint)
