"""Two clients that send from memory and keep no record: what a round trip allows.

Both have one message of each session in doubt at most. ``data`` sends the next
envelope behind the final dot, as drainer does. ``bdat`` also sends the next content
there, as a chunk that is not the last (RFC 3030), and only its LAST waits.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

ENVELOPE = b"MAIL FROM:<sender@example.com>\r\nRCPT TO:<user@example.org>\r\n"
LINE = b"x" * 70 + b"\r\n"
_LIMIT_BYTES = 1024 * 1024

Client = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, int, bytes], Awaitable[None]
]


async def _replies(reader: asyncio.StreamReader, count: int) -> None:
    """Read so many replies; all must be positive."""
    while count:
        line = await reader.readline()
        assert line[:1] in (b"2", b"3"), line
        count -= line[3:4] != b"-"


async def data(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    count: int,
    content: bytes,
) -> None:
    """Send messages by DATA."""
    start = ENVELOPE + b"DATA\r\n"
    writer.write(start)
    await _replies(reader, 3)
    for n in range(1, count + 1):
        is_last = n == count
        writer.write(content + b".\r\n" + (b"" if is_last else start))
        await _replies(reader, 1 if is_last else 4)


async def bdat(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    count: int,
    content: bytes,
) -> None:
    """Send messages by BDAT."""
    start = ENVELOPE + b"BDAT %d\r\n" % len(content) + content
    writer.write(start)
    await _replies(reader, 3)
    for n in range(1, count + 1):
        is_last = n == count
        writer.write(b"BDAT 0 LAST\r\n" + (b"" if is_last else start))
        await _replies(reader, 1 if is_last else 4)


def seconds(
    client: Client, port: int, messages: int, size: int, sessions: int
) -> float:
    """Return how long a client takes for messages of a size, over several sessions."""
    content = LINE * (size // len(LINE))
    begun = time.monotonic()
    asyncio.run(_all(client, port, [messages // sessions] * sessions, content))
    return time.monotonic() - begun


async def _all(client: Client, port: int, shares: list[int], content: bytes) -> None:
    await asyncio.gather(*(_session(client, port, each, content) for each in shares))


async def _session(client: Client, port: int, count: int, content: bytes) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, limit=_LIMIT_BYTES
    )
    await _replies(reader, 1)
    writer.write(b"EHLO backup.example\r\n")
    await _replies(reader, 1)
    await client(reader, writer, count, content)
    writer.close()
