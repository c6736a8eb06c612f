"""Unpack a file that a mail store compressed, as Dovecot's zlib plugin does; pure.

The plugin packs a Maildir file without changing its name (gzip, bzip2, zstd, in older
versions xz). The mail is the unpacked content. A file that unpacks to far more than its
size is a bomb, and one that ends early or has a wrong checksum is damaged.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from drainer.errors import MessageUnreadable

MAX_RATIO = 250
"""Most unpacked bytes for each byte of the file; mail packs 2 to 20 times."""
FREE_BYTES = 16 * 1024 * 1024
"""Below this size the ratio is not checked."""
WINDOW_BYTES = 128 * 1024 * 1024
"""Memory that a packing may need."""

_OUTPUT_BYTES = 128 * 1024
_ZSTD_INPUT_BYTES = 64
"""An input this short unpacks to 2 MiB at most: each block has three bytes."""


class _Stream(Protocol):
    """The unpacker of one stream of a file."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The bytes after its end."""
        ...

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what some bytes unpack to, in pieces of limited size."""
        ...


class _Zlib:
    """A gzip stream."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        piece = bytes(_OUTPUT_BYTES)
        while data or len(piece) == _OUTPUT_BYTES:
            piece = self._stream.decompress(data, _OUTPUT_BYTES)
            yield piece
            data = self._stream.unconsumed_tail


class _Python:
    """A bzip2 or xz stream, by the classes of Python that have one interface."""

    def __init__(self, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(data, _OUTPUT_BYTES)
        while not (self._stream.eof or self._stream.needs_input):
            yield self._stream.decompress(b"", _OUTPUT_BYTES)


class _Zstd:
    """A frame of zstd."""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - slow to import

        limited = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
        self._stream = limited.decompressobj()
        self._error = zstandard.ZstdError
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_INPUT_BYTES):
            end = start + _ZSTD_INPUT_BYTES
            try:
                piece = self._stream.decompress(data[start:end])
            except self._error as error:
                raise ValueError(str(error)) from error
            yield piece
            if self._stream.eof:
                self.unused_data = self._stream.unused_data + data[end:]
                return


_STREAMS: Final[dict[str, Callable[[], _Stream]]] = {
    "gzip": _Zlib,
    "bzip2": lambda: _Python(bz2.BZ2Decompressor()),
    "xz": lambda: _Python(lzma.LZMADecompressor(memlimit=WINDOW_BYTES)),
    "zstd": _Zstd,
}
PACKINGS = tuple(_STREAMS)
"""What can be unpacked, by the names of layout.compression."""


def unpack(kind: str, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file of ``size`` bytes; several streams are one.

    Raises MessageUnreadable: 'corrupt' for damage or a missing end, 'compressed' for a
    bomb.
    """
    most = max(size * MAX_RATIO, FREE_BYTES)
    count = 0
    try:
        for piece in _pieces(_STREAMS[kind], chunks):
            count += len(piece)
            if count > most:
                code, detail = "compressed", f"{kind}: it unpacks to over {most} bytes"
                raise MessageUnreadable(code, detail)
            yield piece
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        code = "corrupt"
        raise MessageUnreadable(code, f"{kind}: {error}") from error


def _pieces(make: Callable[[], _Stream], chunks: Iterable[bytes]) -> Iterator[bytes]:
    stream: _Stream | None = None
    for chunk in chunks:
        data = chunk
        while data:
            stream = stream or make()
            yield from filter(None, stream.feed(data))
            data = stream.unused_data if stream.eof else b""
            stream = None if stream.eof else stream
    if stream is not None:
        message = "it ends early"
        raise EOFError(message)
