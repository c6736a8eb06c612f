"""Files of our own: private, no links, and owned by the owner of their folder.

The state folder may belong to the service's account, and root runs commands in it.
drainer refuses what that account puts there in place of a file of ours.
"""

import functools
import logging
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drainer.runtime.file_rights import is_root, refusal
from drainer.runtime.folders import (
    find_folder,
    is_trusted,
    locate,
    open_in,
    owner_of,
    refuse_another_owner,
)

_log = logging.getLogger(__name__)


@contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    """Act as the owner of the folder that a path is in, if root; yield it, open."""
    folder = find_folder(path.parent)
    try:
        with owner_of(folder):
            yield folder
    finally:
        os.close(folder)


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, and those above it.

    As root, a new folder belongs to the owner of the folder that it is in.
    """
    try:
        os.close(find_folder(folder))
    except FileNotFoundError:
        make_private_folder(folder.parent)
        with suppress(FileExistsError), _folder_of(folder) as above:
            os.mkdir(folder.name, 0o700, dir_fd=above)
        os.close(find_folder(folder))  # another process may have been faster


def open_private(path: Path, flags: int) -> int:
    """Open a file that only its owner can read, made if need be.

    As root, it belongs to the owner of its folder; a link, or a file of another user,
    is refused. Returns a descriptor. Raises OSError.
    """
    return _open(path, flags | os.O_CREAT)


def open_present(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that is there, with the rights of its folder's owner, if root.

    Returns a descriptor. Raises OSError.
    """
    if is_root() and not stat.S_ISREG(_status(path).st_mode):
        text = f"{path} is not a regular file"  # opening a device may do something
        raise refusal(text)
    return _open(path, flags)


def read_private(path: Path) -> bytes:
    """Return a file's content, read with the rights of its folder's owner, if root."""
    with open(open_present(path), "rb") as file:
        return file.read()


def read_password(path: Path) -> bytes:
    """Return a password file's content; warn once if every user can read the file."""
    content = read_private(path)
    _warn_of_readers(path.absolute())
    return content


@functools.cache
def _warn_of_readers(path: Path) -> None:
    """Log a warning if the mode of a file gives rights to every user of this host."""
    if path.stat().st_mode & stat.S_IRWXO:
        _log.warning(
            f"every user of this host can read or write the password file {path}:"
            f" chmod o= {shlex.quote(str(path))}"
        )


def remove_private(path: Path) -> None:
    """Remove a file, if it is there; never what a link leads to."""
    with suppress(FileNotFoundError), _folder_of(path) as folder:
        os.unlink(path.name, dir_fd=folder)


def remove_private_folder(path: Path) -> None:
    """Remove an empty folder."""
    with _folder_of(path) as folder:
        os.rmdir(path.name, dir_fd=folder)


def rename_private(path: Path, name: str) -> None:
    """Give a file another name in its folder, instead of a file that has it."""
    with _folder_of(path) as folder:
        os.replace(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file, in one step, by one of this mode. Raise OSError.

    As root, it belongs to the owner of its folder.
    """
    name = f".{path.name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with _folder_of(path) as folder:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        with os.fdopen(os.open(name, flags, mode, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask says
            file.write(content)
        os.replace(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def link_private(path: Path, new: Path) -> None:
    """Give a file a second name, maybe in another folder; FileExistsError if taken.

    As root, both folders must belong to the same owner; PermissionError if not.
    """
    here = find_folder(path.parent)
    try:
        with _folder_of(new) as there:
            refuse_another_owner(here, there)
            os.link(
                path.name, new.name, src_dir_fd=here, dst_dir_fd=there,
                follow_symlinks=False,
            )  # fmt: skip
    finally:
        os.close(here)


def write_private(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a durable file that was not there; FileExistsError if it is.

    When that fails, nothing is left behind.
    """
    descriptor = open_private(path, os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        remove_private(path)  # where there is no room, take none
        raise


def check_private(path: Path) -> None:
    """Refuse what root must not open under a name of ours; OSError.

    A name that is not there passes, and so does everything if this is not root.
    """
    if is_root():
        with suppress(FileNotFoundError):
            _status(path)


def _status(path: Path) -> os.stat_result:
    """Return the status of a file that root may open."""
    located = locate(path)
    try:
        found = os.stat(located.name, dir_fd=located.folder, follow_symlinks=False)
        _check(path, found, os.fstat(located.folder))
    finally:
        os.close(located.folder)
    return found


def _open(path: Path, flags: int) -> int:
    if not is_root():
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    located = locate(path, follow=not flags & os.O_NOFOLLOW)
    try:
        safe = flags & ~os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = open_in(located.folder, located.name, safe)
        try:
            _check(path, os.fstat(descriptor), os.fstat(located.folder))
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
            os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    finally:
        os.close(located.folder)


def _check(path: Path, found: os.stat_result, folder: os.stat_result) -> None:
    """Refuse what another user may have put into a folder; root's own is trusted."""
    if is_trusted(folder):
        return
    if not stat.S_ISREG(found.st_mode):
        text = f"{path} is not a regular file"
    elif found.st_nlink != 1:
        text = f"{path} is a hard link"
    elif found.st_uid not in (0, folder.st_uid):
        text = f"{path} belongs to user {found.st_uid}, its folder to {folder.st_uid}"
    else:
        return
    raise refusal(text)
