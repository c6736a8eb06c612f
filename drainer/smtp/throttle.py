"""The token buckets at the wire: aiolimiter's, fed with our arithmetic.

A token is taken, and MAIL is written, without anything in between that could
wait: so what the buckets allow is what the primary sees.
"""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

from aiolimiter import AsyncLimiter

from drainer.policy.throttle import Rate


class Throttle:
    """Messages per time and octets per time; None means unlimited.

    Several drains of one primary each have a share of the rates (``resize``).
    """

    def __init__(
        self, messages: Rate | None, octets: Rate | None, *, level: float = 0.0
    ) -> None:
        """Send nothing yet; ``level`` messages are in the bucket after a restart."""
        self._rates = messages, octets
        self._level = level
        self._messages: AsyncLimiter | None = None
        self._octets: AsyncLimiter | None = None
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()
        #: Set while there is a share of the rates to send with.
        self._open = asyncio.Event()

    async def resize(self, share: float) -> None:
        """Go on with a share of the rates, 0 to 1; 0 sends nothing.

        Later buckets begin without a burst: what the old ones have let through and
        what the new ones will, stays within the rates.
        """
        self._open.clear()
        if share <= 0:
            return
        messages, octets = (rate and rate.part(share) for rate in self._rates)
        self._messages = await _limiter(messages, self._level)
        self._octets = await _limiter(octets, self._level and math.inf)
        self._level = math.inf
        self._open.set()

    def close(self) -> None:
        """Let nobody wait any more: the drain is to end."""
        self._closed.set()

    async def message(self) -> bool:
        """Wait until one message may be sent; False when the drain ends first."""
        if await self.message_now():
            return True
        self._waiting += 1
        try:
            return await self._unless_closed(self._message())
        finally:
            self._waiting -= 1

    async def message_now(self) -> bool:
        """Take a token if that needs no waiting and nobody waits for one."""
        if self._closed.is_set() or not self._open.is_set():
            return False
        if self._messages is None:
            return True
        token = _token(self._messages)
        if self._waiting or not self._messages.has_capacity(token):
            return False
        await self._messages.acquire(token)  # never suspends: there is capacity
        return True

    async def octets(self, size: int) -> None:
        """Wait until so many octets may leave, in slices of at most a burst."""
        left = float(size)
        while left > 0 and self._octets is not None:
            limiter = self._octets
            part = min(left, limiter.max_rate)
            async with self._turn:  # aiolimiter serves the smallest wish first
                await limiter.acquire(part)
            if limiter is self._octets:  # else the share has changed meanwhile
                left -= part

    async def _message(self) -> None:
        """Take a token of the buckets that are in force when it is taken."""
        while True:
            await self._open.wait()
            limiter = self._messages
            if limiter is not None:
                await limiter.acquire(_token(limiter))
            if limiter is self._messages and self._open.is_set():
                return

    async def _unless_closed(self, waiting: Coroutine[Any, Any, None]) -> bool:
        """Wait for something or for the end of the drain; True for the former."""
        taking = asyncio.ensure_future(waiting)
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({taking, closing}, return_when=asyncio.FIRST_COMPLETED)
            return taking.done()
        finally:
            taking.cancel()
            closing.cancel()


def _token(limiter: AsyncLimiter) -> float:
    """Return one message; a share of a third is a millionth less than a third."""
    return min(1.0, limiter.max_rate)


async def _limiter(rate: Rate | None, level: float) -> AsyncLimiter | None:
    """Return a bucket that is filled to a level, at most to the brim."""
    if rate is None:
        return None
    limiter = AsyncLimiter(rate.burst, rate.period)
    if level > 0:
        await limiter.acquire(min(level, limiter.max_rate))
    return limiter
