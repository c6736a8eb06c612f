"""The marker of a source: a small file that names the one ledger it is drained with.

``.drainer`` in a folder, ``FILE.drainer`` beside a file. A drain holds a shared lock
(flock) on it for its whole life; who replaces or removes it holds the exclusive one.
So a locked marker means that a drain works on the source now.

A user who can write in the folder can put anything there. A marker is therefore a small
regular file of one name, links are never followed, and its text is escaped.
"""

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from drainer.errors import ClaimConflict
from drainer.mail.reply import printable
from drainer.runtime.folders import find_folder, open_folder_in, open_in, owner_of
from drainer.sources.common.files import kind_of

MARKER = ".drainer"
MAX_BYTES = 4096
PATIENCE = 2.0
"""Seconds for which another process may be replacing or removing the marker."""
LOOK_AGAIN = 0.02

_FLAGS = os.O_NONBLOCK | os.O_NOCTTY
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_LOCKED = frozenset({errno.EWOULDBLOCK, errno.EBADF})
"""NFS gives no exclusive lock on a file that is open for reading: EBADF."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV})
TEXT_CHARS = 250
"""As much of a text as is kept, so that a marker of ours is never too long."""
TRIES = 100


class MarkerPlace(NamedTuple):
    """Where a marker is, or will be."""

    folder: Path
    name: str

    def __str__(self) -> str:
        """Return its path, escaped."""
        return printable(os.fspath(self.folder / self.name))


class Marker(NamedTuple):
    """What a marker says; every field is text that anybody may have written."""

    #: The ledger's own id; its URL, without a password; where and since when.
    ledger: str
    url: str
    host: str
    user: str
    since: str
    #: The URL of the source, a digest of its real path, and its device's number.
    source: str
    path: str
    device: str

    @property
    def owner(self) -> str:
        """The ledger in words, escaped."""
        where = f"{self.url} on {self.host} ({self.user}, since {self.since})"
        return printable(where, 2 * TEXT_CHARS)


def place_of(root: Path) -> MarkerPlace:
    """Return where the marker of a folder or of a file belongs."""
    if root.is_dir():
        return MarkerPlace(root, MARKER)
    return MarkerPlace(root.parent, f"{root.name}{MARKER}")


class MarkerFile:
    """An open marker, with or without a lock on it."""

    def __init__(self, place: MarkerPlace, descriptor: int, *, can_write: bool) -> None:
        """Take what ``open_marker`` opened."""
        self.place = place
        self.can_write = can_write
        #: Whether this process wrote it.
        self.is_new = False
        self._descriptor = descriptor

    def close(self) -> None:
        """Close it, which releases the lock."""
        os.close(self._descriptor)

    def lock(self, *, shared: bool) -> bool:
        """Try to lock without waiting; False when another process has it.

        A lock of the other kind is lost meanwhile: read the marker again after it.
        Raises OSError where the file system has no locks.
        """
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _LOCKED:
                return False
            raise
        return True

    def is_current(self) -> bool:
        """Tell whether the file of that name is still the one that is open."""
        try:
            found = (self.place.folder / self.place.name).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._descriptor), found)

    def read(self) -> Marker | None:
        """Return what it says; None when a process died before it was complete.

        A drain starts only after its marker is durable, so that nothing was sent in
        the name of an incomplete one. Raises ClaimConflict for anything else.
        """
        data = os.pread(self._descriptor, MAX_BYTES + 1, 0)
        if not data.endswith(b"\n") and len(data) <= MAX_BYTES:
            return None
        marker = _parse(data)
        if marker is None:
            raise not_a_marker(self.place, "it names no ledger")
        return marker

    def write(self, marker: Marker) -> None:
        """Replace what it says, durably; only under the exclusive lock."""
        data = (json.dumps(marker._asdict()) + "\n").encode("ascii")
        os.ftruncate(self._descriptor, 0)
        written = 0
        while written < len(data):
            written += os.pwrite(self._descriptor, data[written:], written)
        os.fsync(self._descriptor)
        with _opened(self.place) as folder:
            os.fsync(folder)
        self.is_new = True

    def remove(self) -> None:
        """Remove it; only under the exclusive lock."""
        with _opened(self.place) as folder:
            with suppress(FileNotFoundError), owner_of(folder):
                os.unlink(self.place.name, dir_fd=folder)
            os.fsync(folder)


@contextmanager
def _opened(place: MarkerPlace) -> Iterator[int]:
    """Hold the folder of a marker open; never a link to one."""
    above = find_folder(place.folder.parent)
    try:
        folder = open_folder_in(above, place.folder.name or ".")
    finally:
        os.close(above)
    try:
        yield folder
    finally:
        os.close(folder)


def open_marker(place: MarkerPlace, *, create: bool) -> MarkerFile | None:
    """Open a marker; None when there is none and none can be made here.

    Raises ClaimConflict when something else is there, or when it cannot be read;
    OSError when the folder cannot be opened.
    """
    with _opened(place) as folder:
        for _ in range(TRIES):  # it may come and go meanwhile
            with suppress(FileExistsError, FileNotFoundError):
                return _open(place, folder, create=create)
            if not create and not _exists(place, folder):
                break
    return None


def _open(place: MarkerPlace, folder: int, *, create: bool) -> MarkerFile | None:
    """Make one attempt; FileExistsError and FileNotFoundError mean: look again."""
    can_write = True
    try:
        descriptor = open_in(folder, place.name, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        if not create:
            raise
        # Never O_CREAT on a file that exists: a sticky folder may forbid it to root.
        return _create(place, folder)
    except OSError as error:
        if error.errno not in _DENIED:
            raise _refusal(place, folder, error) from error
        can_write = False
        descriptor = _open_to_read(place, folder)
    try:
        _check(place, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return MarkerFile(place, descriptor, can_write=can_write)


def _create(place: MarkerPlace, folder: int) -> MarkerFile | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
    try:
        descriptor = open_in(folder, place.name, flags)
    except OSError as error:
        if error.errno in _DENIED | _NO_ROOM:
            return None
        raise
    _share(descriptor, os.fstat(folder))
    return MarkerFile(place, descriptor, can_write=True)


def _share(descriptor: int, folder: os.stat_result) -> None:
    """Let the owner of the folder have it, and the group read it if it reads there.

    A refusal can then name the other ledger. All others could lock it as well.
    """
    with suppress(OSError):
        owner = folder.st_uid if os.geteuid() == 0 else -1
        os.fchown(descriptor, owner, folder.st_gid)
        os.fchmod(descriptor, 0o600 | (folder.st_mode & stat.S_IRGRP))


def _open_to_read(place: MarkerPlace, folder: int) -> int:
    try:
        return open_in(folder, place.name, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refusal(place, folder, error) from error


def _check(place: MarkerPlace, status: os.stat_result) -> None:
    """Refuse what no drainer wrote."""
    if not stat.S_ISREG(status.st_mode):
        raise not_a_marker(place, f"it is a {kind_of(status.st_mode)}")
    if status.st_nlink > 1:
        raise not_a_marker(place, "it has a second name (hard link)")
    if status.st_size > MAX_BYTES:
        raise not_a_marker(place, f"it has {status.st_size} bytes")


def _exists(place: MarkerPlace, folder: int) -> bool:
    try:
        os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _refusal(
    place: MarkerPlace, folder: int, error: OSError
) -> OSError | ClaimConflict:
    """Say what is in the way, and who owns it."""
    try:
        status = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except OSError as gone:
        return gone
    if error.errno in _NOT_A_FILE:
        return not_a_marker(place, f"it is a {kind_of(status.st_mode)}")
    message = f"{place} names the ledger of this source, and cannot be read"
    hint = f"it belongs to user {status.st_uid}: run drainer as that user or as root"
    return ClaimConflict(f"{message}: {error.strerror}", hint=hint)


def not_a_marker(place: MarkerPlace, why: str) -> ClaimConflict:
    """Return the refusal of a file that no drainer wrote."""
    message = f"{place} is in the way: {why}; drainer writes a marker of that name"
    return ClaimConflict(message, hint="look at it, and remove it")


def is_no_place(error: OSError) -> bool:
    """Tell whether a marker cannot be here: no locks, no room, no permission."""
    return error.errno in _NO_LOCKS | _NO_ROOM | _DENIED


def _parse(data: bytes) -> Marker | None:
    try:
        found = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    fields = [found.get(name) for name in Marker._fields]
    if not all(isinstance(each, str) for each in fields):
        return None
    return Marker(*(str(each) for each in fields))


class LockPatience:
    """How long a short lock of another process is waited for."""

    def __init__(self) -> None:
        """Start the clock."""
        self._end = time.monotonic() + PATIENCE

    def wait(self, place: MarkerPlace) -> None:
        """Wait a moment; ClaimConflict when it took too long."""
        if time.monotonic() >= self._end:
            message = f"another process keeps {place} locked"
            raise ClaimConflict(message, hint="run the same command again")
        time.sleep(LOOK_AGAIN)
