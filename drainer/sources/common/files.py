"""Open spool files safely: nothing leads out of the spool.

Strangers may write into a spool. So drainer opens every name relative to its directory,
never follows links, and reads only regular files. An open never blocks (a FIFO without
a writer would). As root, drainer opens a file with the rights of the folder's owner
(drainer.runtime.folders). Names that are not printable UTF-8 pass through the ledger
and JSON in a reversible, percent-encoded form.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from urllib.parse import unquote_to_bytes

import tenacity

from drainer.errors import MessageUnreadable, SourceError, SourceLost
from drainer.mail.content import HeldContent
from drainer.mail.message import Message, SpooledMessage
from drainer.runtime.folders import (
    find_folder,
    open_folder,
    open_folder_in,
    open_in,
    real_path,
)
from drainer.runtime.host_limits import lacks_descriptor, no_descriptor

SMALL_FILE_BYTES = 512 * 1024
"""Files up to this size are read with one call; larger ones are streamed. Contents up
to this size come with the listing of a directory of files."""

HELD_BYTES = 64 * 1024
"""Contents up to this size stay in memory when a message is read."""

CHUNK_BYTES = 128 * 1024
BATCH = 500
"""Messages that are moved, or looked up in the ledger, together."""
DESCRIPTOR_FREE_WITHIN = 10.0
"""Seconds."""

T = TypeVar("T")
ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> bytes; fewer only at the end of the file."""

_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_DISK_ERRORS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE})
_DISK_HINT = "see that its disk works and has room; then run the same command again"
_NOT_A_FILE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR})


def escape_name(name: str) -> str:
    """Make a file name or relative path printable UTF-8; reversible.

    Takes the result of :func:`os.fsdecode`. Undecodable and unprintable characters, and
    the percent sign, become ``%XX``, byte by byte.
    """
    if name.isprintable() and "%" not in name:
        return name
    return "".join(
        char
        if char.isprintable() and char != "%"
        else "".join(f"%{octet:02X}" for octet in os.fsencode(char))
        for char in name
    )


def unescape_name(text: str) -> str:
    """Return the name that escape_name got, as os.fsdecode returns it."""
    if "%" not in text:
        return text
    return os.fsdecode(unquote_to_bytes(text))


def url_of(scheme: str, root: str) -> str:
    """Return a source's URL; escape one that a database would not store."""
    return f"{scheme}:{root if root.isprintable() else escape_name(root)}"


def open_directory(name: str, dir_fd: int) -> int:
    """Open a directory itself, never a link to one; return its descriptor."""
    return _patiently(open_folder_in, dir_fd, name)


def _give_up(_: tenacity.RetryCallState) -> int:
    raise no_descriptor()


@tenacity.retry(
    retry=tenacity.retry_if_exception(lacks_descriptor),
    wait=tenacity.wait_random(0.02, 0.2),
    stop=tenacity.stop_after_delay(DESCRIPTOR_FREE_WITHIN),
    retry_error_callback=_give_up,
)
def _try_again(opening: Callable[..., int], *arguments: object) -> int:
    return opening(*arguments)


def _patiently(opening: Callable[..., int], *arguments: object) -> int:
    """Open something of a spool.

    Waits while no descriptor is free; then raises HostLimit, because no message caused
    it. The first attempt does without tenacity, which costs as much as opening a file.
    """
    try:
        return opening(*arguments)
    except OSError as error:
        if not lacks_descriptor(error):
            raise
    return _try_again(opening, *arguments)


def is_directory(path: Path) -> bool:
    """Return whether a readable directory is there; never raises."""
    try:
        return path.is_dir()
    except OSError:
        return False


@contextmanager
def directory(root: str | os.PathLike[str], parts: Iterable[str] = ()) -> Iterator[int]:
    """Keep a directory below ``root`` open, opening it name by name.

    ``root`` itself may be reached through links (as root: those of root); the names
    below it may not be links. Raises OSError.
    """
    descriptor = _patiently(open_folder, root)
    try:
        for part in parts:
            above, descriptor = descriptor, open_directory(part, descriptor)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def sync_directory(root: str | os.PathLike[str], parts: Iterable[str] = ()) -> None:
    """Make the names in a directory durable; it may be gone. Raises SourceError."""
    try:
        with directory(root, parts) as descriptor:
            os.fsync(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        message = f"cannot make changes in {os.fspath(root)} durable: {error.strerror}"
        raise source_error(message, error, "check the disk") from error


def write_durably(descriptor: int, data: bytes) -> None:
    """Write all of it, and wait until it is on the disk. Raises OSError."""
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def open_file(name: str, dir_fd: int) -> tuple[int, os.stat_result]:
    """Open a regular file of a directory for reading; the caller closes it.

    Raises FileNotFoundError when the name is gone, MessageUnreadable ('not-a-file',
    'unreadable') when it exists and cannot be read.
    """
    try:
        descriptor = _patiently(open_in, dir_fd, name, _FILE)
    except FileNotFoundError:
        raise
    except OSError as error:
        code = "not-a-file" if error.errno in _NOT_A_FILE else "unreadable"
        raise MessageUnreadable(code, _words(error)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise MessageUnreadable("not-a-file", f"it is a {kind_of(status.st_mode)}")
    return descriptor, status


class OpenFiles:
    """Open files of spools that are closed together, at the end of a with statement."""

    __slots__ = ("_descriptors",)

    def __init__(self) -> None:
        """Start with none."""
        self._descriptors: list[int] = []

    def open(self, name: str, dir_fd: int) -> tuple[int, os.stat_result]:
        """Open one more, as ``open_file``, and raise the same errors."""
        opened = open_file(name, dir_fd)
        self._descriptors.append(opened[0])
        return opened

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def open_at(path: Path) -> int:
    """Open a regular file that an operator named; return its descriptor.

    Raises OSError and MessageUnreadable, as ``open_file``.
    """
    folder = find_folder(path.parent)
    try:
        return open_file(path.name, folder)[0]
    finally:
        os.close(folder)


def has_name(name: str, dir_fd: int) -> bool:
    """Return whether a name exists in an open directory, whatever it is."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def not_a_file(name: str, dir_fd: int) -> MessageUnreadable:
    """Return the error for what is there instead of a file, without opening it.

    Raises FileNotFoundError when nothing is there any more.
    """
    try:
        mode = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        raise
    except OSError as error:
        return unreadable(error)
    return MessageUnreadable("not-a-file", f"it is a {kind_of(mode)}")


def kind_of(mode: int) -> str:
    """Return the name of a file type, for people."""
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "regular file")


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Read up to ``length`` bytes at an offset; fewer only at the end.

    Raises MessageUnreadable('unreadable') when the disk fails.
    """
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        raise unreadable(error) from error


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield some of them at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_beginning(chunks: Iterable[bytes], length: int) -> bytes:
    """Return at least the first ``length`` bytes, if there are as many."""
    head = bytearray()
    for chunk in chunks:
        head += chunk
        if len(head) >= length:
            break
    return bytes(head[:length])


def canonical(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of an existing directory, links resolved.

    Raises SourceError that names what is there instead.
    """
    text = os.fspath(path)
    try:
        text = real_path(path)
        with directory(text) as descriptor:
            os.stat(".", dir_fd=descriptor)  # listing alone is not enough
            return text
    except OSError as error:
        raise unusable(text, error) from error


def unreadable(error: OSError) -> MessageUnreadable:
    """Return the problem of one message; HostLimit when no descriptor was free."""
    if lacks_descriptor(error):
        raise no_descriptor() from error
    return MessageUnreadable("unreadable", _words(error))


def unusable(path: str, error: OSError) -> SourceError:
    """Return the error of a whole directory; HostLimit when no descriptor was free."""
    hints = {
        errno.EPERM: "run drainer as the owner of the spool",
        errno.EACCES: "run drainer as root or as the owner of the spool",
        errno.ENOENT: "check the path of the source",
        errno.ENOTDIR: "a source of this kind is a directory",
        errno.ELOOP: "links inside a spool are not followed: name the real folder",
    }
    number, why = error.errno or 0, error.strerror
    if number in (errno.ENOTDIR, errno.ELOOP) and Path(path).is_symlink():
        number, why = (
            errno.ELOOP,
            "it is a symbolic link",
        )  # not a directory, says Linux
    return source_error(f"cannot read {path}: {why}", error, hints.get(number, ""))


def source_error(message: str, error: OSError, hint: str) -> SourceError:
    """Return the error for the operator; ``hint`` is what to do if it does not pass.

    Raises HostLimit when no descriptor was free.
    """
    if lacks_descriptor(error):
        raise no_descriptor() from error
    if error.errno in _DISK_ERRORS:
        return SourceLost(message, hint=_DISK_HINT)
    return SourceError(message, hint=hint)


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def has_content(message: Message, chunks: Callable[[], Iterator[bytes]]) -> bool:
    """Return whether a content is the recorded one; True if none is recorded."""
    if not message.sha256:
        return True
    digest = hashlib.sha256()
    try:
        for chunk in chunks():
            digest.update(chunk)
    except MessageUnreadable:
        return False
    return digest.hexdigest() == message.sha256


class RereadContent(NamedTuple):
    """A content that is read again from the spool each time."""

    chunks: Callable[[], Iterator[bytes]]


def attach_content(
    message: Message, content: bytes | None, read: Callable[[], Iterator[bytes]]
) -> SpooledMessage:
    """Return a message with its content: in memory, or read again each time."""
    if content is not None:
        return SpooledMessage(message=message, content=HeldContent(content))
    return SpooledMessage(message=message, content=RereadContent(read))
