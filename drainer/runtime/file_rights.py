"""The rights that root uses files with: its own, or those of another user.

Linux keeps the user and group ids for files apart, for each thread (setfsuid(2)). They
change around single calls on names, never across a ``yield`` or an ``await``: another
thread, or what runs in between, stays root. An open descriptor needs no rights any
more. (A process of its own for each user would have to own the ledger as well as the
spool, which belong to different users.)
"""

import ctypes
import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

_NO_GROUP = 65534
_CAPABILITY_VERSION = 0x20080522
_DAC_READ_SEARCH = 1 << 2
_OPENAT2, _CURRENT_FOLDER, _NO_SYMLINKS = ctypes.c_long(437), ctypes.c_long(-100), 4
"""The call's number everywhere, AT_FDCWD, and RESOLVE_NO_SYMLINKS."""
_ASK = 2**32 - 1
"""No id: the calls below then only return the present one."""

_libc = ctypes.PyDLL(None)
for _call in (_libc.setfsuid, _libc.setfsgid):
    _call.argtypes, _call.restype = (ctypes.c_uint,), ctypes.c_uint


def is_root() -> bool:
    """Return whether this process may do what the owner of a folder may not."""
    return os.geteuid() == 0


def user_name(number: int) -> str:
    """Return the name of a user, or words with the number if it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def refusal(text: str) -> PermissionError:
    """Return the error for what root does not touch in a folder of another user."""
    return PermissionError(errno.EPERM, text)


@contextmanager
def as_owner(status: os.stat_result, *, search: bool = False) -> Iterator[None]:
    """Let this thread use files with the rights of an owner, if it is root.

    ``search``: it may also pass through and read what the owner may not, and write
    nothing more than the owner. Raises PermissionError when root may not act as another
    user here.
    """
    if status.st_uid == 0 or not is_root():
        yield
        return
    uid, gid = status.st_uid, _group_of(status.st_uid, status.st_gid)
    if os.getgroups():
        _drop_groups(uid)
    before = (_libc.setfsuid(uid), _libc.setfsgid(gid))  # each returns the last one
    try:
        if (_libc.setfsuid(_ASK), _libc.setfsgid(_ASK)) != (uid, gid):
            raise _unable(uid)
        if search:
            _allow_search()
        yield
    finally:
        _libc.setfsuid(0)  # the capabilities for files come and go with this id
        _libc.setfsuid(before[0])
        _libc.setfsgid(before[1])


def open_without_links(path: str, flags: int) -> int | None:
    """Open a path that has no link in it, and no ``..``; None when that fails.

    One call (openat2(2)) instead of a walk.
    """
    if ".." in path or "\0" in path:
        return None
    how = (ctypes.c_uint64 * 3)(flags, 0, _NO_SYMLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    descriptor = _libc.syscall(
        _OPENAT2, _CURRENT_FOLDER, os.fsencode(path), ctypes.byref(how), size
    )
    return descriptor if descriptor >= 0 else None


class _Capabilities(ctypes.Structure):
    """What capget(2) and capset(2) exchange: two of each, low bits first."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _allow_search() -> None:
    """Take CAP_DAC_READ_SEARCH again: it left with root's id, and returns with it."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    known = (_Capabilities * 2)()
    _libc.capget(header, known)
    known[0].effective |= known[0].permitted & _DAC_READ_SEARCH
    _libc.capset(header, known)


def _drop_groups(uid: int) -> None:
    """Drop root's groups, once for the whole process.

    They give root nothing but what its capabilities do, and a user would have them.
    """
    try:
        os.setgroups([])
    except OSError:
        raise _unable(uid) from None


def _unable(uid: int) -> PermissionError:
    return refusal(
        f"root may not act as user {uid} here (no CAP_SETUID and CAP_SETGID):"
        " run drainer as that user, or grant them"
    )


@lru_cache(maxsize=256)
def _group_of(uid: int, gid: int) -> int:
    """Return a user's own group: a folder may have one that gives it other rights."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return gid or _NO_GROUP
