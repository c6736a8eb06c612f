"""Names in a Maildir, and the sibling Maildir for drained mail.

A unique name is opaque; after a separator come the notes of readers. A reader may move
a file from new/ to cur/ or change its flags at any time. So drainer searches a message
by its base name when it is not at its place.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from drainer.errors import MessageUnreadable
from drainer.runtime.file_rights import refusal
from drainer.runtime.folders import hand_over, owner_of, refuse_another_owner
from drainer.sources.common.files import (
    CHUNK_BYTES,
    OpenFiles,
    directory,
    has_name,
    open_directory,
    read_at,
    source_error,
    sync_directory,
)

SUBDIRECTORIES = ("new", "cur")
"""tmp/ contains unfinished files: drainer never reads it."""

#: The separator differs where the file system has no colon.
_INFO = re.compile(r"[:;!][12],")
_SIZE_HINT = re.compile(r",S=([0-9]{1,15})(?![0-9])")
_FLAG_NAMES = {
    "P": "passed",
    "R": "replied",
    "S": "seen",
    "T": "trashed",
    "D": "draft",
    "F": "flagged",
}
#: What follows a base, unless a reader has flags of its own, as Dovecot does.
_USUAL = dict.fromkeys(
    f"{separator}2,{''.join(flags)}" if separator else ""
    for separator in ("", ":", ";", "!")
    for count in range(len(_FLAG_NAMES) + 1)
    for flags in itertools.combinations(sorted(_FLAG_NAMES), count)
)
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"Dovecot-LZ4\x0d\x2a\x9b\xc5", "lz4"),
    (b"CRYPTED\x03\x07", "Dovecot's mail_crypt"),
)


class MaildirName(NamedTuple):
    """The parts of a file name in new/ or cur/."""

    base: str
    flags: tuple[str, ...]
    #: The number after ``,S=``; None without it.
    size_bytes: int | None


def parse_name(name: str) -> MaildirName:
    """Parse a file name."""
    info = _INFO.search(name)
    base = name[: info.start()] if info else name.partition(":")[0]
    letters = name[info.end() :] if info and info[0][1] == "2" else ""
    flags = tuple(word for flag, word in _FLAG_NAMES.items() if flag in letters)
    hint = _SIZE_HINT.search(base)
    return MaildirName(base, flags, int(hint[1]) if hint else None)


def compression(head: bytes) -> str:
    """Return how a mail store packed the file; '' for plain mail."""
    for magic, name in _COMPRESSED:
        if head.startswith(magic):
            return name
    return ""


def find_usual(descriptor: int, base: str) -> Iterator[str]:
    """Yield the names of a base in an open directory, with flags or without."""
    for info in _USUAL:
        if has_name(base + info, descriptor):
            yield base + info


def is_usual(name: str, base: str) -> bool:
    """Return whether ``find_usual`` finds a name of that base."""
    return name[len(base) :] in _USUAL


class DrainedFolder:
    """The sibling Maildir ``NAME.drained``; one rename moves a message there."""

    def __init__(self, root: str) -> None:
        """Remember its place; nothing is created before it is needed."""
        self._origin = root
        self.root = Path(f"{root}.drained")
        self._made: set[tuple[str, ...]] = set()

    def move(self, parts: tuple[str, ...], name: str) -> bool:
        """Move a file to the same place there; never replace another file.

        False when the file is gone. Raises SourceError when the file system refuses.
        """
        try:
            self._make(parts[:-1])
            with (
                directory(self._origin, parts) as here,
                directory(self.root, parts) as there,
            ):
                refuse_another_owner(here, there)
                with owner_of(here):
                    return self._rename(name, here, there)
        except OSError as error:
            message = f"cannot move {name!r} to {self.root}: {error.strerror}"
            hint = 'use ack = "keep" or "remove", or run as the owner'
            raise source_error(message, error, hint) from error

    def _rename(self, name: str, here: int, there: int) -> bool:
        target = self._free_name(name, here, there)
        try:
            if target:
                os.rename(name, target, src_dir_fd=here, dst_dir_fd=there)
            else:  # the same message is there already
                os.unlink(name, dir_fd=here)
        except FileNotFoundError:
            return False
        return True

    def sync(self, parts: Iterable[tuple[str, ...]]) -> None:
        """Make what moved into these directories durable."""
        for each in parts:
            sync_directory(self.root, each)

    def _free_name(self, name: str, here: int, there: int) -> str:
        """Return a free name there; '' if the same content is there."""
        parsed = parse_name(name)
        info = name[len(parsed.base) :]
        for number in range(1000):
            suffix = f".{number}" if number else ""
            target = f"{parsed.base}{suffix}{info}"
            try:
                os.stat(target, dir_fd=there, follow_symlinks=False)
            except FileNotFoundError:
                return target
            if _same_content(name, here, target, there):
                return ""
        raise FileExistsError(0, "too many files of that name")

    def _make(self, folder: tuple[str, ...]) -> None:
        """Create the Maildir, and a folder in it, private and durable."""
        if folder in self._made:
            return
        with (
            directory(self._origin) as origin,
            directory(self.root.parent) as above,
            _made(self.root.name, above, origin) as root,
            ExitStack() as stack,
        ):
            base = root
            for part in folder:
                base = stack.enter_context(_made(part, base, root))
            for name in ("tmp", "new", "cur"):
                with _made(name, base, root):
                    pass
            for descriptor in (above, root, base):
                os.fsync(descriptor)
        self._made.add(folder)


@contextmanager
def _made(name: str, above: int, owned: int) -> Iterator[int]:
    """Keep a folder open, made if necessary; it gets the owner of ``owned``.

    As root, refuses a link, and a folder of another owner.
    """
    is_new = True
    with owner_of(above):
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            is_new = False
    try:
        descriptor = open_directory(name, above)
    except NotADirectoryError:
        raise refusal(f"{name} is a link, or a file") from None
    try:
        if is_new:
            hand_over(descriptor, above, owned)
        refuse_another_owner(owned, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _same_content(name: str, here: int, other: str, there: int) -> bool:
    with OpenFiles() as opened:
        try:
            first, status = opened.open(name, here)
            second, other_status = opened.open(other, there)
        except (MessageUnreadable, FileNotFoundError):
            return False
        return status.st_size == other_status.st_size and all(
            read_at(first, offset, CHUNK_BYTES) == read_at(second, offset, CHUNK_BYTES)
            for offset in range(0, status.st_size, CHUNK_BYTES)
        )
