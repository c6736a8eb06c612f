"""Unpack an archive that a stranger may have made.

It unpacks regular files and directories, and counts the rest: links, devices, pipes,
sparse files. In the place of each of those it leaves a link that leads nowhere, and
drainer never follows links. So a reader lists it as no file where mail belongs, and
ignores it elsewhere, as in a chroot jail. The slash before an absolute path is removed.

Each of these refuses the whole archive, by the name of the member: ``..`` in a path, a
name that occurs twice or is too long for the file system, more members or bytes than
allowed, or far more bytes than the archive has. Damage and a missing end refuse it too.
"""

import io
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from functools import partial
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

from zstandard import ZstdError

from drainer.errors import MessageUnreadable, SourceError
from drainer.sources.archive.unpack_streams import (
    ByteReader,
    CappedReader,
    UnpackLimits,
    open_tar,
)
from drainer.sources.common.files import CHUNK_BYTES, escape_name, kind_of, open_at

_MAX_DEPTH = 32
_HEADER_BYTES = 1024 * 1024
_DIRECTORY_BYTES = 64 * 1024 * 1024
NOWHERE = "/dev/null/"
"""Where a link leads that stands for a member, with its kind behind it: nowhere."""
_ENCRYPTED = 0x1
_UNIX = 3
_PLAIN_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    BadGzipFile,
    ZstdError,
    LZMAError,
    struct.error,
    EOFError,
    ValueError,  # UnicodeDecodeError too
    OverflowError,
    RecursionError,
    NotImplementedError,
    LookupError,
    TypeError,
    AttributeError,
)


class _Member(NamedTuple):
    """The data of an archive about one of its files or directories."""

    name: str
    is_directory: bool
    mode: int
    modified: float
    data: ByteReader
    #: What it is instead of a file or directory, for people; '' for these.
    other: str = ""


_Members = Generator[_Member, None, None]


class _CountedReader(io.RawIOBase):
    """The bytes from an archive: it counts all of them, and limits headers."""

    def __init__(
        self, stream: ByteReader, limits: UnpackLimits, *, is_data: bool = False
    ) -> None:
        self._stream = stream
        self._limits = limits
        #: Whether the data of a member are being read, of any length.
        self.is_data = is_data
        self._header_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._limits.add_bytes(len(data))
        self._header_bytes = 0 if self.is_data else self._header_bytes + len(data)
        if self._header_bytes > _HEADER_BYTES:
            raise ValueError("a member has an endless header")
        return data


class _Header(tarfile.TarInfo):
    """A member's header; tarfile itself takes a damaged one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def unpack(archive: Path, kind: str, target: Path, most: int) -> Counter[str]:
    """Unpack into an existing, empty, private directory, at most ``most`` bytes.

    ``kind`` is a result of archive.source.find_packing. Returns how many members are
    not files, by kind. Raises SourceError; the files written until then stay.
    """
    skipped: Counter[str] = Counter()
    limits = UnpackLimits(archive, target, most)
    members = _zip_members if kind == "zip" else _tar_members
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = ""
    try:
        with closing(members(archive, kind, limits)) as listed:
            for member in listed:
                name = member.name
                limits.add_member()
                _write(member, root)
                skipped.update(filter(None, (member.other,)))
    except _DAMAGE as error:
        message = f"{archive} is damaged or no such archive: {escape_name(str(error))}"
        hint = "copy it again, or unpack it yourself and name the folder"
        raise SourceError(message, hint=hint) from error
    except OSError as error:
        after = f" at {escape_name(name)!r}" if name else ""
        message = f"cannot unpack {archive}{after}: {error.strerror or error}"
        hint = "check that you may read it, and that TMPDIR has enough space"
        raise SourceError(message, hint=hint) from error
    finally:
        os.close(root)
    return skipped


def _tar_members(archive: Path, kind: str, limits: UnpackLimits) -> _Members:
    with open(_open_archive(archive), "rb") as raw, open_tar(raw, kind) as stream:
        counted = _CountedReader(stream, limits)
        with tarfile.open(
            fileobj=counted, mode="r|", tarinfo=_Header, errors="surrogateescape"
        ) as tar:
            while info := tar.next():
                # Otherwise tarfile's memory would grow with the archive.
                tar.__dict__.update(members=[], pax_headers={})
                other = _other_kind(info)
                data = (not other and tar.extractfile(info)) or io.BytesIO()
                counted.is_data = True
                yield _Member(
                    info.name, info.isdir(), info.mode, info.mtime, data, other
                )
                counted.is_data = False
            counted.is_data = True
            _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Check that only zeros follow, to the end of the packing."""
    assert tar.fileobj is not None  # noqa: S101 - until it is closed
    while data := tar.fileobj.read(CHUNK_BYTES):
        if data.strip(b"\0"):
            raise ValueError("data follows after its end")


def _other_kind(info: tarfile.TarInfo) -> str:
    """Return what a member is if it is neither a file nor a directory."""
    kinds = {
        tarfile.SYMTYPE: "symbolic link",
        tarfile.LNKTYPE: "hard link",
        tarfile.CHRTYPE: "device",
        tarfile.BLKTYPE: "device",
        tarfile.FIFOTYPE: "named pipe",
    }
    if info.issparse():
        return "sparse file"
    is_usual = info.isreg() or info.isdir()
    return "" if is_usual else kinds.get(info.type, "member of an unknown kind")


def _open_archive(archive: Path) -> int:
    """Open the archive; return its descriptor, which its reader closes."""
    try:
        return open_at(archive)
    except MessageUnreadable as error:
        raise OSError(0, error.detail) from error


def _zip_members(archive: Path, kind: str, limits: UnpackLimits) -> _Members:
    del kind
    with (
        CappedReader(_open_archive(archive), _DIRECTORY_BYTES) as raw,
        zipfile.ZipFile(raw) as whole,
    ):
        for info in whole.infolist():
            mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
            _check_zip(info)
            kind_bits = stat.S_IFMT(mode)
            is_usual = kind_bits in (0, stat.S_IFREG, stat.S_IFDIR)
            with whole.open(info) as data:
                yield _Member(
                    info.filename,
                    info.is_dir(),
                    mode & 0o7777 or 0o600,
                    _zip_time(info),
                    _CountedReader(data, limits, is_data=True),
                    "" if is_usual else kind_of(mode),
                )


def _check_zip(info: zipfile.ZipInfo) -> None:
    if "\0" in info.orig_filename:
        _refuse(info.orig_filename, "its name contains NUL")
    if info.flag_bits & _ENCRYPTED:
        _refuse(info.filename, "it is encrypted")
    if info.compress_type not in _PLAIN_PACKINGS:
        _refuse(info.filename, "it is packed with another method than deflate")


def _zip_time(info: zipfile.ZipInfo) -> float:
    """Return when a file was modified: UTC if the zip has it, else local time."""
    extra = info.extra
    while len(extra) >= 4:  # noqa: PLR2004 - two shorts: what it is, how long
        tag, length = struct.unpack_from("<HH", extra)
        if tag == 0x5455 and length >= 5 and len(extra) >= 9 and extra[4] & 1:  # noqa: PLR2004
            return float(struct.unpack_from("<I", extra, 5)[0])
        extra = extra[4 + length :]
    with suppress(ValueError, OverflowError):
        return time.mktime((*info.date_time, 0, 0, -1))
    return 0.0


def _write(member: _Member, root: int) -> None:
    path = _safe_path(member.name)
    if member.is_directory:
        if path:
            _make_directories(path, root)
        return
    if not path:
        _refuse(member.name, "it has no name")
    if member.other:
        _create(path, member.name, root, partial(_place_link, member.other))
        return
    descriptor = _create(path, member.name, root, _open_new)
    try:
        while data := member.data.read(CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        # Never set-user-id, and always readable for us.
        os.fchmod(descriptor, member.mode & 0o777 | 0o400)
        modified = min(max(member.modified, 0.0), 2.0**33)
        os.utime(descriptor, (modified, modified))
    finally:
        os.close(descriptor)


def _safe_path(name: str) -> str:
    """Return a member's path below the archive's root; SourceError if it leads out."""
    if "\0" in name:
        _refuse(name, "its name contains NUL")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        _refuse(name, "its path contains ..")
    if len(parts) > _MAX_DEPTH:
        _refuse(name, "it is nested too deeply")
    return "/".join(parts)


def _open_new(path: str, root: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600, dir_fd=root)


def _place_link(kind: str, path: str, root: int) -> int:
    """Put a link that leads nowhere in the place of a member; return 0."""
    os.symlink(f"{NOWHERE}{kind}", path, dir_fd=root)
    return 0


def _create(path: str, name: str, root: int, make: Callable[[str, int], int]) -> int:
    """Make a file or link, and the directories above it."""
    for is_last in (False, True):
        try:
            return make(path, root)
        except FileExistsError:
            _refuse(name, "it occurs twice")
        except NotADirectoryError:
            _refuse(name, "it is below a file")
        except FileNotFoundError:
            if is_last:
                raise
            _make_directories(os.path.dirname(path), root)  # noqa: PTH120
    raise AssertionError


def _make_directories(path: str, root: int) -> None:
    done = ""
    for part in path.split("/"):
        done = f"{done}/{part}" if done else part
        try:
            os.mkdir(done, 0o700, dir_fd=root)
        except FileExistsError:
            mode = os.stat(done, dir_fd=root, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                _refuse(path, "it occurs twice, once as a file")


def _refuse(name: str, reason: str) -> NoReturn:
    message = f"the archive contains {escape_name(name)[:300]!r}: {reason}"
    hint = (
        "pack only the folders with mail, as regular files (for Postfix: incoming,"
        " active, deferred, hold), or unpack it yourself and name the folder"
    )
    raise SourceError(message, hint=hint)
