"""Replies as they arrive, one at a time, and writing with backpressure.

The protocol always reads, also while a body is written: a peer may answer early (RFC
5321 4.2.5), and a client that only writes can deadlock (RFC 2920 3.1). A peer never
makes this code raise: the connection is then `lost`.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from typing import cast

from drainer.mail.reply import Lost, ProtocolError, Reply, parse_reply

MAX_LINE_BYTES = 4096
MAX_REPLY_BYTES = 32 * 1024
MAX_REPLY_LINES = 128
MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Bytes of unread replies: far more than a session ever asks for at once."""
REPLY_BYTES = 300
"""Bytes that one takes in memory, about, beside its text."""
WRITE_BUFFER_BYTES = 256 * 1024


class SmtpProtocol(asyncio.Protocol):
    """Our end of an established connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over nothing yet; see ``attach``."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._scanned = 0
        self._lines = 0
        self._replies: deque[Reply] = deque()
        self._waiting = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._spare: int | None = None
        #: Why the connection is gone, or None while it is open.
        self.lost: Lost | None = None
        #: Done when it is gone; its result is when (time.monotonic).
        self.gone: asyncio.Future[float] = loop.create_future()

    def attach(self, transport: asyncio.Transport, descriptor: int | None) -> None:
        """Take the transport over from the protocol that opened it.

        ``descriptor`` is a spare one of the same socket, or None under TLS; a reply
        that arrived together with a reset is read from it.
        """
        self._transport = transport
        self._spare = descriptor
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if transport.is_closing():
            self._lose(Lost(reason="closed"))

    # --- what asyncio calls

    def data_received(self, data: bytes) -> None:
        """Add bytes and split them into replies."""
        self._buffer += data
        try:
            self._cut()
        except ProtocolError as error:
            self.abort(Lost(reason="protocol", detail=str(error)))
            return
        self._wake()

    def _cut(self) -> None:
        buffer = self._buffer
        while (end := buffer.find(b"\n", self._scanned)) >= 0:
            line = buffer[self._scanned : end].lstrip(b" \t")
            self._check_length(end - self._scanned)
            self._scanned = end + 1
            self._lines += 1
            if line[3:4] != b"-":
                self._queue(parse_reply(bytes(buffer[: end + 1])))
                del buffer[: end + 1]
                self._scanned = self._lines = 0
        self._check_length(len(buffer) - self._scanned)

    def _queue(self, reply: Reply) -> None:
        """Keep a reply until it is read; abort for a peer that never stops."""
        self._replies.append(reply)
        self._waiting += REPLY_BYTES + len(reply.text)
        if self._waiting > MAX_WAITING_BYTES:
            raise ProtocolError("endless replies that the session never asked for")

    def _check_length(self, line: int) -> None:
        """Raise ProtocolError when a line, or the reply so far, is too long."""
        if (
            line > MAX_LINE_BYTES
            or self._scanned + line > MAX_REPLY_BYTES
            or self._lines >= MAX_REPLY_LINES
        ):
            raise ProtocolError("a reply that is too long")

    def eof_received(self) -> bool:
        """Let the transport close; SMTP peers never half-close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Record why; read what had arrived before a reset."""
        if self.lost is None:
            if exc is not None:
                self._salvage()
            reason = "reset" if isinstance(exc, OSError) else "closed"
            self._lose(Lost(reason=reason, detail=str(exc or "")))
        self._drop_spare()

    def pause_writing(self) -> None:
        """Remember that the peer does not keep up."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let the writer continue."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- what a session calls

    def write(self, data: bytes) -> None:
        """Queue bytes; silently dropped once the connection is lost."""
        if self.lost is None and self._transport is not None:
            self._transport.write(data)

    async def drain(self, limit: float) -> None:
        """Wait until the peer keeps up, an answer came, or the wire is lost."""
        while self._writable is not None and self.lost is None and not self._replies:
            self._waiter = self._loop.create_future()
            done, _ = await asyncio.wait(
                (self._writable, self._waiter),
                timeout=limit,
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._waiter = None
            if not done:
                self.abort(
                    Lost(reason="timeout", detail="the peer has stopped reading")
                )

    async def reply(self, limit: float) -> Reply | Lost:
        """Return the next reply, or why there is none, within ``limit`` seconds."""
        if not self._replies and self.lost is None:
            timer = self._loop.call_later(limit, self._expire, limit)
            try:
                while not self._replies and self.lost is None:
                    self._waiter = self._loop.create_future()
                    await self._waiter  # a part of a reply wakes it as well
            finally:
                timer.cancel()
                self._waiter = None
        if self._replies:
            reply = self._replies.popleft()
            self._waiting -= REPLY_BYTES + len(reply.text)
            return reply
        return self.lost or Lost(reason="closed")

    async def wait(self, limit: float) -> bool:
        """Return whether a reply or the end of the connection came within ``limit``.

        Unlike ``reply`` it leaves a silent connection open.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not self._replies and self.lost is None:
                    self._waiter = self._loop.create_future()
                    await self._waiter
        self._waiter = None
        return bool(self._replies) or self.lost is not None

    async def ask(self, command: str, limit: float) -> Reply | Lost:
        """Send a command on its own, and return the answer to it as ``reply`` does."""
        self.write(command.encode() + b"\r\n")
        return await self.reply(limit)

    @property
    def has_reply(self) -> bool:
        """Whether a reply waits to be read."""
        return bool(self._replies)

    @property
    def next_reply(self) -> Reply | None:
        """The reply that waits to be read first, which stays unread; None = none."""
        return self._replies[0] if self._replies else None

    def abort(self, why: Lost) -> None:
        """Abort the connection at once."""
        self._lose(why)
        self._drop_spare()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close after what is written has been sent.

        With TLS, a transport would also wait for the peer's close_notify, for up to 30
        seconds. Nothing more is read, so it is not needed.
        """
        self._lose(Lost(reason="closed", detail="by us"))
        self._drop_spare()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        is_tls = transport.get_extra_info("ssl_object") is not None
        is_idle = is_tls and not transport.get_write_buffer_size()
        transport.close()
        if is_idle:
            transport.abort()

    def _lose(self, why: Lost) -> None:
        if self.lost is None:
            self.lost = why
            self.gone.set_result(time.monotonic())
        self._wake()
        self.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self, limit: float) -> None:
        self.abort(Lost(reason="timeout", detail=f"no reply for {limit:g} s"))

    def _salvage(self) -> None:
        """Read what the kernel still has: a 5xx may precede the reset."""
        if self._spare is None:
            return
        with contextlib.suppress(OSError, ProtocolError):
            os.set_blocking(self._spare, False)
            self._buffer += os.read(self._spare, MAX_REPLY_BYTES)
            self._cut()

    def _drop_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def spare_descriptor(transport: asyncio.BaseTransport) -> int | None:
    """Return a duplicate of a plain connection's descriptor; None under TLS."""
    if transport.get_extra_info("sslcontext") is not None:
        return None
    sock = transport.get_extra_info("socket")
    return None if sock is None else os.dup(cast("int", sock.fileno()))
