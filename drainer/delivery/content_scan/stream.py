"""The connection to a scanner: TCP or a Unix socket, both ends limited."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress

from drainer.config.host import is_socket, split_server
from drainer.delivery.content_scan.protocol import ScannerFailure, ScanRequest
from drainer.mail.content import whole
from drainer.mail.reply import printable
from drainer.policy.admission.content_scan import MAX_WORD
from drainer.smtp.route import SOCKET_PREFIX

MAX_REPLY = 1024 * 1024
"""Bytes of a reply; rspamd's name every symbol, with its options."""


async def ask(address: str, parts: Iterable[bytes], end: bytes = b"") -> bytes:
    """Write all parts to HOST:PORT or unix:/PATH, as ``feed`` does; return the reply.

    It is what comes before the ``end`` mark, or without one until the scanner closes.
    Raises OSError, EOFError and ScannerFailure.
    """
    if is_socket(address):
        path = address.removeprefix(SOCKET_PREFIX)
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection(*split_server(address))
    try:
        await feed(writer, parts)
        return await (_read_until(reader, end) if end else _read_all(reader))
    finally:
        writer.transport.abort()


async def _read_until(reader: asyncio.StreamReader, end: bytes) -> bytes:
    try:
        return (await reader.readuntil(end)).removesuffix(end)
    except asyncio.LimitOverrunError:
        raise ScannerFailure("its reply is too long") from None


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while chunk := await reader.read(64 * 1024):
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


def content_of(request: ScanRequest) -> Iterator[bytes]:
    """Return the content of a request; MessageUnreadable if its size has changed."""
    return whole(request.content.chunks(), request.size)


def safe(text: str, limit: int = MAX_WORD) -> str:
    """Return text of a stranger for a line of a protocol or a record."""
    return printable(text)[:limit].strip()
