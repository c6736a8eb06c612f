"""Unpack the bytes of a packed archive while they are read, in bounded memory.

The packing is as untrusted as the archive in it. A packing that needs a large window or
dictionary is refused, and no read returns more than it was asked for.
"""

import gzip
import io
import lzma
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, Protocol

import zstandard

from drainer.errors import SourceError
from drainer.runtime.units import format_size
from drainer.sources.archive.compression import MAX_RATIO, WINDOW_BYTES
from drainer.sources.common.files import CHUNK_BYTES


class ByteReader(Protocol):
    """Returns bytes, at most as many as asked for; none at the end."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""


@contextmanager
def open_tar(raw: IO[bytes], kind: str) -> Iterator[ByteReader]:
    """Yield readers for the bytes of a tar, packed as archive.packing says."""
    if kind == "gz":
        with gzip.GzipFile(fileobj=raw) as stream:
            yield stream
    elif kind == "xz":
        yield _Xz(raw)
    elif kind == "zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        with decompressor.stream_reader(
            raw, read_across_frames=True, closefd=False
        ) as reader:
            yield reader
    else:
        yield raw


class _Xz:
    """One or several xz streams; unlike lzma.LZMAFile it limits memory."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._stream: lzma.LZMADecompressor | None = _fresh()
        self._ahead = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if not self._ahead and (self._stream is None or self._stream.needs_input):
                self._ahead = self._raw.read(CHUNK_BYTES)
                if not self._ahead and self._stream is None:
                    return b""
                if not self._ahead:
                    raise EOFError("it ends in the middle of its packing")
            if self._stream is None:
                self._ahead = self._ahead.lstrip(b"\0")  # padding between streams
                self._stream = _fresh() if self._ahead else None
                continue
            data = self._stream.decompress(self._ahead, size)
            self._ahead = b""
            if self._stream.eof:
                self._ahead, self._stream = self._stream.unused_data, None
            if data:
                return data


def _fresh() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES)


class CappedReader(io.FileIO):
    """A file with limited reads: Python reads the directory of a zip at once."""

    def __init__(self, descriptor: int, limit: int) -> None:
        """Read an open file, and close it at the end."""
        super().__init__(descriptor, "rb")
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes; raises ValueError for too many."""
        if size is None or size < 0 or size > self._limit:
            size = self._limit + 1
        data = super().read(size) or b""
        if len(data) > self._limit:
            raise ValueError(f"its directory is larger than {self._limit} bytes")
        return data


MAX_MEMBERS = 2_000_000
FREE_ENOUGH_BYTES = 1_000_000_000
"""Below this size the ratio is not checked."""
RESERVE_BYTES = 512 * 1024 * 1024
"""Space that must stay free on the file system."""

_LOOK_EVERY_BYTES = 64 * 1024 * 1024
_LOOK_EVERY_MEMBERS = 1024


class UnpackLimits:
    """The remaining allowance; checked before every byte is written."""

    def __init__(self, archive: Path, target: Path, most: int) -> None:
        """Allow ``most`` bytes, but never more than the file system has free."""
        self._archive = archive
        self._target = target
        self._most = most
        self._ratio_bytes = archive.stat().st_size * MAX_RATIO + FREE_ENOUGH_BYTES
        self._bytes = self._members = 0
        self._next_look = 0

    def add_bytes(self, count: int) -> None:
        """Count unpacked bytes; raises SourceError."""
        self._bytes += count
        if self._bytes > self._most:
            self._refuse(
                f"contains more than {format_size(self._most)}",
                'raise archive_limit if you trust it (archive_limit = "50GB")',
            )
        if self._bytes > self._ratio_bytes:
            self._refuse(
                f"unpacks to more than {MAX_RATIO} times its size",
                "if you trust it, unpack it yourself and name the folder",
            )
        if self._bytes >= self._next_look:
            self._look()

    def add_member(self) -> None:
        """Count a member; raises SourceError."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            self._refuse(
                f"has more than {MAX_MEMBERS} members",
                "unpack it yourself and name the folder",
            )
        if self._members % _LOOK_EVERY_MEMBERS == 0:
            self._look()

    def _look(self) -> None:
        """Check that the file system does not fill up."""
        self._next_look = self._bytes + _LOOK_EVERY_BYTES
        if shutil.disk_usage(self._target).free < RESERVE_BYTES + _LOOK_EVERY_BYTES:
            self._refuse(
                f"does not fit into {self._target.parent}",
                "set TMPDIR to a folder with more space",
            )

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise SourceError(f"{self._archive} {what}", hint=hint)
