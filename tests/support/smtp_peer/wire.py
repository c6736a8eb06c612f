"""The bytes of a scripted peer's connection, in the order they came."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import cast


class Gone(Exception):
    """The connection is over."""


class Wire(asyncio.Protocol):
    """The bytes of a connection, in order, and who hung up."""

    def __init__(self, opened: Callable[["Wire"], None]) -> None:
        """Prepare; ``opened`` is called once, with the first transport."""
        self._opened: Callable[[Wire], None] | None = opened
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.buffer = bytearray()
        #: When so many bytes came.
        self.arrived: list[tuple[float, int]] = []
        self.ended = False

    @property
    def transport(self) -> asyncio.Transport:
        """The transport; raises Gone before there is one."""
        if self._transport is None:
            raise Gone
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; with STARTTLS this happens a second time."""
        self._transport = cast("asyncio.Transport", transport)
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(self)

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self.arrived.append((time.monotonic(), len(data)))
        self.buffer += data
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Let whoever waits know."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def more(self) -> None:
        """Wait for more bytes. Raises Gone at the end."""
        if self.ended:
            raise Gone
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def line(self) -> bytes:
        """Take one line with its end."""
        while (end := self.buffer.find(b"\n") + 1) == 0:
            await self.more()
        return self._take(end)

    async def content(self, watch: int | None) -> bytes | None:
        """Take the content up to the final dot; None once ``watch`` bytes are there."""
        seen = 0
        while True:
            end = self._final_dot(seen)
            seen = len(self.buffer)
            if watch is not None and (seen if end < 0 else end) >= watch:
                return None
            if end >= 0:
                return self._take(end + 3)[:-3]
            await self.more()

    def _final_dot(self, seen: int) -> int:
        """Return where it is, or -1; the first ``seen`` bytes were searched before."""
        if self.buffer.startswith(b".\r\n"):
            return 0
        end = self.buffer.find(b"\r\n.\r\n", max(0, seen - 4))
        return end if end < 0 else end + 2

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def silence(self, seconds: float | None) -> None:
        """Let time pass. Raises Gone as soon as the client leaves."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.more()
        except TimeoutError:
            return

    def reset(self) -> None:
        """Make the kernel send RST."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self.transport.abort()
