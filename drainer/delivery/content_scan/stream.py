"""The connection to a scanner: TCP or a Unix socket, both ends limited."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress

from drainer.config.host import is_socket, split_server
from drainer.delivery.content_scan.protocol import ScannerFailure, ScanRequest
from drainer.mail.content import whole
from drainer.mail.reply import printable
from drainer.policy.admission.content_scan import MAX_WORD
from drainer.smtp.route import SOCKET_PREFIX

MAX_REPLY = 1024 * 1024
"""Bytes of a reply; rspamd's name every symbol, with its options."""


class ScannerStream:
    """One connection to a scanner."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Use an open connection."""
        self._reader = reader
        self._writer = writer

    async def write(self, parts: Iterable[bytes]) -> None:
        """Write all parts, as ``feed`` does."""
        await feed(self._writer, parts)

    async def ask(self, parts: Iterable[bytes]) -> bytes:
        """Write all parts and return what comes until the scanner closes."""
        await self.write(parts)
        return await self.read_all()

    async def read_until(self, end: bytes) -> bytes:
        """Return what comes before an end mark; raises EOFError without one."""
        try:
            return (await self._reader.readuntil(end)).removesuffix(end)
        except asyncio.LimitOverrunError:
            raise ScannerFailure("its reply is too long") from None

    async def read_all(self) -> bytes:
        """Return what comes until the scanner closes."""
        found = bytearray()
        while chunk := await self._reader.read(64 * 1024):
            found += chunk
            if len(found) > MAX_REPLY:
                raise ScannerFailure("its reply is too long")
        if not found:
            raise ScannerFailure("it closed the connection without an answer")
        return bytes(found)


async def feed(writer: asyncio.StreamWriter, parts: Iterable[bytes]) -> None:
    """Write all parts; stop when the peer takes no more: it may have answered.

    The parts may read a file, so they are made in a thread.
    """
    left = iter(parts)
    with suppress(ConnectionError):
        while (part := await asyncio.to_thread(next, left, None)) is not None:
            if writer.transport.is_closing():
                return  # uvloop would raise a RuntimeError
            writer.write(part)
            await writer.drain()


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[ScannerStream]:
    """Connect to HOST:PORT or unix:/PATH; leaving closes. Raises OSError."""
    if is_socket(address):
        path = address.removeprefix(SOCKET_PREFIX)
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection(*split_server(address))
    try:
        yield ScannerStream(reader, writer)
    finally:
        writer.transport.abort()


def content_of(request: ScanRequest) -> Iterator[bytes]:
    """Return the content of a request; MessageUnreadable if its size has changed."""
    return whole(request.content.chunks(), request.size)


def safe(text: str, limit: int = MAX_WORD) -> str:
    """Return text of a stranger for a line of a protocol or a record."""
    return printable(text)[:limit].strip()
