"""A spool in an archive: ``postfix:/mnt/export.tar.gz``, ``maildir:/x.zip``.

drainer unpacks it into a private directory below the system's temporary one. The
directory is removed when the command ends; the next command removes what a killed one
left. The source keeps the URL of the archive, so the ledger recognises it, and its
messages have the same ids as in the folder itself. drainer only reads it: only the
ledger remembers what was sent.
"""

import atexit
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from drainer.errors import SourceError, UsageError
from drainer.mail.message import Message, SpooledMessage
from drainer.policy.pacing.rate import parse_size
from drainer.runtime.folders import real_path
from drainer.runtime.locks import try_lock
from drainer.sources.common.claim import FileSource
from drainer.sources.common.files import unescape_name, unusable
from drainer.sources.protocol import (
    PartialSource,
    Source,
    SourceFormat,
    UntakenPart,
)

LIMIT_OPTION = "archive_limit"
DEFAULT_LIMIT = "20GB"
"""Bytes that an archive may contain, unless ``archive_limit`` says otherwise."""

_PACKINGS = {
    ".tar": "tar",
    ".tar.gz": "gz",
    ".tgz": "gz",
    ".tar.xz": "xz",
    ".txz": "xz",
    ".tar.zst": "zst",
    ".tzst": "zst",
    ".zip": "zip",
}
_PREFIX = "drainer-archive-"
_MAX_DEPTH = 16
YOUNG_SECONDS = 60.0
"""A process that makes a directory has locked it within this time."""

#: path -> descriptor that keeps this process's lock on it.
_ours: dict[str, int] = {}


class ArchiveSource:
    """The spool in an archive, as a source."""

    acknowledges = False

    def __init__(
        self, url: str, inner: Source, spool: Path, skipped: Mapping[str, int]
    ) -> None:
        """Give the source of the unpacked files the URL of the archive.

        ``skipped`` counts the members that are not mail, by their kind.
        """
        self.url = url
        self.skipped = dict(skipped)
        self._inner = inner
        self._spool = spool

    def refuse_if_live(self) -> None:
        """Never refuse: no server works in an archive."""

    def roots(self) -> tuple[Path, ...]:
        """Return the archive, which only one ledger may drain."""
        return (Path(self.url.partition(":")[2]),)

    def unpacked_roots(self) -> Sequence[Path]:
        """Return the folders that it contained, with the markers in them."""
        return self._inner.roots() if isinstance(self._inner, FileSource) else ()

    def scan(self) -> Iterator[SpooledMessage]:
        """List the messages of the unpacked spool."""
        for spooled in self._inner.scan():
            yield self._rename(spooled)

    def _rename(self, spooled: SpooledMessage) -> SpooledMessage:
        message, problem = spooled.message, spooled.message.problem
        if problem and problem.code == "not-a-file":
            with suppress(OSError):  # no link of ours
                kind = (self._spool / unescape_name(message.locator)).readlink().name
                problem = replace(problem, detail=f"it is a {kind}")
        message = replace(message, source=self.url, problem=problem)
        return replace(spooled, message=message)

    def open(self, message: Message) -> SpooledMessage:
        """Find a message again."""
        inner = replace(message, source=self._inner.url)
        return self._rename(self._inner.open(inner))

    def untaken(self) -> Sequence[UntakenPart]:
        """Return the parts of the unpacked spool that have mail and are left out."""
        inner = self._inner
        return inner.untaken() if isinstance(inner, PartialSource) else ()

    def is_in_place(self, message: Message) -> bool:
        """Return whether this very message, by its whole content, is at its locator."""
        return self._inner.is_in_place(replace(message, source=self._inner.url))

    def acknowledge(self, messages: Sequence[Message]) -> list[str]:
        """Do nothing: an archive is never changed."""
        del messages
        return []


def find_packing(name: str) -> str:
    """Return how an archive is packed, by its name; '' if it is not an archive.

    ``tar``, ``gz``, ``xz``, ``zst`` (a tar in one of these), or ``zip``.
    """
    low = name.lower()
    return next((kind for end, kind in _PACKINGS.items() if low.endswith(end)), "")


def is_archive(path: Path, format_: SourceFormat) -> bool:
    """Return whether this is an archive of a format that is a directory."""
    is_directory = bool(format_.marks or format_.mark_suffix)
    return is_directory and bool(find_packing(path.name)) and not path.is_dir()


def open_archive(
    scheme: str,
    path: Path,
    format_: SourceFormat,
    keywords: Mapping[str, object],
    limit: str,
) -> ArchiveSource:
    """Unpack an archive and open the spool in it.

    Raises SourceError when it cannot be unpacked or contains no such spool, UsageError
    for an option that an archive cannot have.
    """
    keywords = dict(keywords)
    ack = format_.options.get("ack")
    if ack is not None and keywords.setdefault(ack.keyword, "keep") != "keep":
        message = "drainer only reads an archive: ack can only be keep"
        raise UsageError(message, hint="unpack it yourself, and name the folder")
    most = _parse_bytes(limit)
    try:
        resolved = Path(real_path(path))
    except OSError as error:
        raise unusable(str(path), error) from error
    if not resolved.is_file():
        message = f"cannot read {resolved}: no such file"
        raise SourceError(message, hint="check the path of the source")
    # Imported only when needed: it takes as long as all formats together.
    from drainer.sources.archive.unpack import unpack  # noqa: PLC0415

    folder = _private_directory()
    try:
        skipped = unpack(resolved, find_packing(path.name), folder, most)
        spool = _find_spool(folder, scheme, format_, resolved)
        inner = format_.make(spool, **keywords)
        if elsewhere := _files_elsewhere(folder, spool, format_.marks):
            skipped["other file"] = elsewhere
        return ArchiveSource(f"{scheme}:{resolved}", inner, spool, skipped)
    except BaseException:
        _remove(str(folder))
        raise


def _parse_bytes(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"archive_limit: {error}") from None


def _find_spool(
    folder: Path, scheme: str, format_: SourceFormat, archive: Path
) -> Path:
    """Return the directory that has the spool's marks, anywhere in the archive."""
    found = []
    waiting = deque([(folder, 0)])
    while waiting:
        place, depth = waiting.popleft()
        if format_.has_marks(place):
            found.append(place)
        elif depth < _MAX_DEPTH:
            with os.scandir(place) as entries:
                below = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
            waiting.extend((Path(each), depth + 1) for each in sorted(below))
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(os.fspath(each.relative_to(folder))) for each in found[:5])
    what = f"several: {names}" if found else "none"
    message = f"{archive} should contain one {scheme} spool; it contains {what}"
    raise SourceError(message, hint="unpack it yourself, and name the folder")


def _files_elsewhere(folder: Path, spool: Path, marks: Sequence[str]) -> int:
    """Return how many files are not where the format has mail, as in a chroot jail."""
    count = 0
    for place, below, files in os.walk(folder):
        if Path(place).is_relative_to(spool):
            if not marks:
                below.clear()
                continue
            below[:] = [name for name in below if name not in marks]
        count += sum(not Path(place, name).is_symlink() for name in files)
    return count


def _private_directory() -> Path:
    """Make a directory, locked by this process, that exists as long as the process."""
    _sweep()
    if not _ours:
        atexit.register(remove_all)
    path = tempfile.mkdtemp(prefix=_PREFIX)  # mode 0700
    _ours[path] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try_lock(_ours[path])  # no other process tries: it is new
    return Path(path)


def remove_all() -> None:
    """Remove what this process unpacked; its sources become unreadable."""
    for path in list(_ours):
        _remove(path)


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    descriptor = _ours.pop(path, None)
    if descriptor is not None:
        os.close(descriptor)


def _sweep() -> None:
    """Remove the directories that killed commands left."""
    folder = Path(tempfile.gettempdir())
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = path.lstat()
            is_young = time.time() - status.st_ctime < YOUNG_SECONDS
            if status.st_uid != os.geteuid() or is_young:
                continue
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags)
            try:
                if try_lock(descriptor):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
