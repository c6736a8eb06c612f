"""The content on its way: dot-stuffed, at the rate allowed, until the peer speaks."""

import asyncio
from collections.abc import Iterator
from typing import Protocol, TypeVar

from drainer.mail.content import (
    dot_stuff,
    held_bytes,
    replace_bare_newlines,
    whole,
)
from drainer.smtp.protocol import SmtpProtocol
from drainer.smtp.rate_limiter import RateLimiter
from drainer.smtp.route import Route
from drainer.smtp.transaction import Transaction

SessionT_contra = TypeVar("SessionT_contra", contravariant=True)
IN_MEMORY_BYTES = 64 * 1024
"""A content up to this size is written at once; a larger one is streamed."""
BLOCK_BYTES = 256 * 1024
"""How much of that is read at a time."""


class TransactionSource(Protocol[SessionT_contra]):
    """What a session asks for while it sends: the next message, rate and ledger."""

    rate_limiter: RateLimiter

    async def claim_now(self, session: SessionT_contra) -> Transaction | None:
        """Return a message only if neither it nor the rate must be waited for."""
        ...

    async def is_durable(self, transaction: Transaction) -> bool:
        """Wait until the in-flight rows are durable; False: do not send it."""
        ...


async def write_body(
    transaction: Transaction, wire: SmtpProtocol, route: Route, limiter: RateLimiter
) -> bytes:
    """Write the content; stop at once when the peer answers or leaves.

    A small one is returned instead, to be sent together with its final dot: one
    system call, and one packet for the peer to wake up for. Raises MessageUnreadable.
    """
    chunks = _wire_form(transaction, route.bare_newlines)
    if transaction.facts.size_bytes <= IN_MEMORY_BYTES:
        content = b"".join(chunks)
        if len(content) <= limiter.burst_of("bytes"):
            await limiter.take_bytes(len(content))
            return content
        chunks = iter((content,))
    is_held = held_bytes(transaction.spooled) > 0
    while block := (
        _read_block(chunks) if is_held else await asyncio.to_thread(_read_block, chunks)
    ):
        if not await _write_paced(block, wire, route.timeouts.body, limiter):
            break
    return b""


def _read_block(chunks: Iterator[bytes]) -> bytes:
    """Return the next part of a content; b"" at its end."""
    pieces, size = [], 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= BLOCK_BYTES:
            break
    return b"".join(pieces)


async def _write_paced(
    chunk: bytes, wire: SmtpProtocol, limit: float, limiter: RateLimiter
) -> bool:
    """Write as much at a time as the rate allows; False when the peer is done."""
    start = 0
    while start < len(chunk):
        piece = chunk[start : start + limiter.burst_of("bytes")]
        start += len(piece)
        await limiter.take_bytes(len(piece))
        wire.write(piece)
        await wire.drain(limit)
        if wire.has_reply or wire.lost is not None:
            return False
    return True


def _wire_form(transaction: Transaction, bare_newlines: str) -> Iterator[bytes]:
    chunks = whole(transaction.spooled.content.chunks(), transaction.facts.size_bytes)
    if bare_newlines == "space":
        chunks = replace_bare_newlines(chunks)
    return dot_stuff(chunks)
