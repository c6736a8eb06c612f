"""The marker of a source: a small file that names the one ledger that drains it.

It is ``.drainer`` in a folder, or ``FILE.drainer`` next to a file. A drain keeps a
shared lock (flock) on it until it ends; to replace or remove it, a process takes the
exclusive lock. So a locked marker means that a drain works on the source now.

A user who can write in the folder can put anything there. So a marker must be a small
regular file with one name, drainer follows no links, and it escapes the text.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from drainer.errors import ClaimConflict
from drainer.mail.reply import printable
from drainer.runtime import locks
from drainer.runtime.folders import find_folder, open_folder_in, open_in, owner_of
from drainer.runtime.json_input import parse_json
from drainer.sources.common.files import kind_of, write_durably

MARKER = ".drainer"
MAX_BYTES = 4096

_FLAGS = os.O_NONBLOCK | os.O_NOCTTY
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV})
TEXT_CHARS = 250
"""Characters of a text that are kept, so that our marker is never too long."""
TRIES = 100


class MarkerPlace(NamedTuple):
    """The place where a marker is, or will be."""

    folder: Path
    name: str

    def __str__(self) -> str:
        """Return its path, escaped."""
        return printable(os.fspath(self.folder / self.name))


class Marker(NamedTuple):
    """The content of a marker; every field is text that anyone may have written."""

    #: The ledger's id; its URL, without a password; where and since when.
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
        """The ledger as text, escaped."""
        where = f"{self.url} on {self.host} ({self.user}, since {self.since})"
        return printable(where, 2 * TEXT_CHARS)


def place_of(root: Path) -> MarkerPlace:
    """Return the place for the marker of a folder or of a file."""
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

        Changing the kind of lock loses it for a moment: read the marker again after it.
        Raises OSError where the file system has no locks.
        """
        try:
            return locks.try_lock(self._descriptor, shared=shared)
        except OSError as error:
            if error.errno == errno.EBADF:  # NFS: exclusive, but open for reading
                return False
            raise

    def is_current(self) -> bool:
        """Return whether this name is still the file that is open."""
        path = self.place.folder / self.place.name
        return locks.is_current(self._descriptor, path)

    def read(self) -> Marker | None:
        """Return its content; None if a process died before it was complete.

        A drain starts only after its marker is durable, so no mail was sent under an
        incomplete one. Raises ClaimConflict for anything else.
        """
        data = os.pread(self._descriptor, MAX_BYTES + 1, 0)
        if not data.endswith(b"\n") and len(data) <= MAX_BYTES:
            return None
        marker = _parse(data)
        if marker is None:
            raise not_a_marker(self.place, "it names no ledger")
        return marker

    def write(self, marker: Marker) -> None:
        """Replace its content, durably; only with the exclusive lock."""
        data = (json.dumps(marker._asdict()) + "\n").encode("ascii")
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        write_durably(self._descriptor, data)
        with _open_folder(self.place) as folder:
            os.fsync(folder)
        self.is_new = True

    def remove(self) -> None:
        """Remove it; only with the exclusive lock."""
        with _open_folder(self.place) as folder:
            with suppress(FileNotFoundError), owner_of(folder):
                os.unlink(self.place.name, dir_fd=folder)
            os.fsync(folder)


@contextmanager
def _open_folder(place: MarkerPlace) -> Iterator[int]:
    """Keep the folder of a marker open; never through a link."""
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
    """Open a marker; None if there is none and none can be made here.

    Raises ClaimConflict when it is something else or unreadable; OSError when the
    folder cannot be opened.
    """
    with _open_folder(place) as folder:
        for _ in range(TRIES):  # it may appear and vanish in the meantime
            with suppress(FileExistsError, FileNotFoundError):
                return _open(place, folder, create=create)
            if not create and not _exists(place, folder):
                break
    return None


def _open(place: MarkerPlace, folder: int, *, create: bool) -> MarkerFile | None:
    """Make one attempt; FileExistsError and FileNotFoundError mean: try again."""
    can_write = True
    try:
        descriptor = open_in(folder, place.name, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        if not create:
            raise
        # Never O_CREAT on an existing file: a sticky folder may forbid it even to root.
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
    """Give it to the owner of the folder, and let the group read if it can read there.

    Then a refusal can name the other ledger. Any other reader could also lock it.
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
    try:
        status = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except OSError as gone:
        return gone
    if error.errno in _NOT_A_FILE:
        return not_a_marker(place, f"it is a {kind_of(status.st_mode)}")
    message = f"cannot read {place}, which names the ledger of this source"
    hint = f"it belongs to user {status.st_uid}: run drainer as that user or as root"
    return ClaimConflict(f"{message}: {error.strerror}", hint=hint)


def not_a_marker(place: MarkerPlace, why: str) -> ClaimConflict:
    """Return the error for a file that no drainer wrote."""
    message = f"{place} is not a marker of drainer, which needs that name: {why}"
    return ClaimConflict(message, hint="look at it, and remove it")


def is_no_place(error: OSError) -> bool:
    """Return whether a marker is impossible here: no locks, no space, no permission."""
    return error.errno in _NO_LOCKS | _NO_ROOM | _DENIED


def _parse(data: bytes) -> Marker | None:
    try:
        found = parse_json(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    fields = [found.get(name) for name in Marker._fields]
    if not all(isinstance(each, str) for each in fields):
        return None
    return Marker(*(str(each) for each in fields))
