"""Unpack the bytes of a packed archive while they are read, in bounded memory.

The packing is as untrusted as the archive in it. A packing that needs a large window or
dictionary is refused, and no read returns more than it was asked for.
"""

import gzip
import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

import zstandard

from drainer.sources.common.files import CHUNK_BYTES

WINDOW_BYTES = 128 * 1024 * 1024
"""Memory that a packing may need; `xz -9` takes 65 MiB, `zstd -19` 8 MiB."""


class ByteReader(Protocol):
    """Returns bytes, at most as many as asked for; none at the end."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        ...


@contextmanager
def unpacked(raw: IO[bytes], kind: str) -> Iterator[ByteReader]:
    """Yield readers for the bytes of a tar, packed as archive.packing says.

    Each packing raises its own errors.
    """
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
                    message = "it ends in the middle of its packing"
                    raise EOFError(message)
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
    """A file whose reads have a limit.

    Python reads the directory of a zip at once, however large it says it is.
    """

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
            message = f"its directory is larger than {self._limit} bytes"
            raise ValueError(message)
        return data
