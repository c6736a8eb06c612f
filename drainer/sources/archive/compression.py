"""Unpack a file that a mail store compressed, as Dovecot's zlib plugin does; pure.

The plugin packs a Maildir file without changing its name (gzip, bzip2, zstd, in older
versions xz). The mail is the unpacked content. A file that unpacks to far more than its
size is a bomb, and one that ends early or has a wrong checksum is damaged.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, Final

from drainer.errors import MessageUnreadable

MAX_RATIO = 250
"""Most unpacked bytes for each packed one; mail packs 2 to 20 times."""
FREE_BYTES = 16 * 1024 * 1024
"""Below this size the ratio is not checked."""
WINDOW_BYTES = 128 * 1024 * 1024
"""Memory that a packing may need; `xz -9` takes 65 MiB, `zstd -19` 8 MiB."""

_OUTPUT_BYTES = 128 * 1024
_ZSTD_INPUT_BYTES = 64
"""An input this short unpacks to 2 MiB at most: each block has three bytes."""


_Pieces = Generator[bytes, None, bytes]
"""What some bytes unpack to, in pieces of limited size; returns what they leave."""


def _feed_zlib(stream: Any, data: bytes) -> _Pieces:  # noqa: ANN401 - it has no name
    piece = bytes(_OUTPUT_BYTES)
    while data or len(piece) == _OUTPUT_BYTES:
        piece = stream.decompress(data, _OUTPUT_BYTES)
        yield piece
        data = stream.unconsumed_tail
    return bytes(stream.unused_data)


def _feed_limited(
    stream: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: bytes
) -> _Pieces:
    yield stream.decompress(data, _OUTPUT_BYTES)
    while not (stream.eof or stream.needs_input):
        yield stream.decompress(b"", _OUTPUT_BYTES)
    return stream.unused_data


def _open_zstd() -> Any:  # noqa: ANN401 - imported only here
    import zstandard  # noqa: PLC0415 - slow to import

    limited = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES)
    return limited.decompressobj()


def _feed_zstd(stream: Any, data: bytes) -> _Pieces:  # noqa: ANN401 - as above
    import zstandard  # noqa: PLC0415 - it is loaded already

    for start in range(0, len(data), _ZSTD_INPUT_BYTES):
        end = start + _ZSTD_INPUT_BYTES
        try:
            piece = stream.decompress(data[start:end])
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        yield piece
        if stream.eof:
            return bytes(stream.unused_data) + data[end:]
    return b""


_Format = tuple[Callable[[], Any], Callable[[Any, bytes], _Pieces]]
_FORMATS: Final[dict[str, _Format]] = {
    "gzip": (partial(zlib.decompressobj, wbits=16 + zlib.MAX_WBITS), _feed_zlib),
    "bzip2": (bz2.BZ2Decompressor, _feed_limited),
    "xz": (partial(lzma.LZMADecompressor, memlimit=WINDOW_BYTES), _feed_limited),
    "zstd": (_open_zstd, _feed_zstd),
}
"""How to open a stream of each packing, and how to feed it."""
PACKINGS = tuple(_FORMATS)
"""What can be unpacked, by the names of layout.compression."""


def unpack(kind: str, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the unpacked bytes of a file of ``size`` bytes; several streams are one.

    Raises MessageUnreadable: 'corrupt' for damage or a missing end, 'compressed' for a
    bomb.
    """
    most = max(size * MAX_RATIO, FREE_BYTES)
    count = 0
    try:
        for piece in filter(None, _pieces(kind, chunks)):
            count += len(piece)
            if count > most:
                detail = f"{kind}: it unpacks to over {most} bytes"
                raise MessageUnreadable("compressed", detail)
            yield piece
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise MessageUnreadable("corrupt", f"{kind}: {error}") from error


def _pieces(kind: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    make, feed = _FORMATS[kind]
    stream = None
    for chunk in chunks:
        data = chunk
        while data:
            stream = stream or make()
            data = yield from feed(stream, data)
            stream = None if stream.eof else stream
    if stream is not None:
        raise EOFError("it ends early")
