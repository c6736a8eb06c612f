"""Folders of other users: found without their links, and used with their rights.

Root may do anything, so a name in a folder that another user can write is a trap: the
user exchanges what is there between two steps, by a link or another folder. Two rules
prevent that. As root, drainer follows a link only where root made it, and it works in a
folder as the folder's owner (drainer.runtime.file_rights). What the owner cannot reach,
drainer cannot either, whatever the name leads to by then. What drainer makes there
belongs to the owner. For any other user nothing changes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from drainer.runtime.file_rights import as_owner, is_root, open_without_links, refusal

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_LINKS = 40
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FolderLocation(NamedTuple):
    """A name in a folder that is open; the caller closes the folder."""

    folder: int
    name: str
    #: Without links.
    path: str
    #: The last folder of another user on the way; None when all are root's.
    foreign: os.stat_result | None


def is_trusted(folder: os.stat_result) -> bool:
    """Return whether only root can put anything into a folder."""
    return folder.st_uid == 0 and not folder.st_mode & _OTHERS_MAY_WRITE


@contextmanager
def owner_of(folder: int, name: str = "") -> Iterator[None]:
    """Act as the owner of an open folder, if this is root.

    Where root shares its folder with others, the owner of the file ``name`` counts.
    """
    if not is_root():
        yield
        return
    status = os.fstat(folder)
    if name and status.st_uid == 0 and not is_trusted(status):
        status = _status_if_shared(folder, name) or status
    with as_owner(status):
        yield


def open_in(folder: int, name: str, flags: int) -> int:
    """Open a name in an open folder as its owner, private if new; never a link.

    Returns a descriptor. Raises OSError.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    with owner_of(folder, name):
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    if is_root() and _is_strange_link(descriptor, folder):
        os.close(descriptor)
        raise _hard_link(name)
    return descriptor


def open_folder(path: str | os.PathLike[str]) -> int:
    """Open a folder for reading; return its descriptor. Raises OSError."""
    return _open_folder(path, _READ)


def open_folder_in(folder: int, name: str) -> int:
    """Open a folder in an open folder, never a link; return its descriptor."""
    return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)


def find_folder(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a folder that need not be readable, for names in it."""
    return _open_folder(path, _PATH)


def _open_folder(path: str | os.PathLike[str], flags: int) -> int:
    if not is_root():
        return os.open(path, flags)
    descriptor = open_without_links(os.fspath(path), flags)
    if descriptor is not None:
        return descriptor
    located = locate(path)
    try:
        return os.open(located.name, flags | os.O_NOFOLLOW, dir_fd=located.folder)
    finally:
        os.close(located.folder)


def refuse_another_owner(here: int, there: int) -> None:
    """Refuse as root to move files from a user's open folder into another's."""
    if is_root() and os.fstat(here).st_uid != os.fstat(there).st_uid:
        raise refusal("the two folders belong to different users")


def hand_over(folder: int, above: int, owned: int) -> None:
    """Give a folder that root just made the owner of another folder.

    Only where no other user could have exchanged it. Root may be unable to; then the
    folder stays as it is.
    """
    made, around, owner = map(os.fstat, (folder, above, owned))
    is_safe = is_trusted(around) or around.st_mode & stat.S_ISVTX
    if is_root() and made.st_uid == around.st_uid == 0 != owner.st_uid and is_safe:
        with suppress(PermissionError):
            os.fchown(folder, owner.st_uid, owner.st_gid)


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path without links; as root, follow only links that root has made.

    Raises OSError.
    """
    if not is_root():
        return os.path.realpath(path)
    located = locate(path)
    os.close(located.folder)
    return located.path


def locate(path: str | os.PathLike[str], *, follow: bool = True) -> FolderLocation:
    """Walk to the last name of a path, which need not be there, as root does it.

    Follows links that root made in folders where no other user could have made them;
    the last name only with ``follow``. Raises OSError.
    """
    return _Walk(os.fspath(path), follow=follow).run()


class _Walk:
    """A walk from the root directory, one name after the other."""

    def __init__(self, path: str, *, follow: bool) -> None:
        self._path = path if path.startswith("/") else f"{os.getcwd()}/{path}"  # noqa: PTH109
        self._names = _names(self._path)
        self._links = 0
        self._follows = follow
        self._enter_root()

    def _enter_root(self) -> None:
        self._here = os.open("/", _PATH)
        self._status = os.fstat(self._here)
        self._above: list[str] = []
        self._foreign: os.stat_result | None = None

    def run(self) -> FolderLocation:
        """Return where the walk ends."""
        try:
            while self._names:
                name = self._names.pop()
                if name == "..":
                    self._climb()
                elif (link := self._link(name)) is not None:
                    self._follow(name, link)
                elif self._names:
                    self._enter(name, os.O_NOFOLLOW)
                    self._above.append(name)
                else:
                    return self._end(name)
            return self._end(".")
        except BaseException:
            os.close(self._here)
            raise

    def _end(self, name: str) -> FolderLocation:
        names = [*self._above, name] if name != "." else self._above
        return FolderLocation(self._here, name, "/" + "/".join(names), self._foreign)

    def _enter(self, name: str, flags: int) -> None:
        below = os.open(name, _PATH | flags, dir_fd=self._here)
        os.close(self._here)
        self._here, self._status = below, os.fstat(below)
        if self._status.st_uid:
            self._foreign = self._status

    def _climb(self) -> None:
        if self._foreign is not None:
            raise refusal(f"{self._path}: it climbs out of a folder of another user")
        self._enter("..", 0)
        del self._above[-1:]

    def _link(self, name: str) -> os.stat_result | None:
        """Return the status of a link to follow; None for anything else."""
        if not self._names and not self._follows:
            return None
        try:
            found = os.stat(name, dir_fd=self._here, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found if stat.S_ISLNK(found.st_mode) else None

    def _follow(self, name: str, link: os.stat_result) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        is_sticky = self._status.st_uid == 0 and self._status.st_mode & stat.S_ISVTX
        is_safe = self._foreign is None and (is_trusted(self._status) or is_sticky)
        if link.st_uid or not is_safe:
            where = "/".join(["", *self._above, name])
            raise refusal(f"{where} is a link, and others than root could have made it")
        target = os.readlink(name, dir_fd=self._here)
        self._names += _names(target)
        if target.startswith("/"):
            os.close(self._here)
            self._enter_root()


def _names(path: str) -> list[str]:
    """Return the names of a path, the last one first."""
    return [name for name in path.split("/") if name not in ("", ".")][::-1]


def _status_if_shared(folder: int, name: str) -> os.stat_result | None:
    """Return the file's status in a folder of root that others can write too."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode) and not found.st_uid and found.st_nlink > 1:
        raise _hard_link(name)
    return found


def _is_strange_link(descriptor: int, folder: int) -> bool:
    """Return whether another user may have linked root's file into the folder."""
    found = os.fstat(descriptor)
    if found.st_uid or found.st_nlink == 1 or not stat.S_ISREG(found.st_mode):
        return False
    return not is_trusted(os.fstat(folder))


def _hard_link(name: str) -> PermissionError:
    return refusal(f"{name} is a hard link to a file of root")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make durable which files a folder has."""
    descriptor = open_folder(folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
